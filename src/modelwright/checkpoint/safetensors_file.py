"""One safetensors file as a checkpoint.

A tensor is a map of the file where that is possible and wise. Otherwise its bytes are read straight into its memory,
or, if they are to be cast or are for another device, piece by piece through a small buffer. So nothing is in memory
twice, and no page of the file stays mapped that nobody needs.
"""

import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modelwright.checkpoint.filesystem import is_remote
from modelwright.checkpoint.filling import Filling, bytes_of, drop_buffer, fill
from modelwright.checkpoint.headers import CheckpointBase
from modelwright.checkpoint.helpers import Helpers
from modelwright.checkpoint.safetensors_header import DTYPES, file_identity, read_header
from modelwright.core.errors import CheckpointError


class SafetensorsFile(CheckpointBase):
    """The tensors of the safetensors file `path`; raises CheckpointError if its header is not sound.

    With `mmap`, tensors on the CPU in their stored dtype are private maps of the file and cost no memory until they are
    written to. Such a file must not be truncated while they live (replacing or deleting it is fine): the system would
    end the process. Without `mmap`, and on network file systems, each tensor is read into memory of its own.
    """

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
        self._later: list[Filling] = []
        self.infos = self._header.infos
        self.metadata = self._header.metadata
        self.files = (path,)

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        later: list[Filling] = []
        tensor = self._read(name, device, dtype, later, lambda: None)
        fill(later, self._fill, self._helpers)
        return tensor

    def read_later(
        self, name: str, device: torch.device | str, dtype: torch.dtype | None, done: Callable[[], None]
    ) -> torch.Tensor:
        """Return the tensor `name`, perhaps without its values; see `Checkpoint.read_later`."""
        return self._read(name, device, dtype, self._later, done)

    def finish(self) -> None:
        """Read what was left for later; see `Checkpoint.finish`."""
        later, self._later = self._later, []
        if later:
            self._check()
            fill(later, self._fill, self._helpers)

    def _read(
        self,
        name: str,
        device: torch.device | str,
        dtype: torch.dtype | None,
        later: list[Filling],
        done: Callable[[], None],
    ) -> torch.Tensor:
        """Return the tensor `name`; what must be read into memory of this machine is left to `later`."""
        info = self.infos[name]
        dtype = dtype or info.dtype
        device = torch.device(device)
        if device.type != "meta":
            self._check()
        if device.type == "cpu" and self.maps(name, dtype):
            tensor = self._mapped_tensor(name)
        else:
            tensor = torch.empty(info.shape, dtype=dtype, device=device)
            if tensor.numel() and device.type != "meta":
                filling = Filling(name, tensor, info.dtype, done)
                if device.type == "cpu":
                    later.append(filling)
                else:
                    fill([filling], self._fill, None)
                return tensor
        done()
        return tensor

    def _mapped_tensor(self, name: str) -> torch.Tensor:
        if name in self._mapped:
            # The first reader of this map may have written to it: a second one gets a map of its own.
            self._unmap()
        tensor: torch.Tensor = self._map().get_tensor(name)
        self._mapped.add(name)
        return tensor

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file."""
        info = self.infos[name]
        # After a header of odd length the data is not aligned, as kernels expect it to be.
        aligned = self._header.starts[name] % info.dtype.itemsize == 0
        return self._mmap and dtype in (None, info.dtype) and aligned and info.nbytes > 0

    def close(self) -> None:
        """Release the file; tensors already read stay valid."""
        self._unmap()
        self._later = []
        self._release()
        self._helpers.close()
        drop_buffer()

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

    def _fill(self, name: str, offset: int, memory: memoryview) -> None:
        """Read the bytes of the tensor `name` from its byte `offset` on into the whole of `memory`."""
        offset += self._header.starts[name]
        try:
            while memory and (count := self._read_at(memory, offset)):
                memory, offset = memory[count:], offset + count
        except OSError as error:
            self._check()  # closed meanwhile, by another thread
            raise CheckpointError(f"{self._path}: {name!r} could not be read: {error.strerror or error}") from error
        if memory:
            raise CheckpointError(
                f"{self._path}: {len(memory):,} bytes of {name!r} could not be read: the file was cut while it was "
                "open. Load again."
            )

    def _read_at(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [view], offset)
        with self._seeking, open(self._descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            return file.readinto(view) or 0


def write_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Write the file `path` with one tensor, straight from its memory (the library's own writer copies it first)."""
    tensor = tensor.detach().to("cpu").contiguous()
    dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
    header = {name: {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [0, tensor.nbytes]}}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        view = bytes_of(tensor) if tensor.nbytes else memoryview(b"")
        while view:
            view = view[file.write(view) :]
