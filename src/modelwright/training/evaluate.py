"""Held-out bits per byte: every measured byte predicted exactly once, with the same randomness every time."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from modelwright.nn.losses import IGNORED
from modelwright.training.data import HeldOutWindow, TextBytes
from modelwright.training.rng import seeded


def bits_per_byte(nats: float) -> float:
    """Convert a loss in nats per byte to bits per byte."""
    return nats / math.log(2)


def held_out_bits(
    model: torch.nn.Module,
    text: TextBytes,
    windows: Sequence[HeldOutWindow],
    *,
    byte_ids: torch.Tensor,
    batch: int,
    device: torch.device,
    seed: int = 0,
) -> float:
    """Return the model's bits per byte over the bytes that `windows` count.

    byte_ids: [256] token id of each byte. batch: windows of one forward pass. seed: for models that draw random numbers
    in evaluation (LSH rotations); the caller's streams are not touched. The model's train or eval mode is restored.
    """
    was_training = model.training
    model.eval()
    nats, counted = 0.0, 0
    try:
        with seeded(seed), torch.no_grad():
            for first in range(0, len(windows), batch):
                rows = windows[first : first + batch]
                data = np.stack([text.read(window.start, window.end - window.start) for window in rows])
                input_ids = byte_ids[torch.from_numpy(data).long()]
                labels = input_ids.clone()
                for row, window in enumerate(rows):
                    labels[row, : window.first - window.start] = IGNORED
                count = int((labels != IGNORED).sum())
                loss = model(input_ids=input_ids.to(device), labels=labels.to(device)).loss
                nats += float(loss) * count
                counted += count
    finally:
        model.train(was_training)
    return bits_per_byte(nats / counted)
