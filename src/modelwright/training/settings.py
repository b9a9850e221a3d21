"""What a training run is told: one frozen dataclass, checked when it is made.

Every bad value raises an InputError of one sentence that names the field as Python and as the command line spell it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import InputError, check_choice, reject_unknown

PRECISIONS = ("bf16", "fp32")
DEVICES = ("auto", "cpu")

# What may change between a training and its continuation: none of it has a say in the weights.
FREE_ON_RESUME = frozenset({"eval_every", "keep", "max_shard_size", "save_every"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of one training; give either `steps` or `minutes`.

    steps: optimizer steps. minutes: a target for the wall clock; the number of steps is measured during warm-up, fixed
    at its end and reported, so that the same run can be repeated with `steps`.
    window: tokens (bytes) of one training example. batch: examples of one forward pass on one process.
    accumulate: forward passes whose gradients are added up for one optimizer step.
    lr: the peak, reached after `warmup` steps; it then falls on a cosine to `final_lr` * lr at the last step.
    weight_decay: applies to matrices only. clip: the largest gradient norm, 0 for none.
    precision: "fp32", or "bf16" for autocast over fp32 weights. device: "auto" takes the accelerator that there is.
    held_out: fraction of the text, at its end, that training never reads; `eval_bytes` of it at most are measured.
    eval_every, save_every: steps; the last step does both, and one process also saves when two minutes have passed.
    keep: checkpoints that stay on disk.

    Raises InputError.
    """

    steps: int | None = None
    minutes: float | None = None
    window: int = 4096
    batch: int = 1
    accumulate: int = 1
    lr: float = 1e-3
    final_lr: float = 0.1
    warmup: int = 10
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    precision: str = "fp32"
    device: str = "auto"
    seed: int = 0
    held_out: float = 0.05
    eval_bytes: int = 256 * 1024
    eval_every: int = 100
    save_every: int = 500
    keep: int = 2
    max_shard_size: int | str = "5GB"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError(
                "TrainingSettings: expected exactly one of steps (--steps) and minutes (--minutes), "
                f"got steps={self.steps} and minutes={self.minutes}."
            )
        for name, least in _WHOLE.items():
            self._check_whole(name, least)
        for name, (low, high, text) in _REAL.items():
            self._check_real(name, low, high, text)
        check_choice(_where("precision"), self.precision, PRECISIONS)
        check_choice(_where("device"), self.device, DEVICES)
        if self.steps is not None and self.warmup >= self.steps:
            raise InputError(f"{_where('warmup')}: expected fewer than the {self.steps} steps, got {self.warmup}.")
        if self.minutes is not None and self.warmup < 2:
            raise InputError(
                f"{_where('warmup')}: expected at least 2 with --minutes, whose number of steps is measured during "
                f"warm-up, got {self.warmup}."
            )

    def _check_whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None and name == "steps":
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{_where(name)}: expected a whole number of at least {least}, got {value!r}.")

    def _check_real(self, name: str, low: float, high: float, text: str) -> None:
        value = getattr(self, name)
        if value is None and name == "minutes":
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            raise InputError(f"{_where(name)}: expected a number {text}, got {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingSettings":
        """Return the settings that `to_dict` gave; raises UnknownArgumentError for a name that is none of ours."""
        reject_unknown("TrainingSettings", values, (field.name for field in dataclasses.fields(cls)))
        return cls(**values)


_TINY = 1e-12
_WHOLE = {
    "steps": 1,
    "window": 2,
    "batch": 1,
    "accumulate": 1,
    "warmup": 0,
    "seed": 0,
    "eval_bytes": 1,
    "eval_every": 1,
    "save_every": 1,
    "keep": 1,
}
_REAL = {
    "minutes": (_TINY, math.inf, "above 0"),
    "lr": (_TINY, math.inf, "above 0"),
    "final_lr": (0.0, 1.0, "from 0 to 1"),
    "weight_decay": (0.0, math.inf, "of at least 0"),
    "beta1": (0.0, 1.0 - _TINY, "from 0 to below 1"),
    "beta2": (0.0, 1.0 - _TINY, "from 0 to below 1"),
    "clip": (0.0, math.inf, "of at least 0"),
    "held_out": (_TINY, 0.5, "above 0 and up to 0.5"),
}


def _where(name: str) -> str:
    return f"TrainingSettings.{name} (--{name.replace('_', '-')})"


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, free: frozenset[str] = frozenset()) -> list[str]:
    """Return one "name was X, now Y" for every key outside `free` whose values differ, sorted by name."""
    return [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted((before.keys() | now.keys()) - free)
        if before.get(name) != now.get(name)
    ]
