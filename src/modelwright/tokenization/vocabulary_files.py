"""Vocabulary files: read with errors that name the file, written line by line or as JSON."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelwright.core.errors import ConfigError, RepoError


def vocabulary_path(where: str, path: Any) -> Path:
    """Return `path`; raises RepoError if it is no file."""
    found = Path(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
    if found is None or not found.is_file():
        raise RepoError(f"{where}: expected a vocabulary file, but there is none at {path!r}.")
    return found


def read_lines(where: str, path: Any) -> dict[str, int]:
    """Return {token: line number} of a file with one token a line."""
    with vocabulary_path(where, path).open(encoding="utf-8") as file:
        return {line.rstrip("\n"): number for number, line in enumerate(file)}


def read_vocabulary_json(where: str, path: Any) -> dict[str, int]:
    """Return the {token: id} of a JSON file; raises ConfigError for anything else."""
    file = vocabulary_path(where, path)
    try:
        vocabulary = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: expected a JSON object of tokens and ids: {error}.") from error
    if not isinstance(vocabulary, dict) or not all(isinstance(index, int) for index in vocabulary.values()):
        raise ConfigError(f"{file}: expected a JSON object of tokens and ids.")
    return vocabulary


def read_merges(where: str, path: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges of a file, best first; raises ConfigError for one that does not fit the vocabulary."""
    file = vocabulary_path(where, path)
    lines = file.read_text(encoding="utf-8").split("\n")
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        first, space, second = line.partition(" ")
        if not space or not second or " " in second:
            raise ConfigError(f"{file}: line {number}: expected two tokens, got {line!r}.")
        for token in (first, second, first + second):
            if token not in vocabulary:
                raise ConfigError(
                    f"{file}: line {number}: the merge {line!r} needs the token {token!r}, which the vocabulary of "
                    f"{len(vocabulary)} tokens lacks: vocabulary and merges are not of one tokenizer."
                )
        merges.append((first, second))
    return merges


def target(folder: str, prefix: str | None, name: str) -> Path:
    """Return the path of a vocabulary file to be written; raises RepoError if there is no such folder."""
    if not Path(folder).is_dir():
        raise RepoError(f"{folder}: expected a folder to save a vocabulary into.")
    return Path(folder) / (f"{prefix}-{name}" if prefix else name)


def write_lines(path: Path, lines: Iterable[str]) -> str:
    """Write one line each and return the path."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def copy_file(source: Any, path: Path) -> str:
    """Copy a vocabulary file, unless it is there already, and return the path."""
    if Path(os.fspath(source)).resolve() != path.resolve():
        shutil.copyfile(source, path)
    return str(path)
