"""Bad input is one sentence on stderr, exit code 2, nothing on stdout and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def refused(result: Any, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("modelwright: ")
    assert message in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frain",), "No such command 'frain'"),
        (("train", "--out", "x", "--widnow", "3"), "No such option: --widnow"),
        (("train",), "Missing option '--out'"),
        (("generate", "x"), "Missing option '--prompt'"),
        (("verify",), "Missing argument 'CKPT'"),
        (("train", "--out", "x", "--steps", "many"), "Invalid value for '--steps'"),
        (("train", "--out", "x", "--steps", "0"), "(--steps): expected a whole number of at least 1, got 0"),
        (("train", "--out", "x", "--steps", "5", "--minutes", "1"), "exactly one of steps (--steps) and minutes"),
        (("train", "--out", "x"), "expected at least one file (--text FILE), got none"),
        (("train", "--out", "x", "--resume"), "expected at least one file (--text FILE), got none"),
        (("train", "--out", "x", "--text", "nowhere.txt"), "nowhere.txt: there is no such file"),
        (("train", "--out", "x", "--layers", "global"), "--layers: expected a list such as local,lsh,local,lsh"),
        (("generate", "nowhere", "--prompt", "a"), "nowhere"),
        (("inspect", "nowhere"), "expected a folder on this machine, found none"),
        (("verify", "nowhere"), "nowhere"),
    ],
)
def test_wrong_command_lines(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_empty_and_short_texts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    refused(run("train", "--text", tmp_path / "empty.txt", "--out", tmp_path / "m"), "found an empty file")
    (tmp_path / "short.txt").write_text("a few words")
    refused(run("train", "--text", tmp_path / "short.txt", "--out", tmp_path / "m"), "fewer than one window of 4,096")


def test_window_longer_than_the_positions(run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path) -> None:
    config = Path(trained["folder"]) / "config.json"
    result = run("train", "--text", text_file, "--out", tmp_path / "m", "--config", config, "--window", "128")
    refused(result, "at most the model's 64 positions (max_position_embeddings), got --window 128")


def test_another_architecture(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sparrow"}))
    refused(run("generate", folder, "--prompt", "a"), "sparrow")


def test_a_truncated_shard(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(run("generate", folder, "--prompt", "a"), shard.name)
    refused(run("inspect", folder), shard.name)


def test_training_over_a_training(run: Run, trained: dict[str, Any], text_file: Path, small: tuple[str, ...]) -> None:
    result = run("train", "--text", text_file, "--out", trained["folder"], *small)
    refused(result, "already holds a training, saved at step 6: go on with it (--resume)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", ""), "--prompt: expected some text to continue, got an empty one"),
        (("--prompt", "a", "--max-new-tokens", "0"), "--max-new-tokens: expected a whole number of at least 1"),
        (
            ("--prompt", "a", "--max-new-tokens", "64"),
            "expected at most 63, the model's 64 positions less the 1 tokens",
        ),
        (("--prompt", "a", "--temperature", "-1"), "--temperature: expected a number of at least 0, got -1.0"),
        (("--prompt", "a", "--temperature", "nan"), "--temperature: expected a number of at least 0, got nan"),
        (("--prompt", "a", "--top-k", "-1"), "--top-k: expected a whole number of at least 0, got -1"),
        (("--prompt", "a", "--top-p", "0"), "--top-p: expected a number above 0 and up to 1, got 0.0"),
        (("--prompt", "a", "--seed", "-1"), "--seed: expected a whole number of at least 0, got -1"),
    ],
)
def test_bad_generation(run: Run, trained: dict[str, Any], options: tuple[str, ...], message: str) -> None:
    refused(run("generate", trained["folder"], *options), message)
