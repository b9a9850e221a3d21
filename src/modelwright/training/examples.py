"""Examples of a task (texts, labelled texts, questions): as rows of token ids, run through a model, scored.

An item is what a person counts, a row what a model reads: a question is several rows if its context is long.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.core.errors import InputError

BATCH = 16
Scores = dict[str, float]
Row = dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows for a model, and for each the keywords that give it a loss (none if there are no labels).

    `context` is what the task needs to read the outputs.
    """

    rows: list[Row]
    targets: list[dict[str, int]]
    context: Any = None


class ExampleKind(Protocol):
    """What the examples are; `items` are its own."""

    tokenizer: Any
    max_length: int

    @property
    def item_name(self) -> str:
        """What an item is called: "texts", "questions"."""
        ...

    @property
    def measure(self) -> str | None:
        """The score that counts, or None for items without labels."""
        ...

    def group(self, item: Any) -> Any:
        """Return what items share that must not be on both sides of a split."""
        ...

    def encode(self, items: Sequence[Any]) -> Encoded:
        """Return the rows of the items."""
        ...

    def scores(self, items: Sequence[Any], encoded: Encoded, outputs: Tensor) -> Scores:
        """Return the scores, from 0 to 1, of what `Examples` returned for all rows; {} for items without labels."""
        ...


class Examples:
    """Items of one kind. A call runs a model, PyTorch's or an exported one, and returns a vector for each row.

    A vector is the mean of the last hidden states of the row's tokens, of length 1; for a model with a head it is the
    logits, for one that scores tokens those of all `max_length` places (zeros behind the row).
    """

    def __init__(self, kind: ExampleKind, items: Sequence[Any]) -> None:
        self.kind, self.items = kind, items
        self.encoded = kind.encode(items)
        rows = self.encoded.rows
        self.order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        parts = [self.order[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        self.batches = [padded(kind.tokenizer, [rows[i] for i in part]) for part in parts]

    def __len__(self) -> int:
        return len(self.items)

    def __call__(self, model: Any) -> Tensor:
        """Return a vector for each row, [rows, size], on the CPU."""
        device = getattr(model, "device", "cpu")
        found = []
        with torch.inference_mode():
            for batch in self.batches:
                here = {name: value.to(device) for name, value in batch.items()}
                found.append(self._vectors(model(**here), here["attention_mask"]).cpu())
        return torch.cat(found)[torch.tensor(self.order).argsort()]

    def scores(self, outputs: Tensor) -> Scores:
        """Return the scores of what a call returned."""
        return self.kind.scores(self.items, self.encoded, outputs)

    def at_most(self, count: int) -> "Examples":
        """Return so many of the items at most, spread evenly."""
        return self if len(self.items) <= count else Examples(self.kind, spread(self.items, count))

    def _vectors(self, output: Any, mask: Tensor) -> Tensor:
        if "last_hidden_state" in output:
            return mean_embedding(output["last_hidden_state"], mask)
        values = output.get("logits")
        if "start_logits" in output:
            values = torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
        if values is None:
            raise InputError(f"expected a model that returns states or logits, got {', '.join(output)}")
        if values.dim() == 2:
            scores: Tensor = values
            return scores
        kept: Tensor = values * mask[..., None]
        return F.pad(kept, (0, 0, 0, self.kind.max_length - kept.shape[1])).flatten(1)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return so many of the items at most, spread evenly."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def padded(tokenizer: Any, rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return rows as one batch, padded to the longest, behind: places that targets name stay what they are."""
    return dict(tokenizer.pad([dict(row) for row in rows], padding_side="right", return_tensors="pt"))


def mean_embedding(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real tokens' states [B, T, E], with length 1."""
    weights = mask[..., None].to(states.dtype)
    return F.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)


def split(kind: ExampleKind, items: Sequence[Any], every: int) -> tuple[list[Any], list[Any]]:
    """Return the items of most groups, and of every so manieth one, the first among them."""
    number: dict[Any, int] = {}
    for item in items:
        number.setdefault(kind.group(item), len(number))
    is_out = [number[kind.group(item)] % every == 0 for item in items]
    return [i for i, out in zip(items, is_out, strict=True) if not out], [
        i for i, out in zip(items, is_out, strict=True) if out
    ]


class TextKind:
    """Texts without labels: strings."""

    item_name = "texts"
    measure = None

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def group(self, item: str) -> str:
        """Return the text: the same text is on one side."""
        return item

    def encode(self, items: Sequence[str]) -> Encoded:
        """Return a row for each text, cut to `max_length` tokens."""
        rows = rows_of(self.tokenizer(list(items), truncation=True, max_length=self.max_length))
        return Encoded(rows, [{} for _ in rows])

    def scores(self, items: Sequence[str], encoded: Encoded, outputs: Tensor) -> Scores:  # noqa: ARG002 (no labels)
        """Return nothing."""
        return {}


def rows_of(encoding: Mapping[str, Any]) -> list[Row]:
    """Return the rows of an encoding of many texts."""
    names = list(encoding)
    return [dict(zip(names, values, strict=True)) for values in zip(*encoding.values(), strict=True)]
