"""What differs between two checkpoints: names, shapes, dtypes and, on request, values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from modelwright.checkpoint.headers import Checkpoint, TensorInfo, dtype_name
from modelwright.checkpoint.report import merge_keys, shape_text, text_table
from modelwright.core.progress import Progress


@dataclass(frozen=True)
class ValueChange:
    """How the values of one tensor differ: the number of other elements, and the largest absolute difference."""

    name: str
    elements: int
    largest: float


@dataclass(frozen=True)
class CheckpointDiff:
    """`only_first` and `only_second` are names, `headers` those with another shape or dtype as (name, first, second).

    `values` are tensors of the same shape whose values differ; None if values were not compared.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    headers: tuple[tuple[str, str, str], ...]
    values: tuple[ValueChange, ...] | None
    same: int

    @property
    def equal(self) -> bool:
        """Whether nothing that was compared differs."""
        return not (self.only_first or self.only_second or self.headers or self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as JSON-ready data."""
        return {
            "equal": self.equal,
            "same": self.same,
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "headers": [{"name": name, "first": first, "second": second} for name, first, second in self.headers],
            "values": None if self.values is None else [vars(change) for change in self.values],
        }

    def __str__(self) -> str:
        rows = [("only in the first", key, "") for key in merge_keys(self.only_first)]
        rows += [("only in the second", key, "") for key in merge_keys(self.only_second)]
        rows += [("header", name, f"{first} -> {second}") for name, first, second in self.headers]
        rows += [
            ("values", change.name, f"{change.elements:,} elements, by up to {change.largest:.3g}")
            for change in self.values or ()
        ]
        what = "tensors agree" if self.values is not None else "tensors agree in shape and dtype"
        end = f"{self.same:,} {what}, {len(rows):,} differences"
        return (text_table(("difference", "key", "detail"), rows) + "\n" if rows else "") + end


def compare_checkpoints(first: Checkpoint, second: Checkpoint, *, values: bool = False) -> CheckpointDiff:
    """Return what differs between two open checkpoints; with `values` every tensor that both have is read.

    Values are compared in the wider of two dtypes; NaN equals NaN.
    """
    shared = [name for name in first.infos if name in second.infos]
    headers, changes = [], []
    with Progress("comparing", len(shared)) as progress:
        for name in shared:
            left, right = first.infos[name], second.infos[name]
            texts = _header(first.infos, name), _header(second.infos, name)
            if texts[0] != texts[1]:
                headers.append((name, *texts))
            if values and left.shape == right.shape and (change := _changed(name, first, second)) is not None:
                changes.append(change)
            progress.advance()
    differing = {name for name, _, _ in headers} | {change.name for change in changes}
    return CheckpointDiff(
        only_first=tuple(name for name in first.infos if name not in second.infos),
        only_second=tuple(name for name in second.infos if name not in first.infos),
        headers=tuple(headers),
        values=tuple(changes) if values else None,
        same=len(shared) - len(differing),
    )


def _header(infos: Mapping[str, TensorInfo], name: str) -> str:
    return f"{dtype_name(infos[name].dtype)} {shape_text(infos[name].shape)}"


def _changed(name: str, first: Checkpoint, second: Checkpoint) -> ValueChange | None:
    left, right = first.read(name), second.read(name)
    if left.dtype != right.dtype:
        wide = torch.promote_types(left.dtype, right.dtype)
        left, right = left.to(wide), right.to(wide)
    if torch.equal(left, right):
        return None
    differs = (left != right) & ~((left != left) & (right != right))
    count = int(differs.sum())
    if not count:
        return None
    return ValueChange(name, count, float((left[differs].double() - right[differs].double()).abs().max()))
