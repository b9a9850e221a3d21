"""A sharded checkpoint: one checkpoint made of checkpoints."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from modelwright.checkpoint.headers import Checkpoint, CheckpointBase, TensorInfo
from modelwright.checkpoint.index import WeightIndex
from modelwright.core.errors import CheckpointError


class ShardedCheckpoint(CheckpointBase):
    """The shards that `index` lists, all opened at once; `path_of` turns a file name of the index into a path.

    Raises CheckpointError, naming file and tensor, unless the shards hold exactly what the index promises: nothing
    missing, nothing more, nothing twice.
    """

    def __init__(
        self, index: WeightIndex, path_of: Callable[[str], Path], open_file: Callable[[Path], Checkpoint]
    ) -> None:
        self._shards: dict[str, Checkpoint] = {}
        found: dict[str, str] = {}
        for filename in index.files:
            shard = open_file(path_of(filename))
            self._shards[filename] = shard
            for name in shard.infos:
                if name in found:
                    raise CheckpointError(
                        f"{index.path}: the tensor {name!r} is in two of its shards, {found[name]} and {filename}. One "
                        "of them is left over from another save. Save or fetch the checkpoint again."
                    )
                found[name] = filename
        _compare(index, found)
        self._file_of = index.weight_map
        self.infos: Mapping[str, TensorInfo] = {
            name: info for shard in self._shards.values() for name, info in shard.infos.items()
        }
        self.files = (index.path, *(path for shard in self._shards.values() for path in shard.files))

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        return self._shards[self._file_of[name]].read(name, device, dtype)

    def read_later(
        self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return the tensor `name`, whose values may come later; see `Checkpoint.read_later`."""
        return self._shards[self._file_of[name]].read_later(name, device, dtype)

    def finish(self) -> None:
        """Give all tensors of `read_later` their values."""
        for shard in self._shards.values():
            shard.finish()

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file."""
        return self._shards[self._file_of[name]].maps(name, dtype)

    def close(self) -> None:
        """Release the files; tensors already read stay valid."""
        for shard in self._shards.values():
            shard.close()


def _compare(index: WeightIndex, found: Mapping[str, str]) -> None:
    for name, filename in index.weight_map.items():
        if found.get(name) != filename:
            where = f"it is in {found[name]}" if name in found else "it is in no shard"
            raise CheckpointError(
                f"{index.path.with_name(filename)}: {index.path.name} promises the tensor {name!r} in this file, but "
                f"{where}. Index and shards come from different saves, or the shard was written by a faulty program. "
                "Fetch or save the checkpoint again."
            )
    for name, filename in found.items():
        if name not in index.weight_map:
            raise CheckpointError(
                f"{index.path.with_name(filename)}: it holds the tensor {name!r}, which {index.path.name} does not "
                "list. Index and shards come from different saves. Fetch or save the checkpoint again."
            )
