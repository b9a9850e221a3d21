"""One PyTorch .bin file (a pickle, restricted to tensors) as a checkpoint."""

import pickle
import re
import zipfile
from pathlib import Path

import torch

from modelwright.checkpoint.diagnose import likely_cause, read_head
from modelwright.checkpoint.headers import CheckpointBase, TensorInfo
from modelwright.core.errors import CheckpointError


class BinFile(CheckpointBase):
    """The tensors of the .bin file `path`, read by `torch.load(weights_only=True)`: no code in it is run.

    Raises CheckpointError if the file is damaged, holds anything but tensors by name, or asks for code.
    """

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        self._path = path
        self._tensors = _load(path, mmap)
        self.infos = {
            name: TensorInfo(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, path)
            for name, tensor in self._tensors.items()
        }
        self.files = (path,)

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`. Always a copy: names in a .bin file may share memory."""
        tensor = self._tensors[name]
        return tensor.to(device=device, dtype=dtype or tensor.dtype, copy=True, memory_format=torch.contiguous_format)

    def equal(self, first: str, second: str) -> bool:
        """Tell whether two stored tensors hold the same values in the same shape and dtype."""
        left, right = self._tensors[first], self._tensors[second]
        return left.dtype == right.dtype and torch.equal(left, right)

    def close(self) -> None:
        """Release the file; tensors already read stay valid."""
        self._tensors = {}


def _load(path: Path, mmap: bool) -> dict[str, torch.Tensor]:
    try:
        size = path.stat().st_size
        head = read_head(path)
    except OSError as error:
        raise CheckpointError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    try:
        # Files from before PyTorch 1.6 are no zip archives and cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # Not chained: torch's own text tells how to switch the protection off.
        raise CheckpointError(_pickle_message(path, head, size, str(error))) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        first = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: not a sound PyTorch file of {size:,} bytes ({first}). {likely_cause(path, head, size)}"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected tensors by name, found a {type(loaded).__name__}.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: expected tensors by name, found a {type(value).__name__} under {name!r}. A file of a "
                "training framework holds more than weights: export the weights alone, best as safetensors."
            )
    return {name: value.detach() for name, value in loaded.items()}


def _pickle_message(path: Path, head: bytes, size: int, text: str) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)|(?:global|class|function)s? [`']?([\w]+(?:\.[\w]+)+)", text)
    if wanted is None:
        return f"{path}: not a sound PyTorch file of {size:,} bytes. {likely_cause(path, head, size)}"
    return (
        f"{path}: refused: the file asks for {wanted[1] or wanted[2]!r}, which is not a tensor. Loading it could run "
        "code, so nothing of it was run. Ask its author for a safetensors file, or use another source."
    )
