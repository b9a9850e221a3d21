"""Which tensor goes into which file: greedy, in the order of the names given, with upstream's file names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from modelwright.core.errors import InputError
from modelwright.hub.names import SAFE_WEIGHTS_NAME, shard_name

_UNITS = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("B", 1000), ("IB", 1024))
    for power, prefix in enumerate("KMGTP", start=1)
}


class Sized(Protocol):
    """A tensor or what is known of one."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        ...


@dataclass(frozen=True)
class Shard:
    """One file to be written: its name, the tensors in it, and their bytes (without the header)."""

    filename: str
    names: tuple[str, ...]
    nbytes: int


def parse_size(size: int | str, *, what: str = "max_shard_size") -> int:
    """Return the bytes that `size` means: a number, or text such as "5GB" (decimal) or "5GiB" (binary).

    Raises InputError, beginning with `what`, for anything else, and for sizes below one byte.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        number = size
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
        if match is None or match[2].upper() not in _UNITS:
            raise InputError(f'{what}: expected a number of bytes or text such as "5GB" or "5GiB", got {size!r}.')
        number = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if number < 1:
        raise InputError(f"{what}: expected at least 1 byte, got {size!r}.")
    return number


def plan_shards(
    infos: Mapping[str, Sized],
    max_shard_size: int | str,
    *,
    weights_name: str = SAFE_WEIGHTS_NAME,
    together: Mapping[tuple[str, ...], int] | None = None,
) -> list[Shard]:
    """Return the files for the tensors `infos`, none over `max_shard_size` bytes unless a single tensor is.

    One file is called `weights_name`, several are numbered. `together` are groups of names that must be in one file,
    with the bytes that each group takes (tensors that share memory). A tensor over the limit has a file of its own.
    """
    limit = parse_size(max_shard_size)
    group_of = {name: group for group in together or {} for name in group}
    closed: list[tuple[list[str], int]] = []
    names: list[str] = []
    size = 0
    placed: set[str] = set()
    for name, info in infos.items():
        if name in placed:
            continue
        group = group_of.get(name)
        members = [other for other in infos if other in group] if group else [name]
        nbytes = (together or {})[group] if group else info.nbytes
        placed.update(members)
        if nbytes > limit:
            closed.append((members, nbytes))
            continue
        if names and size + nbytes > limit:
            closed.append((names, size))
            names, size = [], 0
        names, size = names + members, size + nbytes
    if names or not closed:
        closed.append((names, size))
    if len(closed) == 1:
        return [Shard(weights_name, tuple(closed[0][0]), closed[0][1])]
    return [
        Shard(shard_name(weights_name, index, len(closed)), tuple(members), nbytes)
        for index, (members, nbytes) in enumerate(closed)
    ]
