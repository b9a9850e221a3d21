"""What a load did, as data and as text; and key names folded over layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass
class LoadReport:
    """What became of every parameter and of every stored tensor.

    `missing_keys` are parameters that the checkpoint lacks, `unexpected_keys` stored tensors that the model lacks (both
    without those that the class says to ignore), `mismatched_keys` (name, stored shape, shape in the model).
    `to_initialise` are all parameters that got no value: missing, ignored and mismatched. `loaded_keys` got theirs from
    the checkpoint, `tied` ({name: the name that it shares its parameter with}) through another one; `tied_conflicts`
    are tied names for which the checkpoint holds another value. `renamed` is {stored name: name}, `files` what was
    read, `nbytes` the bytes of the loaded parameters in the model's dtypes. `code_sha256` is the hash of the
    checkpoint's own code, if that was run.
    """

    missing_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)
    mismatched_keys: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    loaded_keys: list[str] = field(default_factory=list)
    to_initialise: list[str] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    tied_conflicts: list[tuple[str, str]] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    nbytes: int = 0
    code_sha256: str | None = None

    def loading_info(self) -> dict[str, list[Any]]:
        """Return what `from_pretrained(output_loading_info=True)` returns beside the model."""
        return {
            "missing_keys": list(self.missing_keys),
            "unexpected_keys": list(self.unexpected_keys),
            "mismatched_keys": list(self.mismatched_keys),
            "error_msgs": [],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            **self.loading_info(),
            "mismatched_keys": [[key, list(stored), list(shape)] for key, stored, shape in self.mismatched_keys],
            "loaded_keys": list(self.loaded_keys),
            "to_initialise": list(self.to_initialise),
            "tied": dict(self.tied),
            "tied_conflicts": [list(pair) for pair in self.tied_conflicts],
            "renamed": dict(self.renamed),
            "files": list(self.files),
            "nbytes": self.nbytes,
            "code_sha256": self.code_sha256,
        }

    def __str__(self) -> str:
        rows = [("missing", key, "") for key in merge_keys(self.missing_keys)]
        rows += [("unexpected", key, "") for key in merge_keys(self.unexpected_keys)]
        rows += [
            ("mismatched", key, f"stored {list(stored)}, model {list(shape)}")
            for key, stored, shape in self.mismatched_keys
        ]
        rows += [("tied, differs", key, f"the value of {kept} is used") for kept, key in self.tied_conflicts]
        head = f"{len(self.loaded_keys)} parameters loaded ({self.nbytes:,} bytes) from {len(self.files)} files"
        if self.tied:
            head += f", {len(self.tied)} tied"
        if self.renamed:
            head += f", {len(self.renamed)} renamed"
        if not rows:
            return head + "; nothing missing, nothing unexpected."
        return head + ".\n" + text_table(("status", "key", "detail"), rows)


def merge_keys(keys: Iterable[str]) -> list[str]:
    """Return the sorted `keys` with those that differ in numbers only folded: `layers.{0..11}.attention.weight`.

    Several numbers in one key fold one after the other from the right, as long as the sets agree; gaps are shown:
    `{0..3,7}`.
    """
    return sorted(fold_keys(keys), key=_natural)


def fold_keys(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return {folded key: the keys that it stands for}, in the order of their first appearance; see `merge_keys`."""
    merged: dict[tuple[str, ...], list[str]] = {tuple(key.split(".")): [key] for key in keys}
    for position in range(-1, -max(map(len, merged), default=0) - 1, -1):
        groups: dict[tuple[Any, ...], list[tuple[str, ...]]] = {}
        for parts in merged:
            index = len(parts) + position
            is_number = index >= 0 and parts[index].isdecimal()
            key = (parts[:index], parts[index + 1 :]) if is_number else (parts, None)
            groups.setdefault(key, []).append(parts)
        folded = {}
        for key, members in groups.items():
            left, right = key
            parts = left if right is None else (*left, _numbers([member[position] for member in members]), *right)
            folded[parts] = [name for member in members for name in merged[member]]
        merged = folded
    return {".".join(parts): names for parts, names in merged.items()}


def _numbers(values: Sequence[str]) -> str:
    if len(values) == 1:
        return values[0]
    runs: list[list[int]] = []
    for number in sorted(map(int, values)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return "{" + ",".join(texts) + "}"


def _natural(key: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in key.split(".")]


def text_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the rows as left-aligned columns of plain text, below a header and a line."""
    cells = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def shape_text(shape: Mapping[int, int] | Sequence[int]) -> str:
    """Return "2 x 3", or "scalar"."""
    return " x ".join(map(str, shape)) or "scalar"
