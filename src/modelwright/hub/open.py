"""From what a user names to a repository."""

import os
from pathlib import Path

from modelwright.core.errors import RepoError
from modelwright.hub.local import LocalRepo
from modelwright.hub.repo import Repo, check_filename


def open_repo(name_or_path: str | os.PathLike[str], *, subfolder: str = "") -> Repo:
    """Return the repository that `name_or_path` names: today a folder on this machine.

    `subfolder` is a relative path below it. Raises RepoError if there is no such folder, or if `subfolder` leaves it.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        if folder.is_file():
            raise RepoError(
                f"{folder}: expected the folder of a model, found a file. Give the folder of it: {folder.parent}"
            )
        raise RepoError(
            f"{str(name_or_path)!r}: expected a folder on this machine, found none (working folder: {Path.cwd()}). "
            "Download the repository first and give the path of its folder."
        )
    if not subfolder:
        return LocalRepo(folder)
    below = folder / check_filename(str(folder), subfolder)
    if not below.is_dir():
        raise RepoError(f"{folder}: expected a subfolder {subfolder!r}, found none.")
    if not below.resolve().is_relative_to(LocalRepo(folder).boundary()):
        raise RepoError(f"{folder}: the subfolder {subfolder!r} is a link that leaves the folder.")
    return LocalRepo(below)
