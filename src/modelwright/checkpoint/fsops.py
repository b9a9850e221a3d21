"""The file operations that a save consists of: each one step that a crash can fall before or after.

Writers call them through this module (`fsops.replace(...)`), so that tests can stop a save at every one of them.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def make_folder(path: Path) -> None:
    """Create the folder; its parent must exist."""
    path.mkdir()


def write_file(path: Path, data: bytes) -> None:
    """Create the file with `data`, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path, mode: int) -> None:
    """Give the finished file its access mode and bring it to disk."""
    path.chmod(mode)
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mode_of_new_files(folder: Path) -> int:
    """Return the permissions that a new file in `folder` gets: what the umask leaves, without touching the umask."""
    probe = folder / ".mode"
    write_file(probe, b"")
    mode = probe.stat().st_mode & 0o777
    remove(probe)
    return mode


def sync_folder(path: Path) -> None:
    """Bring the names in the folder to disk (Windows has no such call and does not need it)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems refuse it; the file data is synced all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """Move the file or folder over `target` in one step."""
    source.replace(target)


def remove(path: Path) -> None:
    """Remove the file; it is no error if it is gone already."""
    path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Make `target` a second name of the file, or a copy of the symbolic link, `source`."""
    os.link(source, target, follow_symlinks=False)


def remove_folder(path: Path) -> None:
    """Remove the folder and all that is in it; links are removed, not followed."""
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            remove_folder(Path(entry.path))
        else:
            remove(Path(entry.path))
    path.rmdir()


def exchange(first: Path, second: Path) -> None:
    """Let the two folders change places in one step; raises OSError where the system cannot (only Linux can)."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "renameat2 is a call of Linux")
    library = ctypes.CDLL(None, use_errno=True)
    try:
        rename = library.renameat2
    except AttributeError:  # an old C library
        raise OSError(errno.ENOSYS, "no renameat2 in the C library") from None
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first), None, str(second))


OPERATIONS = ("make_folder", "write_file", "sync_file", "sync_folder", "replace", "remove", "link", "exchange")
