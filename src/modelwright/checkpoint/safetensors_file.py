"""One safetensors file as a checkpoint.

A tensor is a map of the file where that is possible and wise. One that is to be cast is cast straight from a map of the
file. Otherwise its bytes are read straight into its memory, or, for a cast or another device, piece by piece through a
small buffer. So nothing is in memory twice, and no page of the file stays mapped that nobody needs.
"""

import contextlib
import ctypes
import functools
import json
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modelwright.checkpoint.casts import can_let_go, copy_alone, run_casts
from modelwright.checkpoint.filesystem import is_remote
from modelwright.checkpoint.headers import CheckpointBase
from modelwright.checkpoint.helpers import Helpers
from modelwright.checkpoint.safetensors_header import DTYPES, file_identity, read_header
from modelwright.core.errors import CheckpointError

# What is read and cast at a time: it stays in the caches of a core, and Python's lock is asked for seldom.
PIECE_BYTES = 1 << 19
# What waits, in bytes of the file, before it is cast from the map: a few runs of the threads are faster than many.
_MOST_WAITING_BYTES = 1 << 29
# A tensor of this size is cast by several threads: most of the time goes into the pages of its new memory.
_SPLIT_BYTES, _MAX_THREADS = 1 << 22, 4

# The memory of each thread for what is to be cast: one for all files, of which hundreds may be open. Who closes a file
# gives its own back; a helper's goes with its thread.
_buffers = threading.local()


