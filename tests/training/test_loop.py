"""The loop: it learns, repeats, accumulates, resumes and refuses."""

import dataclasses
import random
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.training.data import TextBytes
from modelwright.training.loop import DivergedError, TrainingResult, train
from modelwright.training.metrics import read_metrics
from modelwright.training.settings import TrainingSettings
from modelwright.training.state import newest_checkpoint

SETTINGS = TrainingSettings(steps=40, window=32, batch=2, lr=1e-2, warmup=5, eval_every=10, save_every=10)
TIMES = {"seconds", "tokens_per_s", "peak_rss_bytes"}


class Trainer:
    def __init__(self, tiny: ModuleType, text_file: Path, tmp_path: Path) -> None:
        self.tiny, self.text, self.folder = tiny, TextBytes([text_file]), tmp_path

    def __call__(self, name: str, settings: TrainingSettings = SETTINGS, *, model: Any = None, **kwargs: Any) -> Any:
        model = self.tiny.make_model() if model is None else model
        result = train(
            model, self.text, settings, tokenizer=self.tiny.TinyTokenizer(), out=self.folder / name, **kwargs
        )
        return result, model

    def curve(self, name: str) -> list[dict[str, Any]]:
        """The records without what a clock measures."""
        records = read_metrics(self.folder / name / "metrics.jsonl")
        return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture
def trainer(tiny: ModuleType, text_file: Path, tmp_path: Path) -> Trainer:
    return Trainer(tiny, text_file, tmp_path)


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_learns_and_reports_what_it_measured(trainer: Trainer) -> None:
    seen: list[Any] = []
    result, model = trainer("a", observe=seen.append)
    assert isinstance(result, TrainingResult)
    assert result.steps == 40
    assert result.held_out_bits < result.baselines.entropy < 8
    records = read_metrics(trainer.folder / "a" / "metrics.jsonl")
    assert records == seen
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 41))
    assert [r["step"] for r in records if r["kind"] == "held_out"] == [0, 10, 20, 30, 40]
    assert records[-1]["bits_per_byte"] == result.held_out_bits
    assert records[0]["kind"] == "start"
    assert records[0]["baselines"] == dataclasses.asdict(result.baselines)
    assert 7.5 < records[1]["bits_per_byte"] < 9  # nothing learnt yet: about log2(258)
    for record in records:
        if record["kind"] == "train":
            assert record["bits_per_byte"] == pytest.approx(record["loss"] / np.log(2))
            assert record["lr"] > 0
            assert record["grad_norm"] > 0
            assert record["tokens_per_s"] > 0
            assert record["peak_rss_bytes"] > 0
    reloaded = trainer.tiny.TinyModel.from_pretrained(trainer.folder / "a")
    assert same_weights(reloaded, model)


def test_same_seed_same_curve_and_weights(trainer: Trainer) -> None:
    _, first = trainer("a")
    torch.rand(5)  # the caller's streams have no say
    _, second = trainer("b")
    assert trainer.curve("a") == trainer.curve("b")
    assert same_weights(first, second)
    _, other = trainer("c", dataclasses.replace(SETTINGS, seed=1))
    assert not same_weights(first, other)


def test_the_callers_random_streams_are_not_touched(trainer: Trainer) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    trainer("a")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]


def test_accumulation_equals_a_larger_batch(trainer: Trainer) -> None:
    settings = dataclasses.replace(SETTINGS, steps=10, batch=4, accumulate=1)
    without_dropout = trainer.tiny.make_model(), trainer.tiny.make_model()
    for model in without_dropout:
        model.dropout.p = 0.0
    _, whole = trainer("a", settings, model=without_dropout[0])
    _, parts = trainer("b", dataclasses.replace(settings, batch=2, accumulate=2), model=without_dropout[1])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert [r["loss"] for r in trainer.curve("a") if r["kind"] == "train"] == pytest.approx(
        [r["loss"] for r in trainer.curve("b") if r["kind"] == "train"], rel=1e-4
    )


