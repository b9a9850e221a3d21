"""The plan of a load: pure data from headers alone, to be printed, compared and checked before a weight is read."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from modelwright.checkpoint.headers import TensorInfo, dtype_name
from modelwright.checkpoint.names import Rename, map_names
from modelwright.checkpoint.report import merge_keys, shape_text, text_table
from modelwright.checkpoint.strictness import Strictness
from modelwright.core.errors import CheckpointMismatchError, InputError

Action = Literal["load", "init", "tied", "ignored"]
Target = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class PlanEntry:
    """What happens to one parameter or buffer (`target`), or to one stored tensor that has no place (`ignored`).

    "load" reads `source` from `file`; "init" leaves the value to the caller; "tied" shares the parameter of `tied_to`
    (`source` is then a second stored value, if there is one). Shapes and dtypes are None where there is nothing.
    """

    action: Action
    target: str | None
    source: str | None = None
    file: Path | None = None
    stored_shape: tuple[int, ...] | None = None
    stored_dtype: torch.dtype | None = None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    tied_to: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the parameter takes in the model; 0 unless it is loaded or initialised."""
        if self.shape is None or self.dtype is None or self.action not in ("load", "init"):
            return 0
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON-ready data."""
        return {
            "action": self.action,
            "target": self.target,
            "source": self.source,
            "file": None if self.file is None else str(self.file),
            "stored_shape": None if self.stored_shape is None else list(self.stored_shape),
            "stored_dtype": None if self.stored_dtype is None else dtype_name(self.stored_dtype),
            "shape": None if self.shape is None else list(self.shape),
            "dtype": None if self.dtype is None else dtype_name(self.dtype),
            "tied_to": self.tied_to,
            "nbytes": self.nbytes,
        }


@dataclass(frozen=True)
class LoadPlan:
    """One entry for every parameter and for every stored tensor without a place, and what is wrong.

    `missing`: parameters that are not stored; `unexpected`: stored tensors that the model lacks; both without those
    that are to be ignored. `mismatched`: entries whose stored tensor does not fit; they have the action "init".
    """

    entries: tuple[PlanEntry, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[PlanEntry, ...]

    @property
    def tied(self) -> dict[str, str]:
        """{name: the name whose parameter it shares}."""
        return {entry.target: entry.tied_to for entry in self.entries if entry.target and entry.tied_to}

    @property
    def renamed(self) -> dict[str, str]:
        """{stored name: name in the model} where they differ."""
        return {
            entry.source: entry.target
            for entry in self.entries
            if entry.source and entry.target and entry.action == "load" and entry.source != entry.target
        }

    def check(self, strictness: Strictness = Strictness()) -> None:  # noqa: B008 (immutable)
        """Raise CheckpointMismatchError if the plan must not be carried out.

        That is: something is missing, unexpected or mismatched (a stored tensor has another shape or kind) for which
        the `strictness` is "error", or nothing stored fits the model at all.
        """
        if self.mismatched and strictness.mismatched == "error":
            raise CheckpointMismatchError(_mismatch_message(self.mismatched))
        wanted = [entry for entry in self.entries if entry.action in ("load", "init")]
        if wanted and self.unexpected and not any(entry.action == "load" for entry in wanted) and not self.mismatched:
            raise CheckpointMismatchError(
                f"{_files(self.entries)}: none of its tensors ({_some(self.unexpected)}) belongs to the model, which "
                f"expects {_some(self.missing)}. It is a checkpoint of another architecture, or its names need rules."
            )
        wrong = {
            kind: keys
            for kind, keys in (("missing", self.missing), ("unexpected", self.unexpected))
            if keys and getattr(strictness, kind) == "error"
        }
        if wrong:
            found = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in wrong.items())
            excuse = ", ".join(f'"{kind}": "warn"' for kind in wrong)
            raise CheckpointMismatchError(
                f"{_files(self.entries)}: strict loading: expected exactly the parameters of the model; {found}. Load "
                f"with strict={{{excuse}}} to initialise and ignore these."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            "entries": [entry.to_dict() for entry in self.entries],
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "mismatched": [entry.to_dict() for entry in self.mismatched],
            "tied": self.tied,
            "renamed": self.renamed,
            "bytes": {
                action: sum(entry.nbytes for entry in self.entries if entry.action == action)
                for action in ("load", "init")
            },
        }

    def __str__(self) -> str:
        """Return the plan as a table, one row for parameters that differ in their layer only."""
        rows: dict[tuple[str, ...], list[str]] = {}
        for entry in self.entries:
            rows.setdefault(_row(entry), []).append(entry.target or entry.source or "")
        lines = [
            (action, key, source, stored, wanted, shape)
            for (action, source, stored, wanted, shape), keys in rows.items()
            for key in merge_keys(keys)
        ]
        count = {action: sum(entry.action == action for entry in self.entries) for action in ("load", "init", "tied")}
        total = sum(entry.nbytes for entry in self.entries)
        return (
            text_table(("action", "key", "from", "stored", "wanted", "shape"), lines)
            + f"\n{count['load']} to load, {count['init']} to initialise, {count['tied']} tied; "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} mismatched; {total:,} bytes in the model"
        )


def make_load_plan(
    infos: Mapping[str, TensorInfo],
    targets: Mapping[str, Target],
    *,
    rules: Sequence[Rename] = (),
    base_model_prefix: str = "",
    dtype: torch.dtype | None = None,
    keys_to_ignore_missing: Iterable[str] = (),
    keys_to_ignore_unexpected: Iterable[str] = (),
    tied: Iterable[Sequence[str]] = (),
    not_sources: Collection[str] = (),
) -> LoadPlan:
    """Return the plan for loading the tensors `infos` into the `targets` ({name: (shape, dtype)}) of a module.

    `rules` and `base_model_prefix`: see `map_names`. `dtype`: what floating targets become; None keeps each one's own.
    `keys_to_ignore_*`: regular expressions (searched) for names not worth a report. `tied`: groups of target names that
    are one parameter, the one that is kept first; it is read from another of them if only that is stored, unless this
    is in `not_sources`. Nothing is raised for what does not fit: see `LoadPlan.check`. Raises
    InputError for a bad regular expression, CheckpointMismatchError if two stored names mean one target.
    """
    source_of = {
        target: source
        for source, target in map_names(infos, targets, rules=rules, base_model_prefix=base_model_prefix).items()
    }
    alias_of = {name: group[0] for group in tied for name in group[1:]}
    for name, kept in alias_of.items():
        if kept not in source_of and name in source_of and name not in not_sources:
            source_of[kept] = source_of.pop(name)  # only the other name is stored
    entries, mismatched = [], []
    for name, (shape, own_dtype) in targets.items():
        info = infos.get(source_of.get(name, ""))
        wanted = dtype if dtype is not None and own_dtype.is_floating_point else own_dtype
        entry = _entry(name, shape, wanted, info, alias_of.get(name))
        entries.append(entry)
        if entry.action == "init" and info is not None:
            mismatched.append(entry)
    used = set(source_of.values())
    left = [info for info in infos.values() if info.name not in used]
    entries += [PlanEntry("ignored", None, info.name, info.file, info.shape, info.dtype) for info in left]
    absent = [entry.target or "" for entry in entries if entry.action == "init" and entry.source is None]
    return LoadPlan(
        entries=tuple(entries),
        missing=_without(absent, keys_to_ignore_missing),
        unexpected=_without([info.name for info in left], keys_to_ignore_unexpected),
        mismatched=tuple(mismatched),
    )


def _entry(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, info: TensorInfo | None, tied_to: str | None
) -> PlanEntry:
    action: Action = "tied" if tied_to else "load"
    if info is None:
        return PlanEntry(action if tied_to else "init", name, shape=tuple(shape), dtype=dtype, tied_to=tied_to)
    if not tied_to and not (info.shape == tuple(shape) and _same_kind(info.dtype, dtype)):
        action = "init"
    return PlanEntry(action, name, info.name, info.file, info.shape, info.dtype, tuple(shape), dtype, tied_to)


def _same_kind(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Tell whether a cast keeps the meaning: between floating dtypes, or to an integer dtype that holds every value."""
    if stored == wanted or (stored.is_floating_point and wanted.is_floating_point):
        return True
    return not stored.is_floating_point and not wanted.is_floating_point and torch.can_cast(stored, wanted)


