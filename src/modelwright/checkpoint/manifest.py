"""The manifest: what the last save of ours wrote, by size and SHA-256. Other libraries ignore it.

It is written before a commit with the files of the old (`current`) and the new (`pending`) checkpoint, and after
it with the new one only. So at every moment it can be told which files belong together, and what somebody else has
changed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import CheckpointError
from modelwright.hub.names import is_weights_file


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file; the hash is None for a file that somebody else wrote."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Generation:
    """The files of one checkpoint: `entry` is the weights file or index that it starts from."""

    entry: str
    files: Mapping[str, FileRecord]

    def matches(self, path_of: Mapping[str, Path | None]) -> bool:
        """Tell whether every weights file is there with the recorded size; `path_of` gives the path of each name."""
        for name, record in self.files.items():
            if not is_weights_file(name):
                continue  # a config may be edited by hand
            path = path_of.get(name)
            if path is None or not path.is_file() or path.stat().st_size != record.size:
                return False
        return True


@dataclass(frozen=True)
class Manifest:
    """By variant ("" is the default one): the current generation, and during a save the pending one."""

    current: Mapping[str, Generation] = field(default_factory=dict)
    pending: Mapping[str, Generation] = field(default_factory=dict)

    def generations(self, variant: str | None) -> list[Generation]:
        """Return the generations of `variant`: none, the current one, or the current and the pending one."""
        return [part[variant or ""] for part in (self.current, self.pending) if (variant or "") in part]

    def to_text(self) -> str:
        """Return the file's content."""

        def plain(part: Mapping[str, Generation]) -> dict[str, Any]:
            return {
                variant: {
                    "entry": generation.entry,
                    "files": {
                        name: {"size": record.size, "sha256": record.sha256}
                        for name, record in sorted(generation.files.items())
                    },
                }
                for variant, generation in sorted(part.items())
            }

        value = {"version": 1, "current": plain(self.current), "pending": plain(self.pending)}
        return json.dumps(value, indent=2) + "\n"


def hash_file(path: Path) -> FileRecord:
    """Return size and SHA-256 of the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(file.tell(), digest)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest `path`; raises CheckpointError if it is not sound."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != 1:
            raise ValueError(f"version {value['version']!r} is not known here")
        return Manifest(_generations(value["current"]), _generations(value["pending"]))
    except OSError as error:
        raise CheckpointError(f"{path}: the manifest cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected a manifest of modelwright, found something else ({error!r}). It only serves to check "
            "the other files; delete it if you trust them."
        ) from None


def _generations(value: dict[str, Any]) -> dict[str, Generation]:
    return {
        variant: Generation(
            str(generation["entry"]),
            {
                str(name): FileRecord(int(record["size"]), record["sha256"])
                for name, record in generation["files"].items()
            },
        )
        for variant, generation in value.items()
    }
