"""The index of a sharded checkpoint: which file holds which tensor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.checkpoint.diagnose import likely_cause
from modelwright.core.errors import CheckpointError


@dataclass(frozen=True)
class WeightIndex:
    """A sound index: `weight_map` from tensor name to file name, in the index's order; `metadata` as it was written."""

    path: Path
    metadata: Mapping[str, Any]
    weight_map: Mapping[str, str]

    @property
    def files(self) -> list[str]:
        """The sorted names of the files that it lists."""
        return sorted(set(self.weight_map.values()))


def read_index(path: Path) -> WeightIndex:
    """Read the index `path`; raises CheckpointError if it is not JSON, lacks a part, or lists a tensor twice."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: the index cannot be read: {error.strerror or error}") from error

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found and found[name] != value:
                raise CheckpointError(
                    f"{path}: the index lists {name!r} twice, as {found[name]!r} and as {value!r}. It cannot be known "
                    "which is meant. Save or fetch the checkpoint again."
                )
            found[name] = value
        return found

    try:
        index = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the index is not JSON ({error}), {len(data):,} bytes. {likely_cause(path, data[:512], len(data))}"
        ) from None
    for part in ("metadata", "weight_map"):
        if not isinstance(index, dict) or not isinstance(index.get(part), dict):
            raise CheckpointError(
                f"{path}: expected an index with the objects 'metadata' and 'weight_map', found no object "
                f"{part!r}. The file is not an index of shards or was cut by hand. Fetch or save the checkpoint again."
            )
    weight_map = index["weight_map"]
    if not weight_map:
        raise CheckpointError(f"{path}: the index lists no tensor. Fetch it again, or save the checkpoint again.")
    for name, filename in weight_map.items():
        if not isinstance(filename, str):
            raise CheckpointError(f"{path}: expected a file name for {name!r}, found {str(filename)[:100]!r}.")
    return WeightIndex(path, index["metadata"], weight_map)


def index_text(metadata: Mapping[str, Any], weight_map: Mapping[str, str]) -> str:
    """Return the text of an index: keys sorted, two spaces of indent, a line feed at the end, as upstream writes it."""
    return json.dumps({"metadata": dict(metadata), "weight_map": dict(weight_map)}, indent=2, sort_keys=True) + "\n"