class SafetensorsFile(CheckpointBase):
    """The tensors of the safetensors file `path`; raises CheckpointError if its header is not sound.

    With `mmap`, tensors on the CPU in their stored dtype are private maps of the file and cost no memory until they are
    written to. Such a file must not be truncated while they live or one is cast (replacing or deleting it is fine): the
    system would end the process. Without `mmap`, and on network file systems, each tensor is read into its own memory.
    """

    # The map that is cast from.
    _source: mmap.mmap | None = None

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(f"{path}: the file cannot be opened: {error.strerror or error}") from error
        # Kept until `close`: a save may replace or remove the file, and what was opened stays readable.
        self._release = weakref.finalize(self, os.close, self._descriptor)
        self._path = path
        self._mmap = mmap and not is_remote(self._descriptor)
        self._header = read_header(path, descriptor=self._descriptor)
        self._handle: Any = None
        self._mapped: set[str] = set()
        self._seeking = threading.Lock()  # where there are no reads at a place, all share one place in the file
        self._helpers = Helpers()
        self._waiting: list[tuple[str, torch.Tensor]] = []
        self._waiting_bytes = 0
        self.infos = self._header.infos
        self.metadata = self._header.metadata
        self.files = (path,)

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        tensor, waits = self._read(name, torch.device(device), dtype)
        if waits:
            self._cast([(name, tensor)])
        return tensor

    def read_later(
        self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return the tensor `name`, whose values may come later; see `Checkpoint.read_later`."""
        tensor, waits = self._read(name, torch.device(device), dtype)
        if waits:
            self._waiting.append((name, tensor))
            self._waiting_bytes += self.infos[name].nbytes
            if self._waiting_bytes >= _MOST_WAITING_BYTES:
                self.finish()
        return tensor

    def finish(self) -> None:
        """Give all tensors of `read_later` their values."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting:
            self._check()
            self._cast(waiting)

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file."""
        info = self.infos[name]
        # After a header of odd length the data is not aligned, as kernels expect it to be.
        aligned = self._header.starts[name] % info.dtype.itemsize == 0
        return self._mmap and dtype in (None, info.dtype) and aligned and info.nbytes > 0

    def close(self) -> None:
        """Release the file; tensors already read stay valid."""
        self._unmap()
        self._source = None
        self._waiting.clear()
        self._release()
        self._helpers.close()
        vars(_buffers).pop("bytes", None)

    def _read(self, name: str, device: torch.device, dtype: torch.dtype | None) -> tuple[torch.Tensor, bool]:
        """Return the tensor, and whether it waits for `_cast` to give it its values."""
        info = self.infos[name]
        dtype = dtype or info.dtype
        if device.type == "meta":
            return torch.empty(info.shape, dtype=dtype, device=device), False
        self._check()
        if device.type != "cpu" or not self.maps(name):
            return self._copy(name, device, dtype), False
        if dtype == info.dtype:
            return self._map_tensor(name), False
        if self._map_to_cast() is None:
            return self._copy(name, device, dtype), False
        return torch.empty(info.shape, dtype=dtype, device="cpu"), True

    def _map_tensor(self, name: str) -> torch.Tensor:
        if name in self._mapped:
            # The first reader of this map may have written to it: a second one gets a map of its own.
            self._unmap()
        tensor: torch.Tensor = self._map().get_tensor(name)
        self._mapped.add(name)
        return tensor

    def _check(self) -> None:
        if not self._release.alive:
            raise CheckpointError(f"{self._path}: the checkpoint was closed. Open it again to read from it.")
        if file_identity(os.fstat(self._descriptor)) != self._header.identity:
            raise CheckpointError(f"{self._path}: the file was written to while it was open. Load again.")

    def _map(self) -> Any:
        if self._handle is None:
            # The file that is open, not the one that now has its name; elsewhere than on Linux only the name is known.
            own = f"/proc/self/fd/{self._descriptor}"
            by_descriptor = os.path.exists(own)  # noqa: PTH110
            try:
                self._handle = safe_open(own if by_descriptor else str(self._path), framework="pt", device="cpu")
                identity = file_identity(os.fstat(self._descriptor) if by_descriptor else self._path.stat())
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self._path}: the file cannot be read any more: {error}") from error
            if identity != self._header.identity:
                raise CheckpointError(f"{self._path}: the file was replaced while it was open. Load again.")
        return self._handle

    def _unmap(self) -> None:
        self._handle = None
        self._mapped.clear()

    def _map_to_cast(self) -> mmap.mmap | None:
        """Return the map of the file to cast from; None where the system lets no pages go, or has no room for it."""
        if self._source is None and can_let_go():
            # Not `_map`, in whose pages a caller may have written what must not be let go.
            with contextlib.suppress(OSError):
                self._source = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
        return self._source

    def _cast(self, waiting: list[tuple[str, torch.Tensor]]) -> None:
        source = self._source
        assert source is not None  # else `_read` copies
        # Made only now: small objects between the large ones would break up the memory that the C library keeps.
        casts = []
        for name, tensor in waiting:
            info = self.infos[name]
            stored = torch.frombuffer(source, dtype=info.dtype, offset=self._header.starts[name], count=info.numel)
            casts.append((tensor.view(-1), stored))
        run_casts(casts, self._helpers)

    def _copy(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        info = self.infos[name]
        tensor = torch.empty(info.shape, dtype=dtype, device=device)
        if not info.nbytes:
            return tensor
        count = PIECE_BYTES // max(dtype.itemsize, info.dtype.itemsize)
        work = functools.partial(self._fill_pieces, name, tensor.view(-1), count, iter(range(0, info.numel, count)))
        if device.type == "cpu" and info.nbytes >= _SPLIT_BYTES:
            self._helpers.run(work, min(torch.get_num_threads(), _MAX_THREADS))
        else:
            work()
        return tensor

    def _fill_pieces(self, name: str, flat: torch.Tensor, count: int, starts: Iterator[int]) -> None:
        """Read `count` elements of the tensor `name` from each of `starts` on into the same ones of `flat`."""
        dtype, on_cpu = self.infos[name].dtype, flat.device.type == "cpu"
        for start in starts:
            into = flat[start : start + count]
            if on_cpu and flat.dtype == dtype:
                self._fill(name, start * dtype.itemsize, into)
                continue
            piece = _buffer()[: len(into) * dtype.itemsize].view(dtype)
            self._fill(name, start * dtype.itemsize, piece)
            if on_cpu:
                copy_alone([(into, piece)])  # torch's threads would be more than there are cores
            else:
                into.copy_(piece)

    def _fill(self, name: str, offset: int, flat: torch.Tensor) -> None:
        """Read the bytes of the tensor `name` from its byte `offset` on into the whole of `flat`."""
        view, offset = _bytes_of(flat), self._header.starts[name] + offset
        try:
            while view and (count := self._read_at(view, offset)):
                view, offset = view[count:], offset + count
        except OSError as error:
            self._check()  # closed meanwhile, by another thread
            raise CheckpointError(f"{self._path}: {name!r} could not be read: {error.strerror or error}") from error
        if view:
            raise CheckpointError(
                f"{self._path}: {len(view):,} bytes of {name!r} could not be read: the file was cut while it was open. "
                "Load again."
            )

    def _read_at(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [view], offset)
        with self._seeking, open(self._descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            return file.readinto(view) or 0


def _buffer() -> torch.Tensor:
    buffer: torch.Tensor | None = getattr(_buffers, "bytes", None)
    if buffer is None:
        # Said to be on the CPU: the caller may be in a `with torch.device(...)`.
        buffer = _buffers.bytes = torch.empty(PIECE_BYTES, dtype=torch.uint8, device="cpu")
    return buffer


def write_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Write the file `path` with one tensor, straight from its memory (the library's own writer copies it first)."""
    tensor = tensor.detach().to("cpu").contiguous()
    dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
    header = {name: {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [0, tensor.nbytes]}}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        view = _bytes_of(tensor) if tensor.nbytes else memoryview(b"")
        while view:
            view = view[file.write(view) :]


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a contiguous tensor; not by .numpy(): importing numpy takes more than many a model."""
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
