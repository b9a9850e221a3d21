"""Quantizing a tensor to integers and back: pure functions, with straight-through gradients.

Symmetric, of b bits, for a range `amax` (a scalar or a tensor that broadcasts to x):

    bound = 2^(b-1) - 1, or 2^b - 1 if unsigned        scale = bound / amax
    q = clamp(round(x * scale), lowest, bound)         x' = q / scale

`lowest` is 0 if unsigned, -bound with a narrow range, else -bound - 1. Rounding is half to even. A range of at most
2^-24 (half precision's smallest number) makes everything 0. The gradient passes where |x| <= amax. Source: Wu et al.
2020 (arXiv 2004.09602), sections 3.1 and 3.2; the figures are equal to pytorch-quantization 2.1.3's to the bit.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modelwright.core.errors import InputError

# A range of at most this is a range of nothing.
SMALLEST_RANGE = 2.0**-24


class NegativeValuesError(InputError, TypeError):
    """Negative numbers where an unsigned quantization was asked for."""


def bounds(num_bits: int, *, unsigned: bool, narrow_range: bool) -> tuple[int, int]:
    """Return the lowest and the highest integer of the symmetric quantization."""
    highest = 2 ** (num_bits - 1 + int(unsigned)) - 1
    if unsigned:
        return 0, highest
    return (-highest if narrow_range else -highest - 1), highest


def to_integers(
    x: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the integers of `x`, as floating-point numbers, and the scale: integers / scale is close to `x`.

    Computed in float32 at least; the integers have the dtype of `x`. Raises InputError for a negative range,
    NegativeValuesError (a TypeError) for negative numbers with `unsigned`.
    """
    if unsigned and x.numel() and bool(x.min() < 0):
        raise NegativeValuesError(
            f"quantization: an unsigned quantizer got numbers down to {x.min().item():.4g}; use unsigned=False"
        )
    if bool(amax.min() < 0):
        raise InputError(f"quantization: expected ranges (amax) of at least 0, got {amax.min().item():.4g}")
    wide, amax = _at_least_float32(x), _at_least_float32(amax)
    lowest, highest = bounds(num_bits, unsigned=unsigned, narrow_range=narrow_range)
    empty = amax <= SMALLEST_RANGE
    # Not `highest / amax`, which torch computes as a reciprocal and a product, with two roundings.
    scale = torch.full_like(amax, highest) / amax
    integers = (wide * scale.masked_fill(empty, 0.0)).round_().clamp_(lowest, highest)
    return integers.to(x.dtype), scale.masked_fill(empty, 1.0)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _Quantize(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, amax: Tensor, num_bits: int, unsigned: bool, narrow_range: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, amax)
        integers, scale = to_integers(x, amax, num_bits, unsigned, narrow_range)
        if x.dtype == torch.float16 and bool(scale.max() > torch.finfo(torch.float16).max):
            raise InputError(
                f"quantization: the scale {scale.max().item():.4g} is beyond float16; quantize in float32, or with a "
                "larger amax"
            )
        return integers, scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, amax = ctx.saved_tensors
        return _straight_through(x, amax, gradients[0]), None, None, None, None


class _FakeQuantize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, amax: Tensor, num_bits: int, unsigned: bool, narrow_range: bool) -> Tensor:
        ctx.save_for_backward(x, amax)
        integers, scale = to_integers(x, amax, num_bits, unsigned, narrow_range)
        return integers / scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, amax = ctx.saved_tensors
        return _straight_through(x, amax, gradients[0]), None, None, None, None


class _FakeQuantizeAffine(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, minimum: Tensor, maximum: Tensor, num_bits: int) -> Tensor:
        ctx.save_for_backward(x, minimum, maximum)
        step = (maximum - minimum) / (2.0**num_bits - 1)
        lowest, highest = -(2.0 ** (num_bits - 1)), 2.0 ** (num_bits - 1) - 1
        zero = torch.round(minimum / step) - lowest
        return (torch.clamp(torch.round(x / step) - zero, lowest, highest) + zero) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, minimum, maximum = ctx.saved_tensors
        return gradients[0].masked_fill((x < minimum) | (x > maximum), 0.0), None, None, None


def _straight_through(x: Tensor, amax: Tensor, gradient: Tensor) -> Tensor:
    # Not `x.abs() > amax`: a NaN passes no gradient.
    return torch.where(x.abs() <= amax, gradient, 0.0)


def tensor_quant(
    inputs: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the integers of `inputs`, as floating-point numbers, and the scale; see the top of this file.

    Raises InputError for a negative range or a scale beyond float16, NegativeValuesError for negative numbers with
    `unsigned`.
    """
    result: tuple[Tensor, Tensor] = _Quantize.apply(inputs, amax, num_bits, unsigned, narrow_range)  # type: ignore[no-untyped-call]
    return result


def fake_tensor_quant(
    inputs: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
) -> Tensor:
    """Return `inputs` quantized and brought back, in its own dtype; see the top of this file for the formula.

    Raises as `tensor_quant` does, but for the scale.
    """
    result: Tensor = _FakeQuantize.apply(inputs, amax, num_bits, unsigned, narrow_range)  # type: ignore[no-untyped-call]
    return result


# The toolkit's name for the version in PyTorch operations, which here is the only one.
legacy_fake_tensor_quant = fake_tensor_quant


def fake_affine_tensor_quant(inputs: Tensor, min_range: Tensor, max_range: Tensor, num_bits: int = 8) -> Tensor:
    """Return `inputs` quantized to 2^num_bits steps between two scalars, and brought back.

    The gradient passes between the scalars. Source: gemmlowp's quantization with a zero point.
    """
    result: Tensor = _FakeQuantizeAffine.apply(inputs, min_range, max_range, num_bits)  # type: ignore[no-untyped-call]
    return result


def affine_parameters(minimum: Tensor, maximum: Tensor, num_bits: int = 8) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point, an integer in [0, 2^num_bits), of unsigned integers for a range.

    The range is widened to hold 0, which then is exact. What ONNX's QuantizeLinear takes.
    """
    minimum, maximum = minimum.clamp(max=0.0).float(), maximum.clamp(min=0.0).float()
    highest = 2**num_bits - 1
    scale = (maximum - minimum) / highest
    scale = scale.masked_fill(scale <= SMALLEST_RANGE / highest, 1.0)
    return scale, torch.round(-minimum / scale).clamp(0, highest)


class _FakeQuantizeUnsigned(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, num_bits: int) -> Tensor:
        codes = torch.round(x.float() / scale) + zero_point
        highest = 2**num_bits - 1
        ctx.save_for_backward((codes >= 0) & (codes <= highest))
        return ((codes.clamp_(0, highest) - zero_point) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def fake_quant_with_zero_point(x: Tensor, scale: Tensor, zero_point: Tensor, num_bits: int = 8) -> Tensor:
    """Return `x` quantized to unsigned integers round(x / scale) + zero_point and brought back, in its own dtype.

    scale, zero_point: of `affine_parameters`; they broadcast to `x`. The gradient passes where the integer is within
    [0, 2^num_bits). Source: ONNX's QuantizeLinear and DequantizeLinear.
    """
    result: Tensor = _FakeQuantizeUnsigned.apply(x, scale, zero_point, num_bits)  # type: ignore[no-untyped-call]
    return result
