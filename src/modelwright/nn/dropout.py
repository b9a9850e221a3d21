"""Dropout whose randomness is an argument, so that a recomputed forward drops the same elements."""

import torch
from torch import Tensor

_LEVELS = 2**16


def seeded_dropout(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Zero elements of `x` with `probability` (in [0, 1]) drawn from `generator`, and scale the rest to keep the mean.

    `generator` None means no dropout (evaluation). Torch's own stream is neither read nor moved. The probability is
    taken to the nearest 1/65536.
    Source: Srivastava et al. 2014; replay in a reversible stack: Gomez et al. 2017, section 3.
    """
    kept_levels = round((1.0 - probability) * _LEVELS)
    if generator is None or kept_levels == _LEVELS:
        return x
    if kept_levels == 0:
        return x * 0.0
    # Four 16-bit draws out of each 64-bit one: a third of the time of bernoulli_, which is serial on CPUs.
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    levels = words.random_(-(2**63), None, generator=generator).view(torch.int16)[: x.numel()].view(x.shape)
    keep = levels.lt(kept_levels - _LEVELS // 2).to(x.dtype)
    return x * keep.mul_(_LEVELS / kept_levels)
