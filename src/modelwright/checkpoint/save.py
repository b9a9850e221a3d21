"""Save weights, and what belongs to them, so that the folder holds the old or the new checkpoint, never a mixture."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from modelwright.checkpoint import commit, fsops
from modelwright.checkpoint.index import index_text
from modelwright.checkpoint.lock import try_lock, writer_lock
from modelwright.checkpoint.manifest import FileRecord, Generation, Manifest, hash_file, read_manifest
from modelwright.checkpoint.sharding import Shard, plan_shards
from modelwright.checkpoint.sharing import compact_storages, drop_tied, overlapping, own_memory
from modelwright.checkpoint.transition import belongs_to_variant, make_transition
from modelwright.core.errors import CheckpointError, InputError, RepoError
from modelwright.core.logging import get_logger
from modelwright.hub.names import (
    JOURNAL_NAME,
    LOCK_NAME,
    MANIFEST_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    STAGING_PREFIX,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    add_variant,
    entry_names,
    is_weights_file,
)
from modelwright.hub.repo import check_filename

logger = get_logger(__name__)

_SPARE_BYTES = 1 << 20  # headers, the manifest, and what a file system takes for names


@dataclass(frozen=True)
class SaveReport:
    """What a save wrote: `files` in `folder`, `entry` among them, `total_size` bytes of tensors.

    `removed` are the files of the checkpoint before; `method` tells how it was committed: "new folder", "in order",
    "exchange" or "journal" (see `modelwright.checkpoint.commit`).
    """

    folder: Path
    entry: str
    files: tuple[str, ...]
    removed: tuple[str, ...]
    total_size: int
    method: str


@dataclass(frozen=True)
class _Job:
    """All that is to be written."""

    state_dict: Mapping[str, torch.Tensor]
    shards: Sequence[Shard]
    entry: str
    index: str | None
    extras: Mapping[str, str]
    variant: str | None
    save_function: Callable[..., Any] | None  # None: safetensors
    read: Callable[[str], torch.Tensor]

    @property
    def weights(self) -> list[str]:
        return [shard.filename for shard in self.shards] + ([self.entry] if self.index is not None else [])

    @property
    def total_size(self) -> int:
        return sum(shard.nbytes for shard in self.shards)


def save_checkpoint(
    state_dict: Mapping[str, torch.Tensor],
    folder: str | os.PathLike[str],
    *,
    max_shard_size: int | str = "5GB",
    variant: str | None = None,
    extra_files: Mapping[str, str] | None = None,
    safe: bool = True,
    save_function: Callable[..., Any] = torch.save,
    tied: Iterable[Sequence[str]] = (),
    total_parameters: int | None = None,
    read: Callable[[str], torch.Tensor] | None = None,
    lock_timeout: float = 600.0,
) -> SaveReport:
    """Write `state_dict` into `folder` with one commit point, and return what was written.

    The weights files and indexes of the same `variant` that were there, in either format, are replaced; those of other
    variants and all unrelated files stay. A manifest with sizes and hashes is written beside them.

    max_shard_size: bytes, or text such as "5GB" or "5GiB"; a larger tensor has a file of its own.
    extra_files: {name: text} of what belongs to the weights, such as config.json; committed together with them.
    safe: safetensors; otherwise .bin files by `save_function`.
    tied: groups of names that are one tensor; safetensors store it under the first. Tensors that share memory without
        being named here are all stored. A .bin file keeps all names, and stores shared memory once.
    total_parameters: what the index states; None counts the elements of the stored tensors.
    read: gives the values by name, file by file, so that not all are in memory at once; `state_dict` then only tells
        their shapes and dtypes, on meta. For safetensors.
    lock_timeout: seconds to wait for another writer in this folder.

    Raises InputError for arguments that cannot work, RepoError if `folder` is a file, CheckpointError if the disk is
    full, the folder is locked or a write fails: the folder then holds what it held before.
    """
    job = _job(
        state_dict, max_shard_size, variant, extra_files or {}, safe, save_function, tied, total_parameters, read
    )
    target = Path(folder).expanduser().resolve()
    if target.exists() and not target.is_dir():
        raise RepoError(f"{folder}: expected a folder to save in, found a file. Nothing was written.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepoError(f"{target.parent}: the folder cannot be created: {error.strerror or error}") from error
    _check_space(job, target)
    if not target.exists():
        report = _save_new(job, target)
        if report is not None:
            return report
    with writer_lock(target, timeout=lock_timeout):
        return _save_over(job, target)


def _job(
    state_dict: Mapping[str, torch.Tensor],
    max_shard_size: int | str,
    variant: str | None,
    extras: Mapping[str, str],
    safe: bool,
    save_function: Callable[..., Any],
    tied: Iterable[Sequence[str]],
    total_parameters: int | None,
    read: Callable[[str], torch.Tensor] | None,
) -> _Job:
    for name, tensor in state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"state_dict: expected tensors, got a {type(tensor).__name__} under {name!r}.")
        if tensor.is_meta and read is None:
            raise InputError(f"state_dict: {name!r} is on the meta device and has no values to save.")
    for name in extras:
        if Path(check_filename("extra_files", name)).name != name or is_weights_file(name) or name == MANIFEST_NAME:
            raise InputError(
                f"extra_files: expected the name of a file in the folder that is no weights file, got {name!r}."
            )
    # In a .bin file names may share memory; in safetensors each is stored by itself.
    stored = drop_tied(state_dict, tied) if safe else dict(state_dict)
    weights_name = add_variant(SAFE_WEIGHTS_NAME if safe else WEIGHTS_NAME, variant)
    together = {} if safe else overlapping(stored)
    shards = plan_shards(stored, max_shard_size, weights_name=weights_name, together=together)
    entry, index = weights_name, None
    if len(shards) > 1:
        entry = add_variant(SAFE_WEIGHTS_INDEX_NAME if safe else WEIGHTS_INDEX_NAME, variant)
        count = sum(tensor.numel() for tensor in stored.values()) if total_parameters is None else total_parameters
        metadata = {"total_parameters": count, "total_size": sum(shard.nbytes for shard in shards)}
        index = index_text(metadata, {name: shard.filename for shard in shards for name in shard.names})
    return _Job(
        stored, shards, entry, index, dict(extras), variant, None if safe else save_function, read or stored.__getitem__
    )


def _check_space(job: _Job, target: Path) -> None:
    place = target if target.exists() else target.parent
    needed = job.total_size + sum(map(len, job.extras.values())) + _SPARE_BYTES
    free = shutil.disk_usage(place).free
    if free < needed:
        raise CheckpointError(
            f"{target}: saving needs {needed:,} bytes on this disk (the old checkpoint stays until the new one is "
            f"complete), {free:,} are free. Nothing was changed. Free some space or save elsewhere."
        )


def _save_new(job: _Job, target: Path) -> SaveReport | None:
    """Build the folder under another name and rename it; None if somebody else has made the folder meanwhile."""
    stage = commit.new_sibling(target, for_new=True)
    descriptor: int | None = None
    try:
        commit.remove_dead_siblings(target)
        fsops.make_folder(stage)
        descriptor = try_lock(stage)
        records = _write_all(job, stage)
        manifest = _manifest_after(Manifest(), job, records)
        fsops.write_file(stage / MANIFEST_NAME, manifest.to_text().encode())
        fsops.remove(stage / LOCK_NAME)
        fsops.sync_folder(stage)
        try:
            fsops.replace(stage, target)
        except OSError:
            if target.exists():
                return None
            raise
        fsops.sync_folder(target.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise saving_failed(target, error, committed=False) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if stage.exists():
            fsops.remove_folder(stage)
    return SaveReport(target, job.entry, (*job.weights, *job.extras), (), job.total_size, "new folder")


def _save_over(job: _Job, target: Path) -> SaveReport:
    """Save into a folder that exists; needs its lock."""
    stage = target / f"{STAGING_PREFIX}{uuid.uuid4().hex[:12]}"
    committed: list[bool] = []
    try:
        commit.recover(target)
        fsops.make_folder(stage)
        records = _write_all(job, stage)
        present = {entry.name for entry in os.scandir(target) if entry.is_file() or entry.is_symlink()}
        unchanged = commit.same_text(target, job.extras)
        transition = make_transition(
            present,
            job.weights,
            job.entry,
            variant=job.variant,
            extras=job.extras,
            changed_extras=[name for name in job.extras if name not in unchanged],
        )
        before = _manifest_before(target, present, job, records)
        after = _manifest_after(before, job, records)
        done = lambda: committed.append(True)  # noqa: E731
        if transition.commit is not None:
            method = "in order"
            commit.in_order(target, stage, transition, before, after, done)
        elif commit.can_exchange(target, stage):
            method = "exchange"
            commit.by_exchange(target, stage, transition, after, done)
        else:
            method = "journal"
            commit.by_journal(target, stage, transition, after, done)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise saving_failed(target, error, committed=bool(committed)) from error
    finally:
        if stage.exists() and not (target / JOURNAL_NAME).exists():
            fsops.remove_folder(stage)
    return SaveReport(target, job.entry, (*job.weights, *job.extras), transition.remove, job.total_size, method)


def saving_failed(target: Path, error: Exception, *, committed: bool) -> CheckpointError:
    """Return the error of a save that failed, which says what the folder holds now."""
    if isinstance(error, CheckpointError):
        return error
    if committed:
        state = "The new checkpoint is complete and is what will be loaded; only tidying up is left to the next save."
    else:
        state = "The folder still holds what it held before."
    return CheckpointError(f"{target}: saving failed: {error}. {state}")


def _write_all(job: _Job, stage: Path) -> dict[str, FileRecord]:
    """Write every file into `stage`, on disk when this returns; return size and hash of each."""
    mode = fsops.mode_of_new_files(stage)
    for shard in job.shards:
        path = stage / shard.filename
        tensors = {name: job.read(name) for name in shard.names}
        if job.save_function is None:
            save_file(own_memory(tensors), path, metadata={"format": "pt"})
        else:
            job.save_function(compact_storages(tensors), path)
        fsops.sync_file(path, mode)
    for name, text in {**job.extras, **({job.entry: job.index} if job.index is not None else {})}.items():
        fsops.write_file(stage / name, text.encode())
    fsops.sync_folder(stage)
    return {name: hash_file(stage / name) for name in (*job.weights, *job.extras)}


def _manifest_before(target: Path, present: set[str], job: _Job, records: Mapping[str, FileRecord]) -> Manifest:
    """Return the manifest while the commit is under way: what is there is current, what comes is pending."""
    known = Manifest()
    if MANIFEST_NAME in present:
        try:
            known = read_manifest(target / MANIFEST_NAME)
        except CheckpointError as error:
            logger.warning("%s It is replaced.", error)
    variant = job.variant or ""
    current = {name: generation for name, generation in known.current.items() if name != variant}
    old = next((name for name in entry_names(job.variant) if name in present), None)
    if old is not None:
        found = [
            generation
            for generation in known.generations(job.variant)
            if generation.entry == old and generation.matches({name: target / name for name in generation.files})
        ]
        current[variant] = found[0] if found else Generation(old, _sizes(target, present, job.variant, old))
    return Manifest(current, {variant: Generation(job.entry, records)})


def _sizes(target: Path, present: set[str], variant: str | None, entry: str) -> dict[str, FileRecord]:
    """Return the records of a checkpoint that somebody else wrote: sizes only."""
    names = [entry]
    if entry.endswith(".json"):
        names += [name for name in present if belongs_to_variant(name, variant) and name not in entry_names(variant)]
    return {name: FileRecord((target / name).stat().st_size, None) for name in names}


def _manifest_after(before: Manifest, job: _Job, records: Mapping[str, FileRecord]) -> Manifest:
    """Return the manifest once the new files count; other variants share the new extra files."""
    current = {
        variant: Generation(
            generation.entry,
            {name: records[name] if name in job.extras else record for name, record in generation.files.items()},
        )
        for variant, generation in before.current.items()
    }
    return Manifest({**current, (job.variant or ""): Generation(job.entry, records)}, {})
