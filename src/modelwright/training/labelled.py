"""Texts with labels, from a file of JSON lines, and how many of them a classifier gets right."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.training.examples import Encoded, Scores

_FORM = '{"text": text, "label": name or number}, with "text_pair" if there is a second text'


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """A text, or two, and the number of its label; None if it is not known."""

    text: str
    pair: str | None
    label: int | None


def read_labelled(option: str, path: Path, labels: Mapping[int, str]) -> list[LabelledText]:
    """Return the texts of a file of JSON lines: {"text": ..., "label": ...}, "text_pair" for a second text.

    labels: names by number, of a classifier; a label in the file is either. All texts have a label, or none has.
    Raises InputError, which names `option`, the file and the line.
    """
    texts = [
        _parse(f"{option}: {path}, line {number}", line, labels)
        for number, line in enumerate(_lines(option, path), start=1)
        if line.strip()
    ]
    without = [number for number, text in enumerate(texts, start=1) if text.label is None]
    if without and len(without) < len(texts):
        raise InputError(
            f"{option}: {path}: {len(without)} of {len(texts)} texts have no label, the first is text {without[0]}; "
            "expected a label for each (or for none: then the cosine to the float outputs is the accuracy)"
        )
    return texts


def _lines(option: str, path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{option}: expected a file of JSON lines, {_FORM}; there is none at {path}")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{option}: {path}: expected text in UTF-8: {error}") from error


def _parse(where: str, line: str, labels: Mapping[int, str]) -> LabelledText:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected {_FORM}, got {line[:60]!r}")
    text, pair = values.get("text"), values.get("text_pair")
    if not isinstance(text, str) or not text.strip() or not (pair is None or isinstance(pair, str)):
        raise InputError(f'{where}: expected {_FORM}, got "text": {text!r:.60}, "text_pair": {pair!r:.60}')
    return LabelledText(text, pair, _label(where, values.get("label"), labels))


def _label(where: str, label: Any, labels: Mapping[int, str]) -> int | None:
    if label is None:
        return None
    if isinstance(label, int) and not isinstance(label, bool) and label in labels:
        return label
    for number, name in labels.items():
        if name == label:
            return number
    known = ", ".join(f"{number} ({name})" for number, name in sorted(labels.items())[:10])
    raise InputError(f"{where}: expected one of the model's {len(labels)} labels, {known}, got {label!r:.60}")


class LabelledKind:
    """Texts with labels, or without, for a classifier; the score is the share that it gets right."""

    item_name = "texts"

    def __init__(self, tokenizer: Any, max_length: int, *, labelled: bool) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.measure = "accuracy" if labelled else None

    def group(self, item: LabelledText) -> tuple[str, str | None]:
        """Return the texts: the same ones are on one side."""
        return item.text, item.pair

    def encode(self, items: Sequence[LabelledText]) -> Encoded:
        """Return a row for each text or pair, cut to `max_length` tokens."""
        rows = [
            dict(self.tokenizer(item.text, item.pair, truncation=True, max_length=self.max_length)) for item in items
        ]
        return Encoded(rows, [{} if item.label is None else {"labels": item.label} for item in items])

    def scores(self, items: Sequence[LabelledText], encoded: Encoded, outputs: Tensor) -> Scores:  # noqa: ARG002
        """Return the share of the texts whose label has the largest of the logits `outputs` [texts, labels]."""
        if self.measure is None:
            return {}
        right = sum(item.label == best for item, best in zip(items, outputs.argmax(dim=-1).tolist(), strict=True))
        return {"accuracy": right / len(items)}
