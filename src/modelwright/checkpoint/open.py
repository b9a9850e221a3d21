"""From a repository to an open checkpoint: which files it consists of, and that they belong together."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from modelwright.checkpoint.bin_file import BinFile
from modelwright.checkpoint.distributed import DistributedCheckpoint
from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.index import read_index
from modelwright.checkpoint.manifest import Manifest, read_manifest
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.safetensors_header import file_identity
from modelwright.checkpoint.sharded import ShardedCheckpoint
from modelwright.core.errors import CheckpointError, RepoError
from modelwright.core.logging import get_logger
from modelwright.hub.names import (
    MANIFEST_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_NAME,
    entry_names,
    is_distributed_shard,
    is_weights_file,
)
from modelwright.hub.repo import Repo

logger = get_logger(__name__)

_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".index.json", ".h5", ".msgpack", ".ckpt", ".pt", ".gguf")
_ATTEMPTS = 20  # a save of ours that runs at the same time changes the files at a few moments only


@dataclass(frozen=True)
class WeightsSource:
    """The files of a checkpoint: `entry` is the weights file or index; `leftovers` are entries that do not count.

    `distributed`: the files are pieces that processes have written; `entry` is the first of them.
    """

    entry: str
    files: tuple[str, ...]
    sharded: bool
    safe: bool
    leftovers: tuple[str, ...] = ()
    distributed: bool = False


def open_checkpoint(
    repo: Repo, *, variant: str | None = None, use_safetensors: bool | None = None, mmap: bool = True
) -> Checkpoint:
    """Open the weights of `repo` in upstream's order: model.safetensors, its index, pytorch_model.bin, its index.

    If there are none of these, the pieces of a distributed checkpoint.

    `use_safetensors`: True allows only safetensors, False only .bin, None both. `mmap` lets tensors on the CPU be
    private maps of the file (see `SafetensorsFile`). Raises CheckpointError if there are no weights, if two sets of
    weights contradict each other, or if a file is not sound; RepoError if an index points outside the repository.
    """
    for attempt in range(_ATTEMPTS):
        before = _snapshot(repo)
        try:
            source = find_weights(repo, variant=variant, use_safetensors=use_safetensors)
            checkpoint = _open(repo, source, mmap)
        except OSError as error:
            if _snapshot(repo) != before and attempt + 1 < _ATTEMPTS:
                time.sleep(0.01 * attempt)  # a save was at work; what it left is what counts
                continue
            if isinstance(error, CheckpointError | RepoError):
                raise
            raise CheckpointError(f"{repo}: the weights cannot be opened: {error}") from error
        if _snapshot(repo) == before:
            if source.leftovers:
                left = ", ".join(source.leftovers)
                logger.warning("%s: reads %s; not used beside it: %s", repo, source.entry, left)
            return checkpoint
        checkpoint.close()
    raise CheckpointError(f"{repo}: the weights were replaced again and again while they were being opened.")


def _snapshot(repo: Repo) -> dict[str, tuple[int, ...] | None]:
    """Return which weights files there are, and what changes when one is replaced or written to."""
    if repo.commit_hash is not None:
        return {}  # the files of a commit never change
    found: dict[str, tuple[int, ...] | None] = {}
    for name in repo.files():
        if is_weights_file(name) or name == MANIFEST_NAME:
            try:
                found[name] = file_identity(repo.path(name).stat())
            except OSError:
                found[name] = None
    return found


def _open(repo: Repo, source: WeightsSource, mmap: bool) -> Checkpoint:
    def open_file(path: Path) -> Checkpoint:
        return SafetensorsFile(path, mmap=mmap) if source.safe else BinFile(path, mmap=mmap)

    if source.distributed:
        return DistributedCheckpoint([repo.path(name, contained=True) for name in source.files], mmap=mmap)
    path = repo.path(source.entry)
    if not source.sharded:
        return open_file(path)
    return ShardedCheckpoint(read_index(path), lambda name: _path(repo, source, name), open_file)


def _path(repo: Repo, source: WeightsSource, name: str) -> Path:
    return repo.path(name) if name == source.entry else shard_path(repo, repo.path(source.entry), name)


def shard_path(repo: Repo, index: Path, name: str) -> Path:
    """Return the path of the shard `name`, which the file `index` lists; raises RepoError that says so."""
    try:
        return repo.path(name, contained=True)
    except RepoError as error:
        raise RepoError(f"{index}: the index lists the shard {name!r}, which cannot be used. {error}") from error


def find_weights(repo: Repo, *, variant: str | None = None, use_safetensors: bool | None = None) -> WeightsSource:
    """Return which files `open_checkpoint` would open, in the same order and with the same errors."""
    names = entry_names(variant)
    wanted = {None: names, True: names[:2], False: names[2:]}[use_safetensors]
    present = [name for name in wanted if repo.has(name)]
    pieces = (
        tuple(filter(is_distributed_shard, repo.files())) if variant is None and use_safetensors is not False else ()
    )
    if not present and pieces:
        return WeightsSource(pieces[0], pieces, sharded=True, safe=True, distributed=True)
    if not present:
        raise CheckpointError(_nothing_found(repo, variant, use_safetensors))
    first, others = present[0], present[1:]
    safe, sharded = first in names[:2], first in (names[1], names[3])
    twin = names[1] if safe else names[3]
    if not sharded and twin in others:
        _check_mixture(repo, variant, first, twin)
    files = (first, *read_index(repo.path(first)).files) if sharded else (first,)
    same_format = pieces + tuple(name for name in others if (name in names[:2]) == safe)
    return WeightsSource(first, files, sharded, safe, same_format)


def _check_mixture(repo: Repo, variant: str | None, single: str, index: str) -> None:
    """Raise CheckpointError unless a save of ours explains why a single file and an index are both there.

    In the middle of such a save both belong to a generation of the manifest, and the single file is what counts (also
    for every other library). Nor do they contradict each other if the index lists that file only. Otherwise one of the
    two is stale, and nobody can know which.
    """
    if read_index(repo.path(index)).files == [single]:
        return
    manifest = read_manifest(repo.path(MANIFEST_NAME)) if repo.has(MANIFEST_NAME) else Manifest()
    known = set()
    for generation in manifest.generations(variant):
        paths = {name: repo.path(name) if repo.has(name) else None for name in generation.files}
        if generation.matches(paths):
            known.add(generation.entry)
    if {single, index} <= known:
        return
    hint = f" The manifest of the last save knows {' and '.join(sorted(known))} only." if known else ""
    place = "" if repo.commit_hash is None else " in a local copy of the repository"
    raise CheckpointError(
        f"{repo}: both {single} and {index} are there, and they are different checkpoints: somebody saved sharded "
        f"over single or the reverse and the old files stayed.{hint} Delete the one that is out of date ({single}, or "
        f"{index} with its shards){place} and load again."
    )


def _nothing_found(repo: Repo, variant: str | None, use_safetensors: bool | None) -> str:
    names = entry_names(variant)
    wanted = {None: names, True: names[:2], False: names[2:]}[use_safetensors]
    there = repo.files()
    message = f"{repo}: expected one of {', '.join(wanted)}, found "
    weights = [name for name in there if name.endswith(_WEIGHTS_SUFFIXES)]
    message += (
        f"the weights files {', '.join(weights[:6])}." if weights else f"no weights among its {len(there)} files."
    )
    others = set(names) - set(wanted)
    if others & set(there):
        message += f" use_safetensors={use_safetensors} excludes {', '.join(sorted(others & set(there)))}."
    elif variant is not None and set(entry_names(None)) & set(there):
        message += " There are weights without a variant: use variant=None."
    elif variants := find_variants(there):
        message += f" There are weights of the variants {', '.join(variants)}: name one with variant=."
    elif any(name.endswith((".h5", ".msgpack", ".ckpt")) for name in there):
        message += " TensorFlow and Flax weights cannot be read; convert them to safetensors first."
    return message


def find_variants(files: list[str]) -> list[str]:
    """Return the variants of which `files` hold an entry."""
    found = set()
    for name in files:
        for base in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME):
            stem, _, extension = base.rpartition(".")
            middle = name.removeprefix(stem + ".").removesuffix("." + extension)
            if name == f"{stem}.{middle}.{extension}" and re.fullmatch(r"(?!.*-\d{5}-of-\d{5}$)[\w+-]+", middle):
                found.add(middle)
            middle = name.removeprefix(base + ".index.").removesuffix(".json")
            if name == f"{base}.index.{middle}.json":
                found.add(middle)
    return sorted(found)
