"""What the rest of the library may ask about the place where a model's files are."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from modelwright.core.errors import RepoError


class Repo(Protocol):
    """One folder of a model's files, wherever they come from; everything behind it is local paths.

    `name` is what the user called it: a folder, or a repository of the hub. `str()` of it is what a message calls it,
    with the revision. `commit_hash` names the commit whose files these are, which never change; None for a folder.
    """

    name: str
    commit_hash: str | None

    def has(self, filename: str) -> bool:
        """Tell whether the repository holds `filename`."""
        ...

    def path(self, filename: str, *, contained: bool = False) -> Path:
        """Return the local path of `filename`, or raise RepoError if it is missing or lies outside.

        With `contained`, a symbolic link that leaves the repository is refused too: for names that were read from a
        file (an index) and not chosen by a person.
        """
        ...

    def files(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in the repository's folder, or in `folder` below it."""
        ...


def check_filename(repo_name: str, filename: str) -> str:
    """Return `filename` if it is a relative path that stays inside a folder, else raise RepoError.

    Windows forms (drive letters, backslashes) are refused on every system: a checkpoint travels.
    """
    windows = PureWindowsPath(filename)
    if (
        not filename
        or "\0" in filename
        or "\\" in filename
        or windows.drive
        or windows.root
        or ".." in PurePosixPath(filename).parts
    ):
        raise RepoError(
            f"{repo_name}: expected the name of a file inside this folder, got {filename!r}, which is not a plain "
            "relative path. Nothing was read. If it comes from an index file, do not trust that checkpoint."
        )
    return filename
