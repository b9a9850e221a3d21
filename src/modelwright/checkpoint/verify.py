"""Is this folder's checkpoint whole and sound? Structure always, contents where a hash is known."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelwright.checkpoint.bin_file import BinFile
from modelwright.checkpoint.distributed import DistributedCheckpoint
from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.index import WeightIndex, read_index
from modelwright.checkpoint.manifest import FileRecord, Manifest, read_manifest
from modelwright.checkpoint.open import find_variants, find_weights, shard_path
from modelwright.checkpoint.report import text_table
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.sharded import ShardedCheckpoint
from modelwright.checkpoint.transition import belongs_to_variant
from modelwright.core.errors import CheckpointError, RepoError
from modelwright.hub.local import LocalRepo
from modelwright.hub.names import (
    JOURNAL_NAME,
    MANIFEST_NAME,
    STAGING_PREFIX,
    entry_names,
    is_distributed_shard,
    is_weights_file,
)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong ("error") or odd ("warning") with `file`."""

    severity: Literal["error", "warning"]
    file: str
    message: str


@dataclass(frozen=True)
class FileStatus:
    """One file of the checkpoint: `size` in bytes (None: missing), `tensors` in it, and how its content was checked.

    `checked` is "sha256 (manifest)", "sha256 (hub)", "size" or "structure"; `ok` tells whether that held.
    """

    name: str
    size: int | None
    tensors: int | None
    checked: str
    ok: bool


