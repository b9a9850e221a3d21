"""Filling new tensors from a file: piece by piece through a small buffer, by several threads.

A piece is read and cast while it is in the caches of a core, so a file's bytes are never in memory twice. The pieces of
all tensors are one supply for all threads: they wait for each other once for a whole model, and a large tensor is
shared like many small ones. Most of the time goes into the pages of the new memory and the reads, which threads share;
what is done in Python for a piece they cannot do at once, so it is little.
"""

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence

import torch

from modelwright.checkpoint.helpers import Helpers

# What is read and cast at a time.
PIECE_BYTES = 1 << 19
# torch does not split so few elements among its threads, which would be more than there are cores.
_SERIAL_ELEMENTS = 1 << 15
# For fewer bytes than this other threads are not worth asking.
_SPLIT_BYTES, _MAX_THREADS = 1 << 22, 4

# Reads the bytes of the tensor that is named, from a byte of it on, into the whole of some memory.
Read = Callable[[str, int, memoryview], None]

# The buffer of each thread: one for all files, of which hundreds may be open. A helper's goes with its thread.
_buffers = threading.local()
_counting = threading.Lock()


class Filling:
    """The tensor `tensor` (contiguous, on any device) that is to get the values of `name`, stored in `dtype`.

    `done` is called when it has them, by the thread that filled the last piece.
    """

    def __init__(self, name: str, tensor: torch.Tensor, dtype: torch.dtype, done: Callable[[], None]) -> None:
        self._name, self._flat, self._dtype, self._done = name, tensor.view(-1), dtype, done
        self._count = PIECE_BYTES // max(dtype.itemsize, tensor.dtype.itemsize)
        self._left = len(self.starts())
        self.nbytes = tensor.numel() * dtype.itemsize

    def starts(self) -> range:
        """Return the elements at which the pieces begin."""
        return range(0, len(self._flat), self._count)

    def fill(self, start: int, read: Read) -> None:
        """Fill the piece at `start`, by `read`."""
        self._fill(start, read)
        with _counting:
            self._left -= 1
            is_done = not self._left
        if is_done:
            self._done()

    def _fill(self, start: int, read: Read) -> None:
        here, size = min(self._count, len(self._flat) - start), self._dtype.itemsize
        if self._flat.dtype == self._dtype and self._flat.is_cpu:
            read(self._name, start * size, self._memory[start * size : (start + here) * size])
            return
        buffer = _buffer()
        read(self._name, start * size, buffer.memory[: here * size])
        parts = buffer.parts(self._dtype, here)
        if self._flat.is_cpu:
            # One call for all parts: between calls, the threads would wait for Python's lock.
            first = start // _SERIAL_ELEMENTS
            torch._foreach_copy_(self._parts[first : first + len(parts)], parts)
        else:
            self._flat[start : start + here].copy_(buffer.elements(self._dtype, here))

    @functools.cached_property
    def _memory(self) -> memoryview:
        return bytes_of(self._flat)

    @functools.cached_property
    def _parts(self) -> tuple[torch.Tensor, ...]:
        return torch.unsafe_split(self._flat, _SERIAL_ELEMENTS)


def fill(fillings: Sequence[Filling], read: Read, helpers: Helpers | None) -> None:
    """Fill all tensors, with `helpers` if there are any and it is worth it.

    Raises what `read` raises, when no thread works any more.
    """
    pieces = ((filling, start) for filling in fillings for start in filling.starts())
    taking = threading.Lock()

    def take() -> tuple[Filling, int] | None:
        with taking:
            return next(pieces, None)

    def work() -> None:
        for filling, start in iter(take, None):
            filling.fill(start, read)

    if helpers is not None and sum(filling.nbytes for filling in fillings) >= _SPLIT_BYTES:
        helpers.run(work, min(torch.get_num_threads(), _MAX_THREADS))
    else:
        work()


class _Buffer:
    """The memory in which a thread holds a piece of a file, as bytes and as elements."""

    def __init__(self) -> None:
        # Said to be on the CPU: the caller may be in a `with torch.device(...)`.
        self._bytes = torch.empty(PIECE_BYTES, dtype=torch.uint8, device="cpu")
        self.memory = bytes_of(self._bytes)
        self._whole: dict[torch.dtype, tuple[torch.Tensor, ...]] = {}

    def elements(self, dtype: torch.dtype, count: int) -> torch.Tensor:
        """Return the first `count` elements of `dtype`."""
        return self._bytes[: count * dtype.itemsize].view(dtype)

    def parts(self, dtype: torch.dtype, count: int) -> tuple[torch.Tensor, ...]:
        """Return the first `count` elements of `dtype`, in parts that torch copies with one thread."""
        whole = self._whole.get(dtype)
        if whole is None:
            elements = self.elements(dtype, PIECE_BYTES // dtype.itemsize)
            whole = self._whole[dtype] = torch.unsafe_split(elements, _SERIAL_ELEMENTS)
        if count % _SERIAL_ELEMENTS == 0:
            return whole[: count // _SERIAL_ELEMENTS]
        return torch.unsafe_split(self.elements(dtype, count), _SERIAL_ELEMENTS)


def _buffer() -> _Buffer:
    buffer: _Buffer | None = getattr(_buffers, "buffer", None)
    if buffer is None:
        buffer = _buffers.buffer = _Buffer()
    return buffer


def drop_buffer() -> None:
    """Give the memory of this thread's buffer back."""
    vars(_buffers).pop("buffer", None)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor; not by .numpy(): importing numpy takes more than many a model."""
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
