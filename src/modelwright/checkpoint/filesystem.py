"""Which file systems are better read than mapped.

A map of a file on a network mount is fetched page by page, each a round trip, and ends the process if the server goes
away; reading goes ahead of itself and fails with an error.
"""

import ctypes
import sys

# f_type of statfs(2); linux/magic.h, and Lustre's, GPFS's, BeeGFS's and PanFS's own headers.
_REMOTE = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB 2
        0x65735546,  # FUSE: sshfs, object stores, mounts of virtual machines
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x73757245,  # Coda
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
        0x19830326,  # BeeGFS
        0xAAD7AAEA,  # PanFS
    }
)


def is_remote(descriptor: int) -> bool:
    """Tell whether the open file `descriptor` is on a network or user-space file system (Linux; elsewhere False)."""
    return filesystem_type(descriptor) in _REMOTE


def filesystem_type(descriptor: int) -> int | None:
    """Return the system's number of the file system that `descriptor` is on; None if it does not say."""
    if sys.platform != "linux":
        return None
    # The number is the first word of a structure of at most 128 bytes on all of Linux's platforms.
    result = (ctypes.c_ulong * 32)()
    if ctypes.CDLL(None).fstatfs(descriptor, ctypes.byref(result)) != 0:
        return None
    return int(result[0]) & 0xFFFFFFFF
