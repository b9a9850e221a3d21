"""Save a few files that only mean something together, such as an adapter and its config, with one commit point."""

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from modelwright.checkpoint import commit, fsops
from modelwright.checkpoint.lock import writer_lock
from modelwright.checkpoint.manifest import Manifest, read_manifest
from modelwright.checkpoint.save import saving_failed
from modelwright.checkpoint.transition import Transition
from modelwright.core.errors import RepoError
from modelwright.hub.names import JOURNAL_NAME, MANIFEST_NAME, STAGING_PREFIX


def save_together(
    folder: str | os.PathLike[str],
    writers: Mapping[str, Callable[[Path], object]],
    *,
    stale: Iterable[str] = (),
    lock_timeout: float = 600.0,
) -> None:
    """Write a file by each of `writers` ({name: function of the path}) into `folder` and remove the `stale` ones.

    All other files stay. Raises RepoError if the folder cannot be made, CheckpointError if a write fails: the folder
    then holds what it held before.
    """
    target = Path(folder).expanduser().resolve()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepoError(f"{target}: the folder cannot be made: {error.strerror or error}") from error
    committed: list[bool] = []
    with writer_lock(target, timeout=lock_timeout):
        stage = target / f"{STAGING_PREFIX}{uuid.uuid4().hex[:12]}"
        try:
            commit.recover(target)
            fsops.make_folder(stage)
            mode = fsops.mode_of_new_files(stage)
            for name, write in writers.items():
                write(stage / name)
                fsops.sync_file(stage / name, mode)
            gone = tuple(name for name in stale if name not in writers and (target / name).exists())
            transition = Transition((), None, (), tuple(writers), gone)
            manifest = target / MANIFEST_NAME
            known = read_manifest(manifest).current if manifest.exists() else {}
            # A checkpoint whose entry goes is not there any more.
            after = Manifest({variant: one for variant, one in known.items() if one.entry not in gone})
            together = commit.by_exchange if commit.can_exchange(target, stage) else commit.by_journal
            together(target, stage, transition, after, lambda: committed.append(True))
            if after == Manifest():
                # It says something of whole checkpoints only.
                fsops.remove(manifest)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise saving_failed(target, error, committed=bool(committed)) from error
        finally:
            if stage.exists() and not (target / JOURNAL_NAME).exists():
                fsops.remove_folder(stage)
