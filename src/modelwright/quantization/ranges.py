"""The ranges of a tensor: over all of it, or one for each index of the axes that keep their own."""

import torch
from torch import Tensor

from modelwright.core.errors import InputError

Axis = int | tuple[int, ...] | list[int] | None


def axes_of(axis: Axis) -> tuple[int, ...]:
    """Return `axis` as a tuple; None is ()."""
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, int) else tuple(axis)


def reduced_axes(x: Tensor, axis: Axis) -> list[int]:
    """Return the axes of `x` other than those of `axis`, which keep a range of their own (negative ones count from the
    end). Raises InputError for an axis that `x` lacks.
    """
    kept = set()
    for each in axes_of(axis):
        if not -x.dim() <= each < x.dim():
            raise InputError(f"quantization: axis={axis} of a tensor with {x.dim()} axes, {tuple(x.shape)}")
        kept.add(each % x.dim())
    return [each for each in range(x.dim()) if each not in kept]


def reduce_amax(x: Tensor, axis: Axis = None, keepdims: bool = True) -> Tensor:
    """Return the largest |x| over the axes `axis`, or over all of them if it is None.

    With `keepdims` the reduced axes have size 1; a single number is a scalar. Raises InputError for an axis that `x`
    lacks.
    """
    minimum, maximum = reduce_range(x, axis, keepdims)
    return maximum.maximum(-minimum)


def reduce_range(x: Tensor, axis: Axis = None, keepdims: bool = True) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest number over the axes `axis`; otherwise as `reduce_amax`."""
    x = x.detach()
    if axis is None:
        return torch.aminmax(x)
    axes = sorted(set(range(x.dim())) - set(reduced_axes(x, axis)))
    if not axes:
        return x, x
    minimum, maximum = x.amin(dim=axes, keepdim=keepdims), x.amax(dim=axes, keepdim=keepdims)
    return (minimum.squeeze(), maximum.squeeze()) if minimum.numel() == 1 else (minimum, maximum)


def amax_of(x: Tensor, axis: Axis) -> Tensor:
    """Return the range that a quantizer with this `axis` gives `x`: a scalar, or a tensor that broadcasts to `x`."""
    return reduce_amax(x, reduced_axes(x, axis))
