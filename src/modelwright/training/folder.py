"""The folder of a training: what may be in it at the start, and that only one training writes into it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from modelwright.checkpoint.lock import FolderBusyError, writer_lock
from modelwright.core.errors import InputError
from modelwright.hub.names import CONFIG_NAME, entry_names
from modelwright.training.state import CHECKPOINTS


def check_folder(out: Path) -> None:
    """Raise InputError if `out` is no folder and cannot become one."""
    for path in (out, *out.parents):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise InputError(f"{out}: expected a folder for the training (--out), found a dead link.") from None
            continue
        except OSError as error:  # a name that is too long, a loop of links
            raise InputError(f"{out}: no folder for the training (--out): {error.strerror or error}.") from error
        if not path.is_dir():
            raise InputError(f"{out}: expected a folder for the training (--out), found a file at {path}.")
        return


def check_holds_no_model(out: Path) -> None:
    """Raise InputError if `out` holds a model: a new training would overwrite it at its end."""
    found = [name for name in (CONFIG_NAME, *entry_names(None)) if (out / name).exists()]
    if found:
        raise InputError(
            f"{out} already holds a model ({', '.join(found)}) and no training to go on with: it would be overwritten. "
            "Choose another folder (--out)."
        )


@contextlib.contextmanager
def only_training_in(out: Path) -> Iterator[None]:
    """Keep other trainings out of `out` meanwhile; raises InputError if there is one. Folders left empty are removed.

    Of several processes of one training, the main one holds the lock for all.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        yield
        return
    checkpoints = out / CHECKPOINTS
    made = [folder for folder in (checkpoints, *checkpoints.parents) if not folder.exists()]
    checkpoints.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(writer_lock(checkpoints, timeout=0))
            except FolderBusyError as error:
                raise InputError(
                    f"{out}: another training is writing into this folder. Wait for it, end it, or choose another "
                    "folder (--out)."
                ) from error
            yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: it is needed
                folder.rmdir()
