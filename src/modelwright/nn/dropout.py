"""Dropout whose randomness is an argument, so that a recomputed forward drops the same elements."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from modelwright.nn.tracing import is_transformed

# A probability is taken to the nearest of so many parts.
LEVELS = 2**16
_WORD = 2**64 - 1
# Numbers that are worked on at once where memory counts: 2 MB in fp32.
_PART = 2**19
# Elements whose draws are made at once: 256 kB, which stay in the cache of the core that draws. Writing where another
# core wrote last takes several times as long.
_DRAWN = 2**17

# What random numbers come from: numpy's generator on a CPU takes little more than half of the time of torch's.
Source = torch.Generator | np.random.Generator


def seeded_generator(seed: int, part: int, device: torch.device) -> Source:
    """Return a new generator on `device` that is a function of the seed and the number of a part of the work.

    The two are mixed (the finaliser of SplitMix64, Steele et al. 2014), because generators of CPUs use the low 32 bits.
    """
    mixed = (seed + (part + 1) * 0x9E3779B97F4A7C15) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
    mixed = (mixed ^ (mixed >> 31)) >> 1
    if device.type == "cpu" and not (torch.compiler.is_compiling() or is_transformed()):
        return np.random.Generator(np.random.SFC64(mixed))
    return torch.Generator(device).manual_seed(mixed)


def seeded_keep(like: Tensor, probability: float, generator: Source | None) -> Tensor | None:
    """Return what dropout multiplies a tensor like `like` by: 0 with `probability`, else 1 / (1 - probability).

    None means that nothing is dropped: `generator` is None (evaluation) or the probability 0. Torch's own stream is
    neither read nor moved. The probability, in [0, 1], is taken to the nearest 1/65536.
    Source: Srivastava et al. 2014; replay in a reversible stack: Gomez et al. 2017, section 3.
    """
    kept_levels = round((1.0 - probability) * LEVELS)
    if generator is None or kept_levels == LEVELS:
        return None
    if kept_levels == 0:
        return torch.zeros_like(like, requires_grad=False)
    if like.is_cuda and isinstance(generator, torch.Generator):
        # One pass where the work is done by many.
        keep = torch.empty_like(like, requires_grad=False).bernoulli_(kept_levels / LEVELS, generator=generator)
    else:
        keep = _mask(like, kept_levels, generator)
        if like.element_size() == 2:
            # Products of integers put the bits of one number everywhere, in a quarter of the time of casts.
            scale = torch.tensor(LEVELS / kept_levels, dtype=like.dtype, device=like.device)
            return keep.to(torch.int16).mul_(scale.view(torch.int16)).view(like.dtype)
        keep = keep.to(like.dtype)
    return keep.mul_(LEVELS / kept_levels)


def _mask(like: Tensor, kept_levels: int, generator: Source | None) -> Tensor:
    """Return a byte for each element of `like`, 1 where it is kept; None is torch's own stream.

    Bytes and not booleans, which torch casts and compares one by one.
    """
    mask = torch.empty(like.shape, dtype=torch.uint8, device=like.device)
    # Four 16-bit draws out of each 64-bit one: a third of the time of bernoulli_, which is serial on CPUs.
    if isinstance(generator, np.random.Generator):
        kept: npt.NDArray[np.bool_] = mask.view(torch.bool).view(-1).numpy()
        for start in range(0, len(kept), _DRAWN):
            part = kept[start : start + _DRAWN]
            draws: npt.NDArray[np.uint64] = generator.bit_generator.random_raw((len(part) + 3) // 4)
            np.less(draws.view(np.uint16)[: len(part)], kept_levels, out=part)
        return mask
    limit = kept_levels - LEVELS // 2
    for piece in _parts(mask):
        words = torch.empty((piece.numel() + 3) // 4, dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None, generator=generator)
        piece.copy_(words.view(torch.int16)[: piece.numel()].lt_(limit))
    return mask


def seeded_dropout(x: Tensor, probability: float, generator: Source | None) -> Tensor:
    """Return `x` with elements dropped as `seeded_keep` says."""
    keep = seeded_keep(x, probability, generator)
    return x if keep is None else x * keep


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Return the numbers of a contiguous tensor in parts."""
    return x.view(-1).split_with_sizes([min(_PART, x.numel() - start) for start in range(0, x.numel(), _PART)])


class _Masked(torch.autograd.Function):
    """The product with a mask and a scale, in parts: torch makes numbers of the whole mask first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for into, part, kept in zip(_parts(result), _parts(x.contiguous()), _parts(keep), strict=True):
            # Cast by itself, not by the product: in a third of the time.
            torch.mul(part, kept.to(x.dtype), out=into).mul_(scale)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return _Masked.apply(grad, keep, ctx.scale), None, None  # type: ignore[no-untyped-call]


class Dropout(nn.Dropout):
    """Dropout from torch's own stream that, on a CPU, keeps a byte an element for its backward, and is drawn sooner.

    torch's keeps a number of the input's dtype. The probability is taken to the nearest 1/65536.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with elements dropped, in training."""
        kept_levels = round((1.0 - self.p) * LEVELS)
        if (
            not self.training
            or kept_levels in (0, LEVELS)
            or input.device.type != "cpu"
            or torch.compiler.is_compiling()
            or is_transformed()
        ):
            return super().forward(input)
        keep = _mask(input, kept_levels, None)
        dropped: Tensor = _Masked.apply(input, keep, LEVELS / kept_levels)  # type: ignore[no-untyped-call]
        return dropped
