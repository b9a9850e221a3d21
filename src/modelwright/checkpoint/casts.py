"""Tensors that are cast straight from a map of a file, by several threads.

Most of the time goes into the pages of the new memory, which the system has to find and to clear. A thread asks for all
those of what it takes at a time, which costs less than a fault for each. The threads are not torch's own: those would
be waiting, and busy with it, while the others ask.
"""

import contextlib
import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterator

import torch

from modelwright.checkpoint.helpers import Helpers

# What a thread takes at a time, in bytes of the file, the pages of which it lets go afterwards; less where all is less.
_PART_BYTES, _LEAST_PART_BYTES = 1 << 22, 1 << 20
# Less is not worth the wait for another thread; how many threads help beyond a few, nobody has measured.
_SPLIT_BYTES, _MAX_THREADS = 1 << 22, 8
# Fewer pages come by faults.
_POPULATE_BYTES = 1 << 16
# Linux's MADV_POPULATE_WRITE, for which Python has no name; before Linux 5.14 it is refused.
_POPULATE_WRITE = 23
# torch does not split so few elements among its threads.
_SERIAL_ELEMENTS = 1 << 15

Cast = tuple[torch.Tensor, torch.Tensor]
"""What is written, and what it is cast from: both flat, with as many elements."""


def can_let_go() -> bool:
    """Tell whether the system lets pages of a map go; otherwise, all that was cast would stay in memory."""
    return hasattr(mmap, "MADV_DONTNEED") and _madvise() is not None


def run_casts(casts: list[Cast], helpers: Helpers) -> None:
    """Carry out `casts` from a private map of a file, with threads of `helpers`; many together are quicker."""
    nbytes = sum(stored.nbytes for _, stored in casts)
    threads = min(torch.get_num_threads(), _MAX_THREADS) if nbytes >= _SPLIT_BYTES else 1
    # A list: threads can share its iterator.
    parts = list(_parts(casts, max(_LEAST_PART_BYTES, min(_PART_BYTES, nbytes // threads))))
    helpers.run(functools.partial(_run_parts, iter(parts)), threads)


def _parts(casts: list[Cast], nbytes: int) -> Iterator[list[Cast]]:
    """Yield `casts`, cut up and put together to about `nbytes` of the file."""
    part: list[Cast] = []
    size = 0
    for into, stored in casts:
        count = nbytes // stored.element_size()
        for cast in zip(torch.split(into, count), torch.split(stored, count), strict=True):
            part.append(cast)
            size += cast[1].nbytes
            if size >= nbytes:
                yield part
                part, size = [], 0
    if part:
        yield part


def _run_parts(parts: Iterator[list[Cast]]) -> None:
    for part in parts:
        for into, _ in part:
            _populate(into)
        copy_alone(part)
        for _, stored in part:
            _let_go(stored)


def copy_alone(casts: list[Cast]) -> None:
    """Carry out `casts` in this thread, without torch's: in pieces, which torch does not split.

    And in one call: between calls, the thread would wait for Python's lock.
    """
    torch._foreach_copy_(
        [piece for into, _ in casts for piece in torch.split(into, _SERIAL_ELEMENTS)],
        [piece for _, stored in casts for piece in torch.split(stored, _SERIAL_ELEMENTS)],
    )


def _populate(into: torch.Tensor) -> None:
    """Ask for the memory of `into`; what the system does not give comes when it is written to."""
    start, end = _up(into.data_ptr()), _down(into.data_ptr() + into.nbytes)
    if sys.platform == "linux" and end - start >= _POPULATE_BYTES:
        _advise(start, end, _POPULATE_WRITE)


def _let_go(stored: torch.Tensor) -> None:
    """Let all pages of `stored` go; a neighbour that shares one gets it back when it is looked at."""
    _advise(_down(stored.data_ptr()), stored.data_ptr() + stored.nbytes, mmap.MADV_DONTNEED)


def _advise(start: int, end: int, advice: int) -> None:
    madvise = _madvise()
    if madvise is not None:
        madvise(start, end - start, advice)  # an advice: it may be refused


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """Return the C library's madvise (Python's holds the lock, for a map of its own only); None if it has none."""
    with contextlib.suppress(OSError, TypeError, AttributeError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return madvise
    return None


def _down(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE


def _up(address: int) -> int:
    return _down(address + mmap.PAGESIZE - 1)
