"""The Python files of a project, read and written back in their own encoding and with their own line ends."""

import codecs
import io
import os
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import InputError, RepoError

# Folders that hold other people's code, or none.
_SKIPPED = {"__pycache__", "node_modules", "site-packages"}
_SUFFIXES = (".py", ".pyi")


@dataclass(frozen=True)
class SourceText:
    """The text of a Python file, and the encoding that its first lines declare."""

    text: str
    encoding: str

    def encoded(self, text: str) -> bytes:
        """Return another text in the same encoding, with a byte-order mark if there was one."""
        return text.encode(self.encoding)


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files of `paths` and the Python files in those that are folders, sorted, each once.

    Hidden folders, environments and installed packages are left out. Raises RepoError for a path that is not there,
    InputError for a folder without Python.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(_files_in(path))
            if not files:
                raise InputError(f"{path}: expected Python files in this folder, found none")
            found |= dict.fromkeys(files)
        elif path.exists():
            found[path] = None
        else:
            raise RepoError(f"{path}: there is no such file or folder")
    return list(found)


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        folders[:] = [name for name in folders if not _is_skipped(here / name)]
        yield from (here / name for name in files if name.endswith(_SUFFIXES))


def _is_skipped(folder: Path) -> bool:
    return folder.name in _SKIPPED or folder.name.startswith(".") or (folder / "pyvenv.cfg").exists()


def read_source(path: Path) -> SourceText:
    """Return the text of a Python file; raise InputError if it is no text, RepoError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RepoError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    if b"\0" in data:
        raise InputError(f"{path}: expected Python text, found a binary file")
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        return SourceText(codecs.decode(data, encoding), encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected Python text in the encoding that it declares: {error}") from None
