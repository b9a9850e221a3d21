"""One safetensors file as a checkpoint."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modelwright.checkpoint.headers import CheckpointBase
from modelwright.checkpoint.safetensors_header import file_identity, read_header
from modelwright.core.errors import CheckpointError


class SafetensorsFile(CheckpointBase):
    """The tensors of the safetensors file `path`; raises CheckpointError if its header is not sound.

    With `mmap`, tensors on the CPU in their stored dtype are private maps of the file and cost no memory until they are
    written to. Such a file must not be truncated while they live (replacing or deleting it is fine): the system would
    end the process. Without `mmap` each tensor is read into memory of its own.
    """

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        self._path = path
        self._mmap = mmap
        self._header = read_header(path)
        self._handle: Any = None
        self._mapped: set[str] = set()
        self.infos = self._header.infos
        self.metadata = self._header.metadata
        self.files = (path,)

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        info = self.infos[name]
        dtype = dtype or info.dtype
        device = torch.device(device)
        if device.type == "meta":
            return torch.empty(info.shape, dtype=dtype, device=device)
        if not self._mmap:
            return self._copy(name).to(device=device, dtype=dtype)
        keeps_map = device.type == "cpu" and dtype == info.dtype
        if keeps_map and name in self._mapped:
            # The first reader of this map may have written to it: a second one gets a map of its own.
            self.close()
        tensor: torch.Tensor = self._open().get_tensor(name)
        if tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
            self._changed()
        if not keeps_map:
            return tensor.to(device=device, dtype=dtype)
        if tensor.numel() and tensor.data_ptr() % info.dtype.itemsize:
            return tensor.clone()  # a header of odd length; kernels expect aligned data
        self._mapped.add(name)
        return tensor

    def close(self) -> None:
        """Release the map; tensors already read stay valid."""
        self._handle = None
        self._mapped.clear()

    def _open(self) -> Any:
        if self._handle is None:
            try:
                self._handle = safe_open(str(self._path), framework="pt", device="cpu")
                identity = file_identity(self._path.stat())
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self._path}: the file cannot be read any more: {error}") from error
            if identity != self._header.identity:
                self._handle = None
                self._changed()
        return self._handle

    def _copy(self, name: str) -> torch.Tensor:
        info = self.infos[name]
        if not info.nbytes:
            return torch.empty(info.shape, dtype=info.dtype)
        buffer = bytearray(info.nbytes)
        with self._path.open("rb") as file:
            if file_identity(self._path.stat()) != self._header.identity:
                self._changed()
            file.seek(self._header.starts[name])
            count = file.readinto(buffer)
        if count != info.nbytes:
            raise CheckpointError(
                f"{self._path}: expected {info.nbytes:,} bytes of {name!r}, could read {count:,}. The file was cut "
                "while it was open; load again."
            )
        return torch.frombuffer(buffer, dtype=info.dtype).view(info.shape)

    def _changed(self) -> None:
        raise CheckpointError(
            f"{self._path}: the file was replaced or written to between reading its header and its data. Load again."
        )
