"""Pairs of texts, a source and a target each, from a file of JSON lines; the last of them are held out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from modelwright.checkpoint.manifest import hash_file
from modelwright.core.errors import InputError, RepoError


@dataclasses.dataclass(frozen=True)
class Pair:
    """A text, and the text to make of it."""

    source: str
    target: str


class PairsFile:
    """The pairs in the file at `path`: one JSON object a line, with texts under "source" and "target".

    The last `held_out` of them (a fraction, at least one) are in `held_out`, the others in `train`.
    Raises RepoError for a file that cannot be read, InputError for a line that is no pair and for fewer than two pairs.
    """

    def __init__(self, path: str | Path, *, held_out: float) -> None:
        self.path = Path(path).expanduser()
        pairs = _read(self.path)
        if len(pairs) < 2:
            raise InputError(f"{self.path}: expected at least two pairs (--pairs), found {len(pairs)}.")
        count = max(1, round(len(pairs) * held_out))
        self.train, self.held_out = pairs[:-count], pairs[-count:]

    def identity(self) -> dict[str, Any]:
        """Return what tells this file from another: its number of pairs and its hash."""
        return {"pairs": len(self.train) + len(self.held_out), "sha256": hash_file(self.path).sha256}


def _read(path: Path) -> list[Pair]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a file in UTF-8 (--pairs): {error}.") from error
    except FileNotFoundError:
        raise RepoError(f"{path}: there is no such file (--pairs).") from None
    except OSError as error:
        raise RepoError(f"{path}: cannot be read (--pairs): {error.strerror or error}.") from error
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(path: Path, number: int, line: str) -> Pair:
    try:
        values = json.loads(line)
        pair = Pair(values["source"], values["target"])
    except (ValueError, KeyError, TypeError):
        pair = None
    if pair is None or not all(isinstance(text, str) and text.strip() for text in (pair.source, pair.target)):
        raise InputError(
            f'{path}, line {number}: expected {{"source": text, "target": text}} with two texts that are not empty, '
            f"got {line[:60]!r}."
        )
    return pair
