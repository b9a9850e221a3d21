"""A summary of a checkpoint, from its headers alone."""

from dataclasses import dataclass
from typing import Any

from modelwright.checkpoint.headers import Checkpoint, bytes_by_dtype, dtype_name
from modelwright.checkpoint.report import fold_keys, shape_text, text_table


@dataclass(frozen=True)
class KeyGroup:
    """Tensors that differ in their layer number only: the folded name, dtype, shape, how many they are, their bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    nbytes: int


@dataclass(frozen=True)
class CheckpointSummary:
    """What headers say: `parameters` are elements, `nbytes` bytes, `files` {name: size in bytes}."""

    tensors: int
    parameters: int
    nbytes: int
    bytes_by_dtype: dict[str, int]
    files: dict[str, int]
    keys: tuple[KeyGroup, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready data."""
        return {
            "tensors": self.tensors,
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "bytes_by_dtype": dict(self.bytes_by_dtype),
            "files": dict(self.files),
            "keys": [{**vars(key), "shape": list(key.shape)} for key in self.keys],
        }

    def __str__(self) -> str:
        rows = [(key.name, key.count, key.dtype, shape_text(key.shape), f"{key.nbytes:,}") for key in self.keys]
        dtypes = ", ".join(f"{name} {size:,}" for name, size in self.bytes_by_dtype.items())
        return (
            text_table(("key", "tensors", "dtype", "shape", "bytes"), rows)
            + f"\n{self.parameters:,} parameters in {self.tensors:,} tensors, {self.nbytes:,} bytes ({dtypes})"
        )


def summarise(checkpoint: Checkpoint) -> CheckpointSummary:
    """Return the summary of an open checkpoint; no tensor is read."""
    infos = checkpoint.infos
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, info in infos.items():
        alike.setdefault((dtype_name(info.dtype), info.shape), []).append(name)
    order = {name: position for position, name in enumerate(infos)}
    groups = []
    for (dtype, shape), names in alike.items():
        for key, members in fold_keys(names).items():
            nbytes = sum(infos[name].nbytes for name in members)
            groups.append((order[members[0]], KeyGroup(key, dtype, shape, len(members), nbytes)))
    return CheckpointSummary(
        tensors=len(infos),
        parameters=sum(info.numel for info in infos.values()),
        nbytes=sum(info.nbytes for info in infos.values()),
        bytes_by_dtype={dtype_name(dtype): size for dtype, size in bytes_by_dtype(infos).items()},
        files={path.name: path.stat().st_size for path in checkpoint.files},
        keys=tuple(group for _, group in sorted(groups, key=lambda pair: pair[0])),
    )
