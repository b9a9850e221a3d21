"""Checkpoints of sharded training, by torch.distributed.checkpoint: every process writes what it holds.

The files are safetensors, `shard-00001-model-00001-of-00002.safetensors`, as transformers 5 writes them too; a tensor's
pieces, and where in it each begins, are in their headers. (torch's own file format has a pickle in it, which runs
whatever its author wants.)
"""

import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelwright.checkpoint import fsops
from modelwright.checkpoint.headers import CheckpointBase, TensorInfo
from modelwright.checkpoint.lock import try_lock
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.save_together import save_together
from modelwright.checkpoint.transition import belongs_to_variant
from modelwright.core.errors import CheckpointError
from modelwright.hub.names import STAGING_PREFIX, is_distributed_shard

_INFO = "DCP_SHARDING_INFO"


@dataclass(frozen=True)
class _Piece:
    file: SafetensorsFile
    offsets: tuple[int, ...]
    shape: tuple[int, ...]


class DistributedCheckpoint(CheckpointBase):
    """The tensors whose pieces are in the files `paths`; raises CheckpointError unless they make up whole tensors."""

    def __init__(self, paths: Sequence[Path], *, mmap: bool = True) -> None:
        self._files = [SafetensorsFile(path, mmap=mmap) for path in paths]
        self._pieces: dict[str, list[_Piece]] = {}
        for file in self._files:
            offsets = _offsets(file)
            for name, info in file.infos.items():
                piece = _Piece(file, offsets.get(name, (0,) * len(info.shape)), info.shape)
                pieces = self._pieces.setdefault(name, [])
                if piece.offsets not in {other.offsets for other in pieces}:  # what several processes hold alike
                    pieces.append(piece)
        self.infos: Mapping[str, TensorInfo] = {name: _whole(name, pieces) for name, pieces in self._pieces.items()}
        self.files = tuple(paths)

    def read(self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor `name`; see `Checkpoint.read`."""
        first, *others = self._pieces[name]
        if not others:
            return first.file.read(name, device, dtype)
        info = self.infos[name]
        tensor = torch.empty(info.shape, dtype=dtype or info.dtype, device=device)
        for piece in (first, *others):
            place = tuple(slice(at, at + size) for at, size in zip(piece.offsets, piece.shape, strict=True))
            tensor[place] = piece.file.read(name, device, dtype)
        return tensor

    def read_later(
        self, name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Return the tensor `name`, whose values may come later if it is in one piece; see `Checkpoint.read_later`."""
        first, *others = self._pieces[name]
        return self.read(name, device, dtype) if others else first.file.read_later(name, device, dtype)

    def finish(self) -> None:
        """Give all tensors of `read_later` their values."""
        for file in self._files:
            file.finish()

    def maps(self, name: str, dtype: torch.dtype | None = None) -> bool:
        """Tell whether `read(name, "cpu", dtype)` returns a map of the file."""
        first, *others = self._pieces[name]
        return not others and first.file.maps(name, dtype)

    def close(self) -> None:
        """Release the files; tensors already read stay valid."""
        for file in self._files:
            file.close()


def save_distributed(
    state_dict: Mapping[str, torch.Tensor], folder: str | os.PathLike[str], *, extra_files: Mapping[str, str]
) -> None:
    """Write what this process holds of `state_dict` into `folder`; every process of the group must call it.

    The first process commits all files, and `extra_files` ({name: text}), together, and removes the weights that they
    replace. Without a process group this one writes all. Raises RepoError or CheckpointError if that fails.
    """
    from torch import distributed
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    group = distributed.is_available() and distributed.is_initialized()
    target = Path(folder).expanduser().resolve()
    name = [f".{target.name}{STAGING_PREFIX}{uuid.uuid4().hex[:12]}"]
    if group:
        distributed.broadcast_object_list(name, src=0)
    stage = target.with_name(name[0])
    first = not group or distributed.get_rank() == 0
    if first:
        target.parent.mkdir(parents=True, exist_ok=True)
        fsops.make_folder(stage)
    lock = try_lock(stage) if first else None  # as long as it is held, no other save takes the stage for a dead one's
    try:
        if group:
            distributed.barrier()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            writer = HuggingFaceStorageWriter(str(stage), save_distributed=True)
            save(dict(state_dict), storage_writer=writer, no_dist=not group)
        if first:
            _commit(stage, target, extra_files)
        if group:
            distributed.barrier()
    finally:
        if first and stage.exists():
            fsops.remove_folder(stage)
        if lock is not None:
            os.close(lock)


def _commit(stage: Path, target: Path, texts: Mapping[str, str]) -> None:
    writers: dict[str, Callable[[Path], object]] = {
        path.name: partial(fsops.replace, path) for path in sorted(stage.iterdir()) if is_distributed_shard(path.name)
    }
    writers |= {name: partial(fsops.write_file, data=text.encode()) for name, text in texts.items()}
    there = [path.name for path in target.iterdir()] if target.is_dir() else []
    save_together(target, writers, stale=[name for name in there if belongs_to_variant(name, None)])


def _offsets(file: SafetensorsFile) -> dict[str, tuple[int, ...]]:
    """Return where in its tensor each piece of `file` begins."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        stated: Any = json.loads(file.metadata[_INFO])
        for name, info in file.infos.items():
            offsets = tuple(stated[name]["saved_offsets"])
            if len(offsets) != len(info.shape) or not all(type(at) is int and at >= 0 for at in offsets):
                raise ValueError(f"the offsets {offsets} for {name!r} of shape {list(info.shape)}")
            found[name] = offsets
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file.files[0]}: expected the piece of a distributed checkpoint, which says under {_INFO!r} where its "
            f"tensors begin, found something else ({error!r}). Save or fetch the checkpoint again."
        ) from None
    return found


def _whole(name: str, pieces: Sequence[_Piece]) -> TensorInfo:
    infos = [piece.file.infos[name] for piece in pieces]
    ends = zip(*([at + size for at, size in zip(piece.offsets, piece.shape, strict=True)] for piece in pieces),
               strict=True)  # fmt: skip
    alike = {(info.dtype, len(info.shape)) for info in infos}
    shape = tuple(map(max, ends)) if len(alike) == 1 else ()
    whole = replace(infos[0], shape=shape, nbytes=sum(info.nbytes for info in infos))
    if len(alike) > 1 or whole.numel != sum(info.numel for info in infos):
        raise CheckpointError(
            f"{infos[0].file.parent}: the pieces of {name!r} make up {sum(info.numel for info in infos):,} elements, "
            f"expected the {whole.numel:,} of its shape {list(shape)}: a file is missing, or of another save. Save or "
            "fetch the checkpoint again."
        )
    return whole
