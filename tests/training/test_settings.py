"""Every bad setting is one sentence that names it."""

import dataclasses
from typing import Any

import pytest

from modelwright.core.errors import InputError, UnknownArgumentError
from modelwright.training.settings import FREE_ON_RESUME, TrainingSettings, differences


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected exactly one of steps"),
        ({"steps": 5, "minutes": 1.0}, "got steps=5 and minutes=1.0"),
        ({"steps": 0}, r"steps \(--steps\): expected a whole number of at least 1, got 0"),
        ({"steps": 10.0}, r"--steps\): expected a whole number of at least 1, got 10.0"),
        ({"steps": True}, "got True"),
        ({"minutes": -1}, r"--minutes\): expected a number above 0, got -1"),
        ({"minutes": float("nan")}, "got nan"),
        ({"minutes": 1, "warmup": 1}, "at least 2 with --minutes"),
        ({"steps": 10, "warmup": 10}, "fewer than the 10 steps, got 10"),
        ({"window": 1}, r"--window\): expected a whole number of at least 2, got 1"),
        ({"batch": 0}, "--batch"),
        ({"accumulate": 0}, "--accumulate"),
        ({"lr": 0}, r"--lr\): expected a number above 0, got 0"),
        ({"lr": float("inf")}, "got inf"),
        ({"lr": "fast"}, "got 'fast'"),
        ({"final_lr": 1.5}, r"--final-lr\): expected a number from 0 to 1, got 1.5"),
        ({"warmup": -1}, "--warmup"),
        ({"weight_decay": -0.1}, r"--weight-decay\): expected a number of at least 0, got -0.1"),
        ({"beta1": 1.0}, "--beta1"),
        ({"beta2": -1.0}, "--beta2"),
        ({"clip": -1.0}, "--clip"),
        ({"precision": "fp16"}, r"--precision\): expected one of bf16, fp32, got 'fp16'"),
        ({"device": "gpu"}, "--device"),
        ({"seed": -1}, "--seed"),
        ({"held_out": 0.0}, r"--held-out\): expected a number above 0 and up to 0.5, got 0.0"),
        ({"held_out": 0.6}, "--held-out"),
        ({"eval_bytes": 0}, "--eval-bytes"),
        ({"eval_every": 0}, "--eval-every"),
        ({"save_every": 0}, "--save-every"),
        ({"keep": 0}, "--keep"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    if values and "steps" not in values and "minutes" not in values:
        values = {"steps": 100, **values}
    with pytest.raises(InputError, match=message) as caught:
        TrainingSettings(**values)
    assert "\n" not in str(caught.value)


def test_every_field_but_the_shard_size_is_checked() -> None:
    # The shard size is parsed by the checkpoint room when a checkpoint is saved.
    for field in dataclasses.fields(TrainingSettings):
        if field.name != "max_shard_size":
            with pytest.raises(InputError, match=f"--{field.name.replace('_', '-')}"):
                TrainingSettings(**{"steps": 100, field.name: "?"})


def test_round_trip() -> None:
    settings = TrainingSettings(minutes=2, window=128, lr=3e-3)
    assert TrainingSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(UnknownArgumentError, match=r"unknown keyword 'windw'\. Did you mean 'window'\?"):
        TrainingSettings.from_dict({**settings.to_dict(), "windw": 3})


def test_differences_name_each_changed_value() -> None:
    before = TrainingSettings(steps=100).to_dict()
    now = TrainingSettings(steps=100, lr=1.0, seed=3, save_every=7).to_dict()
    assert differences(before, now, free=FREE_ON_RESUME) == ["lr was 0.001, now 1.0", "seed was 0, now 3"]
    assert differences(before, before) == []
