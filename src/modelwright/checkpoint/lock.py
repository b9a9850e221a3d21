"""One writer at a time in a folder, across threads and processes; released by the system if the writer dies."""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from modelwright.core.errors import CheckpointError
from modelwright.hub.names import LOCK_NAME


class FolderBusyError(CheckpointError):
    """Somebody else has held the lock of a folder for as long as its next writer would wait."""


_NO_LOCKS_HERE = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EISDIR, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def writer_lock(folder: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock of `folder`, which must exist; waits up to `timeout` seconds, then raises FolderBusyError.

    The folder itself is locked where the system can do that, so nothing is left in it; elsewhere a file in it is.
    """
    deadline = time.monotonic() + timeout
    while True:
        descriptor = _acquire(folder, deadline, timeout)
        try:
            # The writer that we waited for may have put another folder in its place.
            if _same(descriptor, folder):
                yield
                return
        finally:
            os.close(descriptor)


def try_lock(folder: Path) -> int | None:
    """Lock `folder` if nobody holds its lock and return the descriptor to close; None if it is held or cannot be."""
    try:
        descriptor = _open(folder)
    except OSError:
        return None
    try:
        if _lock(descriptor):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _acquire(folder: Path, deadline: float, timeout: float) -> int:
    try:
        descriptor = _open(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: the folder to save in cannot be opened: {error.strerror or error}") from error
    try:
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise FolderBusyError(
                    f"{folder}: another process or thread has been saving into this folder for {timeout:.0f} seconds. "
                    "Nothing was changed. Wait for it, end it, or save into another folder."
                )
            time.sleep(0.02)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _open(folder: Path) -> int:
        return os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _same(descriptor: int, folder: Path) -> bool:  # noqa: ARG001
        return True

else:
    import fcntl

    def _open(folder: Path) -> int:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except BlockingIOError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS_HERE:
                raise
            # Some network file systems lock only files that are open for writing.
            return os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        return descriptor

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _same(descriptor: int, folder: Path) -> bool:
        held = os.fstat(descriptor)
        try:
            now = [folder.stat()] + ([(folder / LOCK_NAME).stat()] if (folder / LOCK_NAME).exists() else [])
        except FileNotFoundError:
            raise CheckpointError(f"{folder}: the folder to save in was removed.") from None
        return any((held.st_dev, held.st_ino) == (stat.st_dev, stat.st_ino) for stat in now)
