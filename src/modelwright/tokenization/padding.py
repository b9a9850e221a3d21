"""Rows of token ids: take a batch apart, and pad its rows to one length; pure functions on lists."""

from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import InputError
from modelwright.tokenization.strategies import LengthRules, PaddingStrategy
from modelwright.tokenization.tensors import to_list

Row = dict[str, Any]


def padded_length(lengths: list[int], rules: LengthRules) -> int | None:
    """Return the number of tokens that rows of these `lengths` are padded to, None for no padding."""
    if rules.padding is PaddingStrategy.DO_NOT_PAD:
        return None
    target = max(lengths) if rules.pad_to is None else rules.pad_to
    multiple = rules.pad_to_multiple_of
    return target if not multiple else -(-target // multiple) * multiple


def pad_rows(rows: list[Row], rules: LengthRules, *, main_input: str, pad_values: Mapping[str, int]) -> None:
    """Pad, in place, each list of `rows` that `pad_values` has a value for, to the one length that `rules` asks for.

    A row that is longer than that length stays as it is.
    """
    target = padded_length([len(row[main_input]) for row in rows], rules)
    if target is None:
        return
    for row in rows:
        missing = target - len(row[main_input])
        if missing <= 0:
            continue
        for name, value in pad_values.items():
            if name in row:
                padding = [value] * missing
                row[name] = padding + row[name] if rules.padding_side == "left" else row[name] + padding


def rows_of(where: str, encoded: Any, main_input: str) -> tuple[list[Row], bool]:
    """Return copies of the rows in `encoded`, arrays as lists, and whether it was a batch."""
    if isinstance(encoded, Mapping):
        fields = {name: to_list(value) for name, value in encoded.items()}
        _require_ids(where, fields, main_input)
        ids = [to_list(each) for each in fields[main_input]]
        batched = bool(ids) and isinstance(ids[0], (list, tuple))
        if not batched:
            return [fields], False
        return [{name: to_list(value[i]) for name, value in fields.items()} for i in range(len(ids))], True
    rows = [{name: to_list(value) for name, value in row.items()} for row in encoded]
    if not rows:
        raise InputError(f"{where}: expected at least one row, got an empty list.")
    for row in rows:
        _require_ids(where, row, main_input)
    return rows, True


def _require_ids(where: str, fields: Mapping[str, Any], main_input: str) -> None:
    if main_input not in fields:
        raise InputError(f"{where}: expected a field {main_input!r}, got {', '.join(sorted(fields)) or 'none'}.")