def _without(names: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise InputError(f"keys to ignore: not a regular expression: {error.pattern!r}: {error}") from None
    return tuple(name for name in names if not any(pattern.search(name) for pattern in compiled))


def _mismatch_message(mismatched: Sequence[PlanEntry]) -> str:
    lines = [
        f"  {entry.target}: stored {list(entry.stored_shape or ())} {_dtype(entry.stored_dtype)}"
        f"{f' as {entry.source}' if entry.source != entry.target else ''} in {entry.file}, the model expects "
        f"{list(entry.shape or ())} {_dtype(entry.dtype)}"
        for entry in mismatched[:10]
    ]
    if len(mismatched) > 10:
        lines.append(f"  and {len(mismatched) - 10} more")
    return (
        f"{len(mismatched)} stored tensors do not fit the model:\n"
        + "\n".join(lines)
        + "\nCheck that the config is the "
        "one of this checkpoint, or pass ignore_mismatched_sizes=True to initialise these parameters instead."
    )


def _row(entry: PlanEntry) -> tuple[str, ...]:
    source = "" if entry.source in (None, entry.target) or entry.target is None else str(entry.source)
    shape = entry.shape if entry.shape is not None else entry.stored_shape or ()
    text = shape_text(shape)
    if entry.stored_shape not in (None, shape):
        text += f" (stored {shape_text(entry.stored_shape or ())})"
    return entry.action, entry.tied_to or source, _dtype(entry.stored_dtype), _dtype(entry.dtype), text


def _dtype(dtype: torch.dtype | None) -> str:
    return "" if dtype is None else dtype_name(dtype)


def _files(entries: Iterable[PlanEntry]) -> str:
    files = sorted({str(entry.file) for entry in entries if entry.file is not None})
    return files[0] + (f" and {len(files) - 1} more files" if len(files) > 1 else "") if files else "the checkpoint"


def _some(keys: Sequence[str]) -> str:
    merged = merge_keys(keys)
    return ", ".join(merged[:5]) + (f" and {len(merged) - 5} more" if len(merged) > 5 else "")
