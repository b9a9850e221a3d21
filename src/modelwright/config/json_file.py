"""JSON objects in files: read with errors that name the file, written so that no half-written file is ever seen."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import ConfigError, RepoError


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the JSON object in the file `path`.

    Raises RepoError if the file cannot be opened, ConfigError (with line and column) if it is no UTF-8 JSON object.
    """
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RepoError(f"{path}: expected a JSON file, but there is no such file") from None
    except OSError as error:
        raise RepoError(f"{path}: the JSON file cannot be read: {error.strerror or error}") from error
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected JSON text in UTF-8, found the byte {data[error.start]:#04x}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: expected JSON, but line {error.lineno}, column {error.colno} is not: {error.msg}. "
            f"{_likely_cause(data)}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: the JSON is nested too deeply to be a config; fetch the file again") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object ({{...}}), found a {type(value).__name__}")
    return value


def write_json(path: str | os.PathLike[str], obj: Mapping[str, Any]) -> None:
    """Write `obj` to the file `path` as JSON: sorted keys, two spaces of indent, a line feed at the end.

    The file is replaced in one step: readers see the old or the new content, never a part. Raises RepoError if it
    cannot be written, ConfigError (naming the key) for a value that JSON does not have.
    """
    write_text(path, dump_json(obj, where=str(path)))


def dump_json(obj: Mapping[str, Any], *, where: str) -> str:
    """Return the text that `write_json` writes; `where` begins the message of the ConfigError for a bad value."""
    try:
        return json.dumps(obj, indent=2, sort_keys=True) + "\n"
    except (TypeError, ValueError):
        for key, value in obj.items():
            _check_key(where, key, value)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the content of the file `path` by `text` (UTF-8) in one step; raise RepoError if that is impossible."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the content of the file `path` by `data` in one step; raise RepoError if that is impossible."""
    # Through a symbolic link, the file that it points to is replaced and the link stays.
    path = Path(os.path.realpath(Path(path).expanduser()))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RepoError(f"{path}: the file cannot be written: {error.strerror or error}") from error


def _check_key(where: str, key: str, value: Any) -> None:
    try:
        json.dumps({key: value}, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: the value of {key!r} cannot be written as JSON: {error}; "
            f"expected numbers, strings, booleans, None, lists and dictionaries, got {value!r}"
        ) from None


def _likely_cause(data: bytes) -> str:
    start = data[:200].lstrip().lower()
    if not start:
        return "The file is empty; fetch or save it again."
    if start.startswith(b"version https://git-lfs"):
        return "The file is a git-lfs pointer; run `git lfs pull` in its folder."
    if start.startswith((b"<!doctype", b"<html")):
        return "The file is a web page; the download went wrong."
    return "The file may be damaged; fetch or save it again."
