"""A folder on this machine as a repository."""

import os
from pathlib import Path

from modelwright.core.errors import RepoError, nearest
from modelwright.hub.journal import read_journal
from modelwright.hub.repo import check_filename


class LocalRepo:
    """The files of `folder`; raises RepoError if it is not a folder.

    If a save of ours was interrupted after its commit (there is a journal), the files of that save are the ones seen.
    """

    commit_hash: str | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.name = str(folder)
        if not self.folder.is_dir():
            found = "a file" if self.folder.exists() else "nothing"
            raise RepoError(f"{self.name}: expected a folder, found {found} there. Check the path.")

    def has(self, filename: str) -> bool:
        """Tell whether the folder holds the file `filename`; a link whose target is gone counts as not there."""
        return self._locate(filename).is_file()

    def path(self, filename: str, *, contained: bool = False) -> Path:
        """Return the path of `filename`; see `Repo.path`.

        A snapshot in a Hub cache consists of links to `../../blobs`: there the boundary is the `models--*` folder.
        """
        path = self._locate(filename)
        if not path.is_file():
            if path.is_dir():
                found = f"{filename!r} is a folder"
            elif path.is_symlink():
                found = f"{filename!r} is a link to {str(path.readlink())!r}, which does not exist"
            else:
                found = f"there is no file {filename!r}"
            raise self._missing(found, nearest(filename, self.files()))
        if contained:
            boundary, target = self.boundary(), path.resolve()
            if not target.is_relative_to(boundary):
                raise RepoError(
                    f"{self.name}: {filename!r} is a link that leaves {boundary} (it points to {target}). Nothing was "
                    "read. If you trust it, put the file itself in the folder in place of the link."
                )
        return path

    def _missing(self, found: str, hint: str) -> RepoError:
        return RepoError(f"{self}: {found}.{hint}")

    def boundary(self) -> Path:
        """Return the folder that holds everything this repository may read: itself, or its `models--*` Hub cache."""
        folder = self.folder.resolve()
        for parent in (folder, *folder.parents):
            if parent.parent.name == "snapshots" and parent.parent.parent.name.startswith("models--"):
                return parent.parent.parent
        return folder

    def files(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in the folder, or in `folder` below it, [] if there is none."""
        if folder:
            below = self.folder / check_filename(self.name, folder)
            return sorted(path.name for path in below.iterdir() if path.is_file()) if below.is_dir() else []
        with os.scandir(self.folder) as entries:
            names = {entry.name for entry in entries if entry.is_file()}
        if journal := read_journal(self.folder):
            names = (names - set(journal.remove)) | set(journal.put)
        return sorted(names)

    def _locate(self, filename: str) -> Path:
        path = self.folder / check_filename(self.name, filename)
        if journal := read_journal(self.folder):
            staged = self.folder / journal.staging / filename
            if filename in journal.put and staged.is_file():
                return staged
            if filename in journal.remove:
                return self.folder / journal.staging / "removed" / filename  # a place where nothing is
        return path

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"LocalRepo({self.name!r})"
