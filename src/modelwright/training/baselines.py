"""What the held-out bytes cost without a model: their order-0 entropy, and what `xz -9e` makes of them."""

import dataclasses
import lzma

import numpy as np

from modelwright.training.data import Bytes, Split, TextBytes

# xz keeps a dictionary of 64 MiB at its best preset; above this size, compressing the training text too takes minutes.
_PRIMED_LIMIT = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Bits per byte that two simple methods need for the same held-out bytes that the model is measured on.

    measured_bytes: how many bytes those are. entropy: order-0 entropy of the byte counts of these very bytes, a bound
    for any code that knows them exactly but no context. xz: `xz -9e` of these bytes alone, container included.
    xz_primed: what these bytes add to `xz -9e` of the training text before them, the closest to what a model knows that
    has read it; None if the training text is above 16 MiB.
    """

    measured_bytes: int
    entropy: float
    xz: float
    xz_primed: float | None


def order0_entropy(data: Bytes) -> float:
    """Return the entropy of the byte counts of `data`, in bits per byte."""
    counts = np.bincount(data, minlength=256).astype(np.float64)
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log2(frequencies)).sum()) + 0.0


def xz_size(data: bytes) -> int:
    """Return the size in bytes of `data` as `xz -9e` writes it."""
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def measure_baselines(text: TextBytes, split: Split, *, limit: int) -> Baselines:
    """Measure the first `limit` held-out bytes of `text`."""
    size = min(split.held_out, limit)
    held_out = text.read(split.train_end, size)
    primed = None
    if split.train_end <= _PRIMED_LIMIT:
        train = text.read(0, split.train_end).tobytes()
        primed = 8 * (xz_size(train + held_out.tobytes()) - xz_size(train)) / size
    return Baselines(
        measured_bytes=size,
        entropy=order0_entropy(held_out),
        xz=8 * xz_size(held_out.tobytes()) / size,
        xz_primed=primed,
    )