@dataclass
class VerifyReport:
    """`ok` if there is no error among the `findings`; `files` has one row for each file of the checkpoint."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    files: list[FileStatus] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the checkpoint can be trusted as far as it could be checked."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "folder": str(self.folder),
            "ok": self.ok,
            "findings": [vars(finding) for finding in self.findings],
            "files": [vars(status) for status in self.files],
        }

    def __str__(self) -> str:
        rows = [
            (
                status.name,
                "missing" if status.size is None else f"{status.size:,}",
                "" if status.tensors is None else status.tensors,
                status.checked,
                "ok" if status.ok else "BAD",
            )
            for status in self.files
        ]
        lines = [text_table(("file", "bytes", "tensors", "checked by", "state"), rows)] if rows else []
        lines += [f"{finding.severity}: {finding.message}" for finding in self.findings]
        return "\n".join([*lines, f"{self.folder}: {'sound' if self.ok else 'NOT SOUND'}"])


def verify(
    folder: str | os.PathLike[str], *, variant: str | None = None, hashes: bool = True, strict: bool = False
) -> VerifyReport:
    """Check the checkpoints in `folder` and return what was found; nothing is changed.

    Always: every header is sound, an index and its shards hold exactly the same tensors, nothing points out of the
    folder. With `hashes`, every file is read and compared with the manifest of our last save, or in a Hub cache with
    the hash that is its name there; without, sizes only. `variant` None checks all variants there are, "" the weights
    without one. `strict` makes
    errors of warnings about files that somebody else has changed, leftovers, and links that leave the folder. Raises
    RepoError if `folder` is no folder.
    """
    repo = LocalRepo(folder)
    report = VerifyReport(repo.folder)
    note = _Notes(report, strict)
    manifest = Manifest()
    if repo.has(MANIFEST_NAME):
        try:
            manifest = read_manifest(repo.path(MANIFEST_NAME))
        except CheckpointError as error:
            note.odd(MANIFEST_NAME, str(error))
    there = repo.files()
    variants: list[str | None] = [variant or None] if variant is not None else []
    if variant is None:
        known: list[str | None] = [name or None for name in (*manifest.current, *manifest.pending)]
        variants = list(dict.fromkeys([*_default(there), *find_variants(there), *known])) or [None]
    names: list[str] = []
    counts: dict[str, int] = {}
    for one in variants:
        names += _check_structure(repo, one, note, counts)
    records = _records(repo, manifest, variants)
    names += [name for name in records if name not in names]
    for name in dict.fromkeys(names):
        report.files.append(_check_file(repo, name, records.get(name), counts.get(name), hashes, note))
    _check_leftovers(repo, there, names, variants, note)
    return report


def require_verified(folder: Path, variant: str | None, *, hashes: bool) -> None:
    """Raise CheckpointError unless the checkpoint of `variant` in `folder` is sound and what is known of it holds.

    With `hashes`, a weights file of which no hash is known is an error too.
    """
    report = verify(folder, variant=variant or "", hashes=hashes)
    errors = [finding.message for finding in report.findings if finding.severity == "error"]
    if errors:
        raise CheckpointError("\n".join(errors))
    unknown = [status.name for status in report.files if is_weights_file(status.name) and "(" not in status.checked]
    if hashes and unknown:
        raise CheckpointError(
            f"{folder}: verify='hash': no hash is known of {', '.join(unknown)}. What modelwright has saved has a "
            f"{MANIFEST_NAME}, what is in a hub cache has hashes as names. Load with verify='size' to do without."
        )


class _Notes:
    def __init__(self, report: VerifyReport, strict: bool) -> None:
        self.report = report
        self.strict = strict

    def bad(self, file: str, message: str) -> None:
        if all(finding.message != message for finding in self.report.findings):
            self.report.findings.append(Finding("error", file, message))

    def odd(self, file: str, message: str) -> None:
        self.report.findings.append(Finding("error" if self.strict else "warning", file, message))


def _default(there: list[str]) -> list[str | None]:
    return [None] if any(name in there for name in entry_names(None)) else []


def _check_structure(repo: LocalRepo, variant: str | None, note: _Notes, counts: dict[str, int]) -> list[str]:
    """Open every file of the checkpoint, note every fault, and return the names of its files."""
    present = [name for name in entry_names(variant) if repo.has(name)]
    try:
        find_weights(repo, variant=variant)
    except (CheckpointError, RepoError) as error:
        note.bad(present[0] if present else "", str(error))
    names: list[str] = []
    if not present and variant is None:
        names += _check_pieces(repo, note, counts)
    for entry in present:
        names.append(entry)
        safe = entry in entry_names(variant)[:2]
        if not entry.endswith(".json"):
            _open_file(repo, entry, safe, note, counts)
            continue
        try:
            index = read_index(repo.path(entry))
        except CheckpointError as error:
            note.bad(entry, str(error))
            continue
        names += index.files
        _check_shards(repo, index, safe, note, counts)
    return names


def _check_pieces(repo: LocalRepo, note: _Notes, counts: dict[str, int]) -> list[str]:
    """Open the files of a distributed checkpoint, note every fault, and return their names."""
    names = [name for name in repo.files() if is_distributed_shard(name)]
    opened = [_open_file(repo, name, True, note, counts) for name in names]
    if names and None not in opened:
        try:
            DistributedCheckpoint([repo.path(name) for name in names]).close()
        except CheckpointError as error:
            note.bad(names[0], str(error))
    return names


def _check_shards(repo: LocalRepo, index: WeightIndex, safe: bool, note: _Notes, counts: dict[str, int]) -> None:
    opened: dict[Path, Checkpoint] = {}
    paths: dict[str, Path] = {}
    for name in index.files:
        try:
            paths[name] = shard_path(repo, index.path, name)
        except RepoError as error:
            note.bad(name, str(error))
            continue
        checkpoint = _open_file(repo, name, safe, note, counts)
        if checkpoint is not None:
            opened[paths[name]] = checkpoint
    if len(opened) != len(index.files):
        return
    try:
        with ShardedCheckpoint(index, paths.__getitem__, opened.__getitem__) as whole:
            stored = sum(info.nbytes for info in whole.infos.values())
    except CheckpointError as error:
        note.bad(index.path.name, str(error))
        return
    stated = index.metadata.get("total_size")
    if isinstance(stated, int) and stated != stored and safe:
        note.odd(
            index.path.name, f"{index.path}: it states a total_size of {stated:,} bytes, the shards hold {stored:,}."
        )


def _open_file(
    repo: LocalRepo, name: str, safe: bool, note: _Notes, counts: dict[str, int]
) -> SafetensorsFile | BinFile | None:
    try:
        checkpoint = SafetensorsFile(repo.path(name)) if safe else BinFile(repo.path(name))
    except (CheckpointError, RepoError) as error:
        note.bad(name, str(error))
        return None
    counts[name] = len(checkpoint.infos)
    return checkpoint


def _records(repo: LocalRepo, manifest: Manifest, variants: list[str | None]) -> Mapping[str, tuple[FileRecord, ...]]:
    """Return for each recorded file what it may be: in the middle of a save, the old or the new one.

    What counts is the generation that a loader would read; if none is recognised, all that are known.
    """
    records: dict[str, tuple[FileRecord, ...]] = {}
    for variant in variants:
        generations = manifest.generations(variant)
        matching = [one for one in generations if one.matches({name: _path(repo, name) for name in one.files})]
        entry = next((name for name in entry_names(variant) if repo.has(name)), None)
        for one in [one for one in matching if one.entry == entry] or generations:
            for name, record in one.files.items():
                records[name] = (*records.get(name, ()), record)
    return records


def _check_file(
    repo: LocalRepo,
    name: str,
    records: tuple[FileRecord, ...] | None,
    tensors: int | None,
    hashes: bool,
    note: _Notes,
) -> FileStatus:
    path = _path(repo, name)
    # A config may be edited by hand; weights may not.
    complain = note.bad if is_weights_file(name) else note.odd
    if path is None:
        complain(name, f"{repo.folder / name}: the file is missing.")
        return FileStatus(name, None, None, "size", False)
    size = path.stat().st_size
    structure_ok = all(finding.file != name or finding.severity == "warning" for finding in note.report.findings)
    if path.is_symlink() and not path.resolve().is_relative_to(repo.boundary()):
        note.odd(name, f"{path}: it is a link that leaves the folder, to {path.resolve()}.")
    hub = _hub_hash(path)
    wanted = {record.sha256 for record in records or () if record.sha256}
    if records and size not in {record.size for record in records}:
        expected = " or ".join(f"{record.size:,}" for record in records)
        complain(name, f"{path}: expected {expected} bytes by the manifest, found {size:,}. {_changed(path, repo)}")
        return FileStatus(name, size, tensors, "size", False)
    if hashes and wanted:
        with path.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() in wanted
        if not good:
            complain(
                name,
                f"{path}: its {size:,} bytes are not those of the manifest (other SHA-256). {_changed(path, repo)}",
            )
        return FileStatus(name, size, tensors, "sha256 (manifest)", structure_ok and good)
    if hashes and hub is not None:
        good = _digest(path, hub) == hub
        if not good:
            note.bad(
                name, f"{path}: its content is not what the Hub has under this name (other hash). Download it again."
            )
        return FileStatus(
            name, size, tensors, "sha256 (hub)" if len(hub) == 64 else "git hash (hub)", structure_ok and good
        )
    return FileStatus(name, size, tensors, "size" if records else "structure", structure_ok)


def _changed(path: Path, repo: LocalRepo) -> str:
    manifest = _path(repo, MANIFEST_NAME)
    if manifest is not None and path.stat().st_mtime_ns > manifest.stat().st_mtime_ns + 2_000_000_000:
        return (
            "It is newer than the manifest: another program has written it since our last save. If that was meant, "
            f"delete {MANIFEST_NAME}."
        )
    return "Bits were changed on the disk or in a copy. Fetch or save it again."


def _hub_hash(path: Path) -> str | None:
    """Return the hash that names the blob behind a link of a Hub cache: SHA-256 of large files, git's of the others."""
    if not path.is_symlink():
        return None
    target = path.resolve()
    is_hash = len(target.name) in (40, 64) and all(char in "0123456789abcdef" for char in target.name)
    return target.name if target.parent.name == "blobs" and is_hash else None


