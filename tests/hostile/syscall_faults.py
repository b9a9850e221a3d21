"""Stops a process at the n-th system call that changes files, whoever makes it: Python, torch's C++ or Rust.

The process puts a filter on itself (seccomp, which needs no privileges) and a parent is asked before each such call: it
lets the call pass, answers it with an error, or kills. A preload library would not do: the Rust of safetensors makes
some calls directly, not through the C library.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

_X86_64 = {
    "write": 1, "pwrite64": 18, "writev": 20, "msync": 26, "sendfile": 40, "fsync": 74, "fdatasync": 75, "truncate": 76,
    "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "chmod": 90,
    "fchmod": 91, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "fchmodat": 268,
    "fallocate": 285, "pwritev": 296, "renameat2": 316, "copy_file_range": 326, "seccomp": 317,
}  # fmt: skip
_AARCH64 = {
    "mkdirat": 34, "unlinkat": 35, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46, "fallocate": 47,
    "fchmod": 52, "fchmodat": 53, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70,
    "sendfile": 71, "fsync": 82, "fdatasync": 83, "msync": 227, "renameat2": 276, "copy_file_range": 285,
    "seccomp": 277,
}  # fmt: skip
_NUMBERS = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), {}) if sys.platform == "linux" else {}
_NAMES = {number: name for name, number in _NUMBERS.items()}
# What a full disk, or a quota, refuses; the others fail as on a broken disk.
TAKES_SPACE = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "openat", "sendfile"} | {
    "copy_file_range", "mkdir", "mkdirat", "link", "linkat", "rename", "renameat", "renameat2"
}  # fmt: skip

_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _IF_EQUAL, _IF_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _OPEN_FLAGS_AT = 0, 16 + 2 * 8  # in struct seccomp_data
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


@dataclass
class Outcome:
    """`code` is the exit status, or minus the signal; `calls` are the names of the calls asked about, in order."""

    code: int
    calls: list[str]


def available() -> bool:
    """Return whether the system lets us filter (a container may forbid it)."""
    return bool(_NUMBERS) and run(lambda: None, 0, kill=False).code == 0


def run(work: Callable[[], int | None], number: int, *, kill: bool) -> Outcome:
    """Run `work` in a fork; its `number`-th call that changes files (from 1; 0: none) kills it, or fails."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        code = 97
        try:
            ours.close()
            listener = _filter_self()
            if listener >= 0:
                socket.send_fds(theirs, [b"x"], [listener])
                os.close(listener)
                theirs.close()
                code = work() or 0
        finally:
            os._exit(code)
    theirs.close()
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    calls: list[str] = []
    for listener in listeners:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while poll.poll()[0][1] & select.POLLIN:  # else all who have the filter are gone
            request = bytearray(80)
            fcntl.ioctl(listener, _RECEIVE, request)
            identity, _, _, call = struct.unpack_from("QIIi", request)
            calls.append(_NAMES[call])
            error, flags = 0, _CONTINUE
            if len(calls) == number:
                if kill:
                    os.kill(pid, signal.SIGKILL)
                    continue
                error, flags = errno.ENOSPC if calls[-1] in TAKES_SPACE else errno.EIO, 0
            fcntl.ioctl(listener, _ANSWER, struct.pack("QqiI", identity, 0, -error, flags))
        os.close(listener)
    status = os.waitpid(pid, 0)[1]
    return Outcome(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), calls)


def _filter_self() -> int:
    """Filter this process from now on; return the descriptor that the parent is asked through, or -1."""
    body = []
    for name, number in _NUMBERS.items():
        if name not in ("seccomp", "openat"):
            body += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ASK)]
    creates = [(_IF_EQUAL, 0, 3, _NUMBERS["openat"]), (_LOAD, 0, 0, _OPEN_FLAGS_AT), (_IF_BITS, 0, 1, os.O_CREAT)]
    lines = [(_LOAD, 0, 0, _NUMBER_AT), *body, *creates, (_RETURN, 0, 0, _ASK), (_RETURN, 0, 0, _ALLOW)]
    program = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    library = ctypes.CDLL(None)
    if library.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        return -1
    mode, new_listener = 1, 8
    return int(library.syscall(_NUMBERS["seccomp"], mode, new_listener, ctypes.byref(_Program(len(lines), program))))
