"""Byte-level BPE in Python: a word of byte letters is merged pair by pair, the best merge first (Sennrich 2016)."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise


def byte_letters() -> dict[int, str]:
    """Return the printable letter that stands for each byte (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}


class ByteBpe:
    """The merges of a vocabulary, applied to one word at a time."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.split = lru_cache(maxsize=65536)(self._split)

    def _split(self, word: str) -> tuple[str, ...]:
        parts = list(word)
        while len(parts) > 1:
            pairs = pairwise(parts)
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged: list[str] = []
            at = 0
            while at < len(parts):
                both = at + 1 < len(parts) and (parts[at], parts[at + 1]) == best
                merged.append(parts[at] + parts[at + 1] if both else parts[at])
                at += 2 if both else 1
            parts = merged
        return tuple(parts)
