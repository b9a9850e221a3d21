"""Training text: the bytes of one or more files, memory-mapped, and the windows that are cut from them.

The files are read as one text, in the order given, so a window may span two of them. The end of the text is held out:

    |<------------- training windows start and end here ------------->|<--- held out --->|
    0                                                            train_end             total

A training window is a pure function of (seed, step, row): the position in the data is the step, nothing else.
"""

import bisect
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import InputError, ModelwrightError, RepoError

Bytes = npt.NDArray[np.uint8]


class TextBytes:
    """The bytes of `paths`, one after the other, mapped into memory and read only where they are asked for.

    Raises InputError for no file or an empty one, RepoError for a file that is missing or cannot be read.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.paths = [Path(path).expanduser() for path in paths]
        if not self.paths:
            raise InputError("Training text: expected at least one file (--text FILE), got none.")
        self._maps = [_map_file(path) for path in self.paths]
        self._starts = [0]
        for mapped in self._maps:
            self._starts.append(self._starts[-1] + len(mapped))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, length: int) -> Bytes:
        """Return a copy of the `length` bytes from `start`, across files where the range crosses them."""
        assert 0 <= start <= start + length <= len(self), (start, length, len(self))
        out = np.empty(length, dtype=np.uint8)
        filled = 0
        number = bisect.bisect_right(self._starts, start) - 1
        while filled < length:
            offset = start + filled - self._starts[number]
            piece = self._maps[number][offset : offset + length - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            number += 1
        return out

    def identity(self) -> dict[str, Any]:
        """Return what tells this text from another: its size in bytes and the sha256 of all of it (it is all read)."""
        digest = hashlib.sha256()
        block = 1 << 24
        for start in range(0, len(self), block):
            digest.update(self.read(start, min(block, len(self) - start)).data)
        return {"bytes": len(self), "sha256": digest.hexdigest()}


def _map_file(path: Path) -> Bytes:
    try:
        if path.is_dir():
            raise RepoError(f"Training text {path}: expected a file, found a folder.")
        if path.stat().st_size == 0:
            raise InputError(f"Training text {path}: expected some bytes, found an empty file.")
        return np.memmap(path, dtype=np.uint8, mode="r")
    except ModelwrightError:
        raise
    except FileNotFoundError:
        raise RepoError(f"Training text {path}: there is no such file.") from None
    except OSError as error:  # no permission, a name that is too long, a loop of links, a file in the place of a folder
        raise RepoError(f"Training text {path}: cannot be read: {error.strerror or error}.") from error


@dataclasses.dataclass(frozen=True)
class Split:
    """Where the training part ends and the held-out part begins, and the end of both, in bytes."""

    train_end: int
    total: int

    @property
    def held_out(self) -> int:
        """Bytes that training never reads."""
        return self.total - self.train_end


def split_text(total: int, *, held_out: float, window: int) -> Split:
    """Hold out the last `held_out` fraction of `total` bytes; raises InputError if no window fits before it."""
    split = Split(train_end=total - max(1, round(total * held_out)), total=total)
    if split.train_end < window:
        raise InputError(
            f"Training text: {total:,} bytes, of which the last {split.held_out:,} are held out, leave "
            f"{split.train_end:,} for training, fewer than one window of {window:,}: give more text or a smaller "
            "--window."
        )
    return split


def window_start(seed: int, step: int, row: int, choices: int) -> int:
    """Return the start, in [0, choices), of the window that `row` of `step` trains on.

    A counter-based generator (Philox) keyed with the seed and counted by step and row: no state to save, and its raw
    output, unlike numpy's distributions, is the same in every numpy version.
    """
    generator = np.random.Philox(key=seed % (1 << 128), counter=[0, 0, row, step])
    return (int(generator.random_raw()) * choices) >> 64


def training_batch(text: TextBytes, split: Split, *, window: int, seed: int, step: int, rows: Sequence[int]) -> Bytes:
    """Return the windows of `rows` at `step`, [len(rows), window] bytes, all of them before `split.train_end`."""
    choices = split.train_end - window + 1
    return np.stack([text.read(window_start(seed, step, row, choices), window) for row in rows])


@dataclasses.dataclass(frozen=True)
class HeldOutWindow:
    """One window of the held-out measurement: it starts at `start` and counts the bytes in [first, end)."""

    start: int
    first: int
    end: int


def held_out_windows(split: Split, *, window: int, limit: int) -> list[HeldOutWindow]:
    """Cut the first `limit` held-out bytes into windows that predict each of them exactly once.

    Every window is `window` bytes long and has at least one byte of context before the first that it counts; the first
    window reaches back into the training text for it, and the last one for as much as makes it full.
    """
    end = min(split.total, split.train_end + limit)
    windows, first = [], split.train_end
    while first < end:
        stop = min(first + window - 1, end)
        windows.append(HeldOutWindow(start=stop - window, first=first, end=stop))
        first = stop
    return windows
