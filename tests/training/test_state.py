"""Checkpoints of a training: complete or absent, kept or removed, found again."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from modelwright.core.errors import CheckpointError
from modelwright.training import state
from modelwright.training.metrics import read_metrics
from modelwright.training.rng import rng_state, seeded, set_rng_state

FACTS = state.Facts(settings={}, text={}, model={}, processes=1, torch=torch.__version__, threads=1, text_paths=[])


def save(tiny: ModuleType, out: Path, step: int, *, keep: int = 2) -> Path:
    return state.save_training(
        out,
        model=tiny.make_model(seed=step),
        tokenizer=tiny.TinyTokenizer(),
        state={"optimizer": {}, "rng": [rng_state()]},
        position=state.Position(step, 100, 1.5),
        facts=FACTS,
        max_shard_size="5GB",
        keep=keep,
    )


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / state.CHECKPOINTS).iterdir())


def test_the_newest_is_found_and_the_oldest_are_removed(tiny: ModuleType, tmp_path: Path) -> None:
    assert state.newest_checkpoint(tmp_path) is None
    for step in (9, 10, 100):
        save(tiny, tmp_path, step)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]
    newest = state.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.position == state.Position(100, 100, 1.5)
    assert newest.facts == FACTS
    model = tiny.make_model(seed=1)
    newest.load_weights(model)
    assert torch.equal(model.head.weight, tiny.make_model(seed=100).head.weight)


def test_an_unfinished_folder_is_no_checkpoint_and_is_cleared(tiny: ModuleType, tmp_path: Path) -> None:
    save(tiny, tmp_path, 1)
    (tmp_path / state.CHECKPOINTS / ".new-step-00000002").mkdir()
    newest = state.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.position.step == 1
    save(tiny, tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def damage_size(folder: Path) -> None:
    (folder / "weights.pt").write_bytes((folder / "weights.pt").read_bytes()[:-1])


def damage_bit(folder: Path) -> None:
    data = bytearray((folder / state.STATE_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / state.STATE_NAME).write_bytes(data)


def damage_missing(folder: Path) -> None:
    (folder / "weights.pt").unlink()


def damage_facts(folder: Path) -> None:
    (folder / state.FACTS_NAME).write_text("{")


def damage_version(folder: Path) -> None:
    path = folder / state.FACTS_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_size, r"weights\.pt: expected .* found"),
        (damage_bit, r"training_state\.pt: expected .* found"),
        (damage_missing, r"weights\.pt: expected .* found no such file"),
        (damage_facts, r"training\.json cannot be read"),
        (damage_version, "expected format 1, found 99"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(tiny: ModuleType, tmp_path: Path, damage: Any, message: str) -> None:
    save(tiny, tmp_path, 1)
    damage(save(tiny, tmp_path, 2))
    newest = state.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.position.step == 1
    damage(newest.folder)
    with pytest.raises(CheckpointError, match=f"none of its 2 checkpoints is sound.*{message}"):
        state.newest_checkpoint(tmp_path)
    save(tiny, tmp_path, 2)  # a damaged one is replaced
    again = state.newest_checkpoint(tmp_path)
    assert again is not None
    assert again.position.step == 2


def test_another_torch_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = state.Facts(settings={}, text={}, model={}, processes=1, torch="1.0", threads=1, text_paths=[])
    with caplog.at_level(logging.WARNING, logger="modelwright"):
        FACTS.check_continues(FACTS, tmp_path)
        assert caplog.messages == []
        FACTS.check_continues(other, tmp_path)
    assert "saved with torch 1.0 on 1 threads" in caplog.text
    assert "not bit for bit" in caplog.text


def draws() -> list[float]:
    return [float(torch.rand(1)), random.random(), float(np.random.rand()), float(np.random.randn())]


def test_random_streams_survive_the_file(tmp_path: Path) -> None:
    with seeded(3):
        np.random.randn(), random.gauss(0, 1)  # leaves a cached second normal in both streams
        torch.save(rng_state(), tmp_path / "rng.pt")
        expected = draws()
        set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
        assert draws() == expected


def test_seeded_repeats_and_restores() -> None:
    before = rng_state()
    with seeded(5):
        first = draws()
    with seeded(5):
        assert draws() == first
    after = rng_state()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_trainings_end_with_the_same_weights(
    tiny: ModuleType, text_file: Path, tmp_path: Path, kills: int
) -> None:
    settings = json.dumps(
        {"steps": 120, "window": 32, "batch": 2, "lr": 0.01, "warmup": 5, "eval_every": 40, "save_every": 2}
    )

    def start(out: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-W", "error", str(Path(tiny.__file__ or "")), str(text_file), str(out), settings]
        command.append("0.1")
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    generator = random.Random(kills)
    killed_at = [0]
    for number in range(kills):
        process = start(tmp_path / "killed")
        wait_for_step(process, tmp_path / "killed" / "metrics.jsonl", 13 + number * 90 // kills)
        time.sleep(generator.uniform(0.0, 0.02))  # anywhere in a step or in a save
        process.send_signal(signal.SIGKILL)
        process.communicate()
        newest = state.newest_checkpoint(tmp_path / "killed")
        assert newest is not None
        killed_at.append(newest.position.step)
    assert killed_at == sorted(killed_at)
    assert 12 <= killed_at[-1] < 120
    last = start(tmp_path / "killed")
    for process in (whole, last):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    a = torch.load(tmp_path / "whole" / "weights.pt")
    b = torch.load(tmp_path / "killed" / "weights.pt")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


def wait_for_step(process: "subprocess.Popen[bytes]", metrics: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.002)
    raise AssertionError(process.stderr.read() if process.stderr else b"")


def curve(folder: Path) -> list[tuple[Any, ...]]:
    return [
        tuple(record.get(key) for key in ("kind", "step", "total_steps", "loss", "grad_norm", "lr", "bits_per_byte"))
        for record in read_metrics(folder / "metrics.jsonl")
    ]


def test_a_damaged_newer_checkpoint_does_not_push_out_the_sound_one(tiny: ModuleType, tmp_path: Path) -> None:
    save(tiny, tmp_path, 5)
    damage_size(save(tiny, tmp_path, 9, keep=2))
    save(tiny, tmp_path, 7, keep=1)  # gone on from 5, past the damaged 9
    assert names(tmp_path) == ["step-00000007"]


def test_only_sound_checkpoints_count(tiny: ModuleType, tmp_path: Path) -> None:
    save(tiny, tmp_path, 1)
    damage_bit(save(tiny, tmp_path, 2))
    save(tiny, tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
    save(tiny, tmp_path, 4)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_hidden_entries_of_others_stay(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / state.CHECKPOINTS
    (folder / ".mine").mkdir(parents=True)
    (folder / ".DS_Store").write_bytes(b"x")
    for leftover in (".new-step-00000002", ".old-step-00000001"):
        (folder / leftover).mkdir()
    save(tiny, tmp_path, 1)
    assert names(tmp_path) == [".DS_Store", ".mine", "step-00000001"]
