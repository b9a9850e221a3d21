"""The journal of a save that could not be one step of the file system: what a folder's files mean while it is there.

The writer stages all new files in a subfolder and then writes the journal: that is its commit. From then on the new
files count, although some of them may still be in the staging folder; whoever saves next moves them into place.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import RepoError
from modelwright.hub.names import JOURNAL_NAME, STAGING_PREFIX
from modelwright.hub.repo import check_filename


@dataclass(frozen=True)
class Journal:
    """`put` are names that are in the folder `staging` until they are moved, `remove` names that no longer count."""

    staging: str
    put: tuple[str, ...]
    remove: tuple[str, ...]

    def to_text(self) -> str:
        """Return the file's content."""
        return json.dumps({"version": 1, "staging": self.staging, "put": self.put, "remove": self.remove}, indent=2)


def read_journal(folder: Path) -> Journal | None:
    """Return the journal of `folder`, or None if there is none; raises RepoError if it is not a sound one."""
    path = folder / JOURNAL_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RepoError(f"{path}: the journal of an unfinished save cannot be read: {error}") from error
    try:
        value = json.loads(text)
        if value["version"] != 1:
            raise ValueError(f"version {value['version']!r}")
        journal = Journal(str(value["staging"]), tuple(map(str, value["put"])), tuple(map(str, value["remove"])))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RepoError(
            f"{path}: expected the journal of an unfinished save, found something else ({error!r}). If no save of "
            "modelwright was interrupted here, delete this file."
        ) from None
    if not journal.staging.startswith(STAGING_PREFIX):
        raise RepoError(f"{path}: expected a staging folder {STAGING_PREFIX}..., found {journal.staging!r}.")
    for name in (journal.staging, *journal.put, *journal.remove):
        if os.path.basename(check_filename(str(path), name)) != name:  # noqa: PTH119
            raise RepoError(f"{path}: expected names of files in this folder, found {name!r}.")
    return journal
