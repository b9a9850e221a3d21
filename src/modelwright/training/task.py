"""What is trained: where examples come from, how a model is measured, and what must be the same on a resume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

Figures = dict[str, float]


class Task(Protocol):
    """The examples of a training and its measure; the loop knows nothing else about them.

    `paths`: the files that the examples are from. `identity`: plain JSON values that tell these examples, and how they
    are cut, from others.
    """

    @property
    def unit(self) -> str:
        """What a loss is told in: "nats/token"."""
        ...

    @property
    def paths(self) -> list[Path]:
        """The files that the examples are from."""
        ...

    def check_model(self, model: torch.nn.Module) -> None:
        """Raise InputError for a model that cannot learn from these examples."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what a training that goes on must find again."""
        ...

    def start_record(self) -> Mapping[str, Any]:
        """Return what the record of the start says beside model, settings and identity."""
        ...

    def batch(self, step: int, rows: range) -> dict[str, torch.Tensor]:
        """Return the keywords of one call of the model that gives a loss, a pure function of step and rows."""
        ...

    def loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the model for what `batch` returned."""
        ...

    def tokens(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Return how many tokens of the batch the model reads."""
        ...

    def figures(self, loss: float) -> Figures:
        """Return what a loss in nats is told as, beside itself."""
        ...

    def evaluate(self, model: torch.nn.Module, device: torch.device, *, last: bool) -> Figures:
        """Measure the model on held-out examples, thoroughly if it is the `last` time; the model's mode stays."""
        ...
