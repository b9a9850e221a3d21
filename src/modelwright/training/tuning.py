"""The task of a model that goes on learning on examples, with their labels, a teacher, or both.

It is what quantization-aware training runs: the quantizers are in the model, and their ranges, which are no
parameters, stay as calibration has set them.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.checkpoint.manifest import hash_file
from modelwright.core.errors import InputError
from modelwright.training.distillation import Teacher, distillation_loss
from modelwright.training.examples import ExampleKind, Examples, padded
from modelwright.training.rng import seeded
from modelwright.training.task import Figures

# What the teacher counts where there are labels, too.
OF_TEACHER = 0.5


class TuningTask:
    """The examples `items`, each once in every epoch in an order that follows from `seed`.

    path: the file they are from. held_out: what is measured. batch: rows of a step. teacher: if given, the loss is the
    distance to its outputs, and half of that and half of the labels' where there are labels. Raises InputError for
    items without labels and no teacher.
    """

    def __init__(
        self,
        kind: ExampleKind,
        items: Sequence[Any],
        held_out: Examples,
        *,
        path: Path,
        seed: int,
        batch: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.kind, self.items, self.held_out, self.path = kind, items, held_out, path
        self.seed, self.rows_of_step, self.teacher = seed, batch, teacher
        self.encoded = kind.encode(items)
        self._order: tuple[int, Any] | None = None
        for where, encoded in ((path, self.encoded), ("the held-out examples", held_out.encoded)):
            if teacher is None and not all(encoded.targets):
                raise InputError(
                    f"{where}: expected labels to train with, found {kind.item_name} without; a teacher (--distill) "
                    "needs none"
                )

    @property
    def paths(self) -> list[Path]:
        """The file of the examples."""
        return [self.path]

    @property
    def unit(self) -> str:
        """What the loss counts."""
        return "nats/row" if self.teacher is None else "loss"

    def steps(self, epochs: float) -> int:
        """Return the number of steps in which `epochs` pass."""
        return max(1, math.ceil(epochs * len(self.encoded.rows) / self.rows_of_step))

    def check_model(self, model: torch.nn.Module) -> None:
        """Do nothing: the held-out examples were measured with this model before."""

    def identity(self) -> dict[str, Any]:
        """Return what tells the file from others, how it is cut, and whether there is a teacher."""
        return {
            "items": len(self.items),
            "rows": len(self.encoded.rows),
            "sha256": hash_file(self.path).sha256,
            "max_length": self.kind.max_length,
            "distill": self.teacher is not None,
        }

    def start_record(self) -> Mapping[str, Any]:
        """Return the numbers of items."""
        return {"train_items": len(self.items), "held_out_items": len(self.held_out)}

    def batch(self, step: int, rows: range) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` [B, T] and what else the model takes, labels included."""
        chosen = [self._index(step * self.rows_of_step + row) for row in rows]
        return self._batch(self.encoded, chosen)

    def _batch(self, encoded: Any, chosen: Sequence[int]) -> dict[str, Tensor]:
        batch = padded(self.kind.tokenizer, [encoded.rows[i] for i in chosen])
        targets = [encoded.targets[i] for i in chosen]
        if all(targets):
            batch |= {name: torch.tensor([each[name] for each in targets]) for name in targets[0]}
        return batch

    def _index(self, position: int) -> int:
        """Return the row that comes at a position of the training: a permutation of all in each epoch."""
        epoch, place = divmod(position, len(self.encoded.rows))
        if self._order is None or self._order[0] != epoch:
            generator = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, 0, epoch]))
            self._order = (epoch, generator.permutation(len(self.encoded.rows)))
        return int(self._order[1][place])

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Return the number of tokens that are no padding."""
        return int(batch["attention_mask"].sum())

    def figures(self, loss: float) -> Figures:  # noqa: ARG002 (a loss is told as it is)
        """Return nothing more."""
        return {}

    def loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch: of its labels, of the distance to the teacher, or the mean of both.

        Who learns from a teacher has no dropout, as the teacher: its noise would be most of the distance.
        """
        if self.teacher is None:
            own: Tensor = model(**batch).loss
            return own
        with _evaluating(model):
            output = model(**batch)
        inputs = {name: value for name, value in batch.items() if name in self.encoded.rows[0]}
        distance = distillation_loss(output, self.teacher(inputs), batch["attention_mask"])
        if len(inputs) == len(batch):
            return distance
        both: Tensor = OF_TEACHER * distance + (1 - OF_TEACHER) * output.loss
        return both

    def evaluate(self, model: torch.nn.Module, device: torch.device, *, last: bool) -> Figures:  # noqa: ARG002
        """Return the held-out loss and scores."""
        with _evaluating(model), seeded(0), torch.no_grad():
            return {"loss": self._held_out_loss(model, device), **self.held_out.scores(self.held_out(model))}

    def _held_out_loss(self, model: Any, device: torch.device) -> float:
        encoded, order, total = self.held_out.encoded, self.held_out.order, 0.0
        for first in range(0, len(order), self.rows_of_step):
            part = order[first : first + self.rows_of_step]
            batch = {name: value.to(device) for name, value in self._batch(encoded, part).items()}
            total += float(self.loss(model, batch)) * len(part)
        return total / len(order)


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