def _digest(path: Path, like: str) -> str:
    with path.open("rb") as file:
        if len(like) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        for piece in iter(lambda: file.read(1 << 20), b""):
            git.update(piece)
        return git.hexdigest()


def _check_leftovers(
    repo: LocalRepo, there: list[str], names: list[str], variants: list[str | None], note: _Notes
) -> None:
    for name in _leftovers(repo, there, names, variants):
        note.odd(
            name, f"{repo.folder / name}: left over from another save; nothing reads it. The next save removes it."
        )
    if (repo.folder / JOURNAL_NAME).exists():
        note.odd(
            JOURNAL_NAME,
            f"{repo.folder}: a save was interrupted after its commit. modelwright reads the new checkpoint; for other "
            "libraries, save once more (or move the files of the staging folder into place).",
        )


def _leftovers(repo: LocalRepo, there: list[str], names: list[str], variants: list[str | None]) -> Iterator[str]:
    for name in there:
        if name not in names and any(belongs_to_variant(name, variant) for variant in variants):
            yield name
    if not (repo.folder / JOURNAL_NAME).exists():
        yield from sorted(entry.name for entry in os.scandir(repo.folder) if entry.name.startswith(STAGING_PREFIX))


def _path(repo: LocalRepo, name: str) -> Path | None:
    try:
        return repo.path(name)
    except RepoError:
        return None