def test_clipping_limits_the_step(trainer: Trainer) -> None:
    norms = {}
    for clip in (0.0, 1e-9):
        _, model = trainer(f"clip{clip}", dataclasses.replace(SETTINGS, steps=6, warmup=0, clip=clip, weight_decay=0.0))
        start = trainer.tiny.make_model()
        norms[clip] = float((model.head.weight - start.head.weight).detach().norm())
    assert norms[0.0] > 10 * norms[1e-9]


def test_mixed_precision_keeps_fp32_weights_and_leaves_no_trace(trainer: Trainer) -> None:
    seen = set()
    model = trainer.tiny.make_model()
    model.mix.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    forward = model.forward
    trainer("a", dataclasses.replace(SETTINGS, steps=6, precision="bf16"), model=model)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.forward == forward
    assert not hasattr(model, "_is_accelerate_prepared")
    seen.clear()
    trainer("b", dataclasses.replace(SETTINGS, steps=6), model=model)  # the other precision, the same process and model
    assert seen == {torch.float32}


def test_minutes_fix_a_number_of_steps_that_repeats_the_run(trainer: Trainer) -> None:
    result, timed = trainer("a", dataclasses.replace(SETTINGS, steps=None, minutes=0.005))
    assert result.steps > SETTINGS.warmup
    totals = [r["total_steps"] for r in trainer.curve("a") if r["kind"] == "train"]
    assert totals[:5] == [None] * 5
    assert set(totals[5:]) == {result.steps}
    _, counted = trainer("b", dataclasses.replace(SETTINGS, steps=result.steps))
    assert same_weights(timed, counted)


def test_resumed_equals_uninterrupted(trainer: Trainer) -> None:
    class Stop(Exception):
        pass

    def stop(record: Any) -> None:
        if record["kind"] == "train" and record["step"] == 27:
            raise Stop

    _, whole = trainer("a")
    with pytest.raises(Stop):
        trainer("b", observe=stop)
    result, resumed = trainer("b", model=trainer.tiny.make_model(seed=99), resume=True)
    assert same_weights(whole, resumed)
    assert trainer.curve("a") == trainer.curve("b")
    assert result.steps == 40
    again, model = trainer("b", resume=True)  # already at the last step: measures and writes the same again
    assert again.held_out_bits == result.held_out_bits
    assert trainer.curve("a") == trainer.curve("b")
    assert same_weights(model, whole)


def test_a_training_is_not_overwritten(trainer: Trainer) -> None:
    trainer("a")
    with pytest.raises(InputError, match=r"already holds a training, saved at step 40: go on with it \(--resume\)"):
        trainer("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, "lr was 0.01, now 0.5"),
        ({"steps": 50}, "steps was 40, now 50"),
        ({"seed": 3, "window": 16}, "seed was 0, now 3; window was 32, now 16"),
    ],
)
def test_resume_refuses_other_settings_and_names_them(trainer: Trainer, change: dict[str, Any], message: str) -> None:
    trainer("a")
    with pytest.raises(InputError, match=message):
        trainer("a", dataclasses.replace(SETTINGS, **change), resume=True)


def test_resume_takes_other_saving_and_measuring(trainer: Trainer) -> None:
    _, before = trainer("a")
    _, after = trainer("a", dataclasses.replace(SETTINGS, save_every=7, eval_every=3, keep=5), resume=True)
    assert same_weights(before, after)


def test_resume_refuses_another_text_or_model(trainer: Trainer, tmp_path: Path) -> None:
    trainer("a")
    with pytest.raises(InputError, match="model config max_position_embeddings was 64, now 128"):
        trainer("a", model=trainer.tiny.make_model(max_position_embeddings=128), resume=True)
    other = tmp_path / "other.txt"
    other.write_bytes(b"another text " * 1000)
    trainer.text = TextBytes([other])
    with pytest.raises(InputError, match="text bytes was 9000, now 13000; text sha256 was"):
        trainer("a", resume=True)


