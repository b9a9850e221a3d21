"""What is known of a checkpoint before its weights are read, and the protocol of an open checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor, as its file's header describes it; `nbytes` is what it takes in `file`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    file: Path

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class Checkpoint(Protocol):
    """An open checkpoint: headers now, tensors when asked for. Not shared between threads; open one for each."""

    infos: Mapping[str, TensorInfo]
    files: tuple[Path, ...]

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name` on `device`, cast to `dtype` (None: as stored).

        The tensor is the caller's own: no two calls return memory that is shared. It may be a private memory map of the
        file; writing to it does not change the file. Raises CheckpointError if the file cannot be read.
        """
        ...

    def read_later(
        self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return the tensor `name` as `read` does, except that its values may come only with `finish`.

        For many tensors at a time: what is to be cast is cast together, which is faster.
        """
        ...

    def finish(self) -> None:
        """Give all tensors of `read_later` their values; raises CheckpointError if the file cannot be read."""
        ...

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file, which takes no memory of its own."""
        ...

    def equal(self, first: str, second: str) -> bool:
        """Tell whether two stored tensors hold the same values in the same shape and dtype."""
        ...

    def close(self) -> None:
        """Release the files; tensors already read stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CheckpointBase:
    """The part that every kind of checkpoint shares: comparison and the context manager; nothing is read later."""

    infos: Mapping[str, TensorInfo]
    files: tuple[Path, ...]

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        raise NotImplementedError

    def read_later(
        self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read_later`."""
        return self.read(name, device, dtype)

    def finish(self) -> None:
        """Give all tensors of `read_later` their values."""

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:  # noqa: ARG002
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file."""
        return False

    def equal(self, first: str, second: str) -> bool:
        """Tell whether two stored tensors hold the same values in the same shape and dtype."""
        left, right = self.infos[first], self.infos[second]
        if (left.shape, left.dtype) != (right.shape, right.dtype):
            return False
        return torch.equal(self.read(first), self.read(second))

    def close(self) -> None:
        """Release the files; tensors already read stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bytes_by_dtype(infos: Mapping[str, TensorInfo]) -> dict[torch.dtype, int]:
    """Return how many bytes of each dtype are stored, the largest first."""
    totals: dict[torch.dtype, int] = {}
    for info in infos.values():
        totals[info.dtype] = totals.get(info.dtype, 0) + info.nbytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def main_dtype(infos: Mapping[str, TensorInfo]) -> torch.dtype | None:
    """Return the floating dtype that holds the most bytes (what dtype="auto" means), or None if there is none.

    Float8 does not count: nothing computes in it, so a model that stores it names its own dtype.
    """
    for dtype in bytes_by_dtype(infos):
        if dtype.is_floating_point and dtype.itemsize > 1:
            return dtype
    return None


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
