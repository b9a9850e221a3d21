"""From what a user names to a repository: the one door to a model's files."""

import os
import re
from pathlib import Path

from modelwright.core.errors import RepoError
from modelwright.hub.download import Download
from modelwright.hub.local import LocalRepo
from modelwright.hub.remote import open_hub_repo
from modelwright.hub.repo import Repo, check_filename

# "name" or "organisation/name"; the client has the last word.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")


def open_repo(name_or_path: str | os.PathLike[str], *, subfolder: str = "", download: Download | None = None) -> Repo:
    """Return the repository that `name_or_path` names: a folder on this machine, else one of the hub.

    A str such as "organisation/name" that is no folder is a repository of the hub, read as `download` says; a path
    object never is. `subfolder` is a relative path below it.
    Raises RepoError if there is no such folder, if `subfolder` leaves it, and HubError for a repository of the hub.
    """
    download = download or Download()
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        download.say_unused(str(folder))
        return _open_folder(folder, subfolder)
    if folder.is_file():
        raise RepoError(
            f"{folder}: expected the folder of a model, found a file. Give the folder of it: {folder.parent}"
        )
    if isinstance(name_or_path, str) and _HUB_NAME.fullmatch(name_or_path):
        return open_hub_repo(name_or_path, check_filename(name_or_path, subfolder) if subfolder else "", download)
    kind = "" if isinstance(name_or_path, str) else " (a path object never is one; pass a str)"
    raise RepoError(
        f"{str(name_or_path)!r}: expected a folder on this machine, found none (working folder: {Path.cwd()}), and it "
        f"is not the name of a hub repository either, which is 'name' or 'organisation/name'{kind}. Check the path."
    )


def _open_folder(folder: Path, subfolder: str) -> Repo:
    if not subfolder:
        return LocalRepo(folder)
    below = folder / check_filename(str(folder), subfolder)
    if not below.is_dir():
        raise RepoError(f"{folder}: expected a subfolder {subfolder!r}, found none.")
    if not below.resolve().is_relative_to(LocalRepo(folder).boundary()):
        raise RepoError(f"{folder}: the subfolder {subfolder!r} is a link that leaves the folder.")
    return LocalRepo(below)
