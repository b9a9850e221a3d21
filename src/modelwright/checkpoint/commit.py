"""Carry out a transition so that a crash at any moment leaves the old or the new checkpoint.

    one step counts            stage inside the folder, move file by file, in order      `in_order`
    all at once, on Linux      build the whole folder beside it, let the two change places   `by_exchange`
    all at once, elsewhere     stage inside, write a journal (that is the commit), move      `by_journal`

The exchange needs a folder that is no mount point, has no folders inside and is not the working folder of this process.
A journal is honoured by `LocalRepo`, which sees the files of an unfinished move; other libraries do not know it.
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from modelwright.checkpoint import fsops
from modelwright.checkpoint.lock import try_lock
from modelwright.checkpoint.manifest import Manifest
from modelwright.checkpoint.transition import Step, Transition
from modelwright.hub.journal import Journal, read_journal
from modelwright.hub.names import JOURNAL_NAME, LOCK_NAME, MANIFEST_NAME, STAGING_PREFIX

_GRACE_SECONDS = 60.0


def recover(folder: Path) -> None:
    """Finish a save that was interrupted after its journal, and remove what dead saves have left; needs the lock."""
    journal = read_journal(folder)
    if journal is not None:
        roll_forward(folder, journal)
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(STAGING_PREFIX) and entry.is_dir(follow_symlinks=False):
            fsops.remove_folder(Path(entry.path))
    remove_dead_siblings(folder)


def new_sibling(folder: Path, *, for_new: bool = False) -> Path:
    """Return the path of a new staging folder beside `folder`, for an exchange or for a `folder` that is new."""
    return folder.with_name(f".{folder.name}{STAGING_PREFIX}{'new-' if for_new else ''}{uuid.uuid4().hex[:12]}")


def remove_dead_siblings(folder: Path) -> None:
    """Remove the staging folders beside `folder` whose writer is dead: whoever builds one holds its lock."""
    prefix = f".{folder.name}{STAGING_PREFIX}"
    try:
        with os.scandir(folder.parent) as entries:
            stages = [Path(entry.path) for entry in entries if entry.name.startswith(prefix) and entry.is_dir()]
    except OSError:
        return  # a parent that cannot be listed holds none of ours
    for path in stages:
        # Between its creation and its lock, one for a new folder is not protected by the lock of that folder.
        if path.name.startswith(prefix + "new-") and time.time() - path.stat().st_mtime < _GRACE_SECONDS:
            continue
        descriptor = try_lock(path)
        if descriptor is not None:
            try:
                fsops.remove_folder(path)
            finally:
                os.close(descriptor)


def in_order(
    folder: Path, stage: Path, transition: Transition, before: Manifest, after: Manifest, committed: Callable[[], None]
) -> None:
    """Do the steps one by one. `before` and `after` are the manifests around the commit."""
    assert transition.commit is not None
    _put_manifest(folder, stage, before)
    for step in transition.before:
        _do(folder, stage, step)
    fsops.sync_folder(folder)
    _do(folder, stage, transition.commit)
    fsops.sync_folder(folder)
    committed()
    for step in transition.after:
        _do(folder, stage, step)
    _put_manifest(folder, stage, after)
    fsops.remove_folder(stage)
    fsops.sync_folder(folder)


def by_journal(
    folder: Path, stage: Path, transition: Transition, after: Manifest, committed: Callable[[], None]
) -> None:
    """Commit everything by writing a journal, then move the files."""
    fsops.write_file(stage / MANIFEST_NAME, after.to_text().encode())
    journal = Journal(stage.name, (*transition.put, MANIFEST_NAME), transition.remove)
    fsops.write_file(stage / JOURNAL_NAME, journal.to_text().encode())
    fsops.sync_folder(stage)
    fsops.replace(stage / JOURNAL_NAME, folder / JOURNAL_NAME)
    fsops.sync_folder(folder)
    committed()
    roll_forward(folder, journal)


def roll_forward(folder: Path, journal: Journal) -> None:
    """Move what the journal says; every step may have been done before."""
    stage = folder / journal.staging
    for name in journal.put:
        if (stage / name).exists():
            fsops.replace(stage / name, folder / name)
    for name in journal.remove:
        fsops.remove(folder / name)
    fsops.sync_folder(folder)
    fsops.remove(folder / JOURNAL_NAME)
    if stage.is_dir():
        fsops.remove_folder(stage)
    fsops.sync_folder(folder)


def can_exchange(folder: Path, stage: Path) -> bool:
    """Tell whether the folder may be replaced as a whole, by trying it on two empty folders beside it."""
    stat, parent = folder.stat(), folder.parent.stat()
    if stat.st_dev != parent.st_dev or folder.is_mount() or not os.access(folder.parent, os.W_OK | os.X_OK):
        return False
    here = Path.cwd()
    if here == folder or folder in here.parents:
        return False
    owner = os.geteuid() if hasattr(os, "geteuid") else stat.st_uid
    with os.scandir(folder) as entries:
        others = [entry for entry in entries if entry.name != stage.name]
    # Folders have no second names, and files of other users may not be given one.
    if any(entry.is_dir(follow_symlinks=False) for entry in others):
        return False
    if any(one.st_uid != owner for one in (stat, *(entry.stat(follow_symlinks=False) for entry in others))):
        return False
    first, second = stage / ".a", stage / ".b"
    first.mkdir()
    second.mkdir()
    try:
        (first / "file").touch()
        fsops.link(first / "file", second / "file")
        fsops.exchange(first, second)
    except OSError:
        return False
    finally:
        fsops.remove_folder(first)
        fsops.remove_folder(second)
    return True


def by_exchange(
    folder: Path, stage: Path, transition: Transition, after: Manifest, committed: Callable[[], None]
) -> None:
    """Commit everything by exchanging the folder with one that holds the new files and links to the unrelated ones."""
    sibling = new_sibling(folder)
    fsops.make_folder(sibling)
    descriptor = try_lock(sibling)
    try:
        sibling.chmod(folder.stat().st_mode & 0o7777)
        gone = {*transition.put, *transition.remove, MANIFEST_NAME, stage.name}
        for name in transition.put:
            fsops.replace(stage / name, sibling / name)
        fsops.write_file(sibling / MANIFEST_NAME, after.to_text().encode())
        kept = _link_others(folder, sibling, gone)
        fsops.sync_folder(sibling)
        fsops.exchange(folder, sibling)
        fsops.sync_folder(folder.parent)
        committed()
        # `sibling` is now the old folder. What somebody has put there since it was read moves along.
        _link_others(sibling, folder, {*gone, *kept})
        fsops.remove_folder(sibling)
        fsops.sync_folder(folder.parent)
    except BaseException:
        if not (folder / stage.name).exists():
            raise  # exchanged: what is left beside the folder is the old one, which the next save removes
        fsops.remove_folder(sibling)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _link_others(source: Path, target: Path, gone: set[str]) -> set[str]:
    linked = set()
    for entry in list(os.scandir(source)):
        if entry.name in gone or entry.name == LOCK_NAME:
            continue
        if (target / entry.name).exists() or entry.is_dir(follow_symlinks=False):
            continue
        fsops.link(Path(entry.path), target / entry.name)
        linked.add(entry.name)
    return linked


def _put_manifest(folder: Path, stage: Path, manifest: Manifest) -> None:
    fsops.write_file(stage / MANIFEST_NAME, manifest.to_text().encode())
    fsops.replace(stage / MANIFEST_NAME, folder / MANIFEST_NAME)


def _do(folder: Path, stage: Path, step: Step) -> None:
    if step.action == "put":
        fsops.replace(stage / step.name, folder / step.name)
    else:
        fsops.remove(folder / step.name)


def same_text(folder: Path, texts: Mapping[str, str]) -> set[str]:
    """Return the names of `texts` whose file in `folder` has exactly that content."""
    same = set()
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.stat().st_size == len(text.encode()) and path.read_bytes() == text.encode():
            same.add(name)
    return same