def test_a_loss_that_is_not_a_number_stops_the_training(trainer: Trainer) -> None:
    model = trainer.tiny.make_model()

    def spoil(at: int) -> Any:
        def observe(record: Any) -> None:
            if record["step"] == at:
                with torch.no_grad():
                    model.head.bias[0] = float("nan")

        return observe

    with pytest.raises(DivergedError, match=r"Training step 13: the loss is nan .* give a lower --lr"):
        trainer("a", model=model, observe=spoil(12))
    newest = newest_checkpoint(trainer.folder / "a")
    assert newest is not None
    assert newest.position.step == 10
    with pytest.raises(DivergedError, match="Held-out text at step 0: the loss is nan: give a lower --lr"):
        trainer("b", model=model)


def test_window_and_vocabulary_must_fit_the_model(trainer: Trainer) -> None:
    with pytest.raises(InputError, match=r"at most the model's 64 positions .* got --window 65"):
        trainer("a", dataclasses.replace(SETTINGS, window=65))
    with pytest.raises(InputError, match="the bytes need 258 token ids, but the model's vocab_size is 257"):
        trainer("b", model=trainer.tiny.make_model(vocab_size=257))
    with pytest.raises(InputError, match="banana"):
        trainer("b", dataclasses.replace(SETTINGS, max_shard_size="banana"))
    with pytest.raises(InputError, match=r"text\.txt: expected a folder for the training \(--out\), found a file"):
        trainer("text.txt")
    with pytest.raises(InputError, match="fewer than one window"):
        trainer("c", dataclasses.replace(SETTINGS, held_out=0.5, window=4501))
    assert not any((trainer.folder / name).exists() for name in "abc")


def test_a_model_is_not_overwritten(trainer: Trainer) -> None:
    folder = trainer.folder / "a"
    trainer("a")
    shutil.rmtree(folder / "checkpoints")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for resume in (False, True):
        with pytest.raises(InputError, match=r"already holds a model \(config\.json\).*would be overwritten"):
            trainer("a", resume=resume)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_trainings_do_not_share_a_folder(trainer: Trainer) -> None:
    refused: list[str] = []

    def start_another(record: Any) -> None:
        if record["step"] in (0, 15):
            with pytest.raises(InputError) as caught:
                trainer("a", resume=True)
            refused.append(str(caught.value))

    _, disturbed = trainer("a", observe=start_another)
    assert len(refused) == 3
    assert all("another training is writing into this folder" in message for message in refused)
    _, alone = trainer("b")
    assert same_weights(disturbed, alone)
    trainer("a", resume=True)  # the lock is gone with its holder


def test_a_refused_training_leaves_no_folder(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise InputError("no such device")

    monkeypatch.setattr("modelwright.training.acceleration.make_accelerator", refuse)
    with pytest.raises(InputError, match="no such device"):
        trainer("new/folder")
    assert not (trainer.folder / "new").exists()


def test_the_callers_accelerator_stays_as_it_is(trainer: Trainer) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    try:
        own = Accelerator(gradient_accumulation_steps=4, cpu=True)
        trainer("a", dataclasses.replace(SETTINGS, steps=6, accumulate=2, device="cpu"))
        assert own.gradient_accumulation_steps == 4
    finally:
        AcceleratorState._reset_state()
        GradientState._reset_state()
    trainer("b", dataclasses.replace(SETTINGS, steps=6, accumulate=2))
    assert Accelerator(cpu=True).gradient_accumulation_steps == 1
    AcceleratorState._reset_state()
    GradientState._reset_state()


def test_saves_by_the_clock_too(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelwright.training.loop._SAVE_SECONDS", 0.0)
    trainer("a", dataclasses.replace(SETTINGS, steps=6, save_every=1000, keep=10))
    folders = sorted(path.name for path in (trainer.folder / "a" / "checkpoints").iterdir())
    assert folders == [f"step-{step:08d}" for step in range(1, 7)]
