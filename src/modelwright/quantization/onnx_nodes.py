"""Quantizers and quantized linear layers in an export to ONNX: pairs of QuantizeLinear and DequantizeLinear.

PyTorch's own fake quantization cannot be exported with shapes that vary, so the nodes are named here. Two targets:
"tensorrt" (signed integers, zero point 0) and "onnxruntime-cpu" (unsigned integers, whose kernels use the processor's
8-bit instructions; a signed code q becomes q + 128, so nothing is lost). The nodes are those of opset 13 and later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError, check_choice
from modelwright.quantization.fake_quant import affine_parameters, bounds

if TYPE_CHECKING:
    from modelwright.quantization.layers import QuantConv1D, QuantLinear
    from modelwright.quantization.quantizer import TensorQuantizer

TARGETS = ("onnxruntime-cpu", "tensorrt")
OPSET = 21

_target: ContextVar[str] = ContextVar("target", default="tensorrt")


@contextmanager
def export_target(name: str) -> Iterator[None]:
    """Let exports inside the block be for `name`, one of TARGETS; outside it is "tensorrt". Raises InputError."""
    check_choice("export: target", name, TARGETS)
    token = _target.set(name)
    try:
        yield
    finally:
        _target.reset(token)


def current_target() -> str:
    """Return which of TARGETS exports are for now."""
    return _target.get()


def quantize_dequantize(
    quantizer: "TensorQuantizer", x: Tensor, channel_axis: int | None = None, weight: Tensor | None = None
) -> Tensor:
    """Return `x` through a QuantizeLinear and a DequantizeLinear with the range of `quantizer`.

    channel_axis: the axis of `x` that a quantizer with several ranges has them for, if not where its ranges have it.
    weight: what `x` is a view of; without a range it is taken from that, as each call does. Raises InputError for what
    `problem_of` names.
    """
    problem = problem_of(quantizer, is_weight=weight is not None)
    if problem:
        raise InputError(f"export: a quantizer {problem}")
    scale, zero_point, axis = parameters(quantizer, weight)
    if axis is not None and channel_axis is not None:
        axis = channel_axis
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    integers = _node("QuantizeLinear", (x, scale, zero_point), x.shape, zero_point.dtype, attributes)
    return _node("DequantizeLinear", (integers, scale, zero_point), x.shape, x.dtype, attributes)


def linear(layer: "QuantLinear | QuantConv1D", x: Tensor) -> Tensor:
    """Return what a quantized linear layer makes of `x` [..., K], as nodes that runtimes turn into integer products.

    A MatMul with the weight as [K, N] and an addition, because a Gemm stays float. An input quantized token by token
    is multiplied as integers here, because a QuantizeLinear has no scale for each token.
    """
    turned = layer.channel_axis == 0
    weight_KN = layer.weight.T if turned else layer.weight
    quantizer = layer.weight_quantizer
    if layer.input_quantizer.per_token and layer.input_quantizer.is_enabled and quantizer.is_enabled:
        product = _token_by_token(layer, x, weight_KN)
    else:
        if quantizer.is_enabled:
            weight_KN = quantize_dequantize(quantizer, weight_KN, channel_axis=1, weight=layer.weight)
        product = torch.matmul(layer.input_quantizer(x), weight_KN)
    return product if layer.bias is None else product + layer.bias


def _token_by_token(layer: "QuantLinear | QuantConv1D", x: Tensor, weight_KN: Tensor) -> Tensor:
    """Return x W by integers, with x = (codes - zero) * scale for each token and W = integers * scale."""
    of_x, of_weight = layer.input_quantizer, layer.weight_quantizer
    if problem := problem_of(of_weight, is_weight=True):
        raise InputError(f"export: a quantizer of a weight {problem}")
    if of_x.pre_quant_scale is not None:
        x = x * of_x.pre_quant_scale
    scale, zero = of_x.affine_of(x)
    codes = (torch.round(x / scale) + zero).clamp(0, 255).to(torch.uint8)
    weight_scale, weight_zero, axis = parameters(of_weight, layer.weight)
    attributes = {} if axis is None else {"axis": 1}
    integers_KN = _node(
        "QuantizeLinear", (weight_KN, weight_scale, weight_zero), weight_KN.shape, torch.int8, attributes
    )
    shape = (*x.shape[:-1], weight_KN.shape[1])
    product = _node("MatMulInteger", (codes, integers_KN), shape, torch.int32, {}).to(x.dtype)
    # sum over k of (codes - zero) * W: what the zero points add is the same for all tokens but for a factor.
    of_zeros_N = integers_KN.to(torch.int32).sum(dim=0).to(x.dtype)
    return (product - zero * of_zeros_N) * (scale * weight_scale)


def _node(name: str, inputs: Any, shape: Any, dtype: torch.dtype, attributes: dict[str, Any]) -> Tensor:
    result: Tensor = torch.onnx.ops.symbolic(name, inputs, attributes, dtype=dtype, shape=shape)
    return result


def problem_of(quantizer: "TensorQuantizer", *, is_weight: bool = False) -> str | None:
    """Return why a quantizer cannot be exported, as the end of a sentence, or None if it can.

    That of a weight needs no range, which is the weight's own.
    """
    if quantizer.num_bits != 8 or not quantizer.fake_quant:
        return (
            f"with {quantizer.num_bits} bits and fake_quant={quantizer.fake_quant}, expected 8 bits and fake "
            "quantization; disable() it to leave it out"
        )
    if not quantizer.is_calibrated and not quantizer.per_token and (not is_weight or quantizer.asymmetric):
        return "without a range; calibrate it and call load_calib_amax(), or disable() it"
    return None


def parameters(quantizer: "TensorQuantizer", x: Tensor | None = None) -> tuple[Tensor, Tensor, int | None]:
    """Return the scale, the zero point and the axis (None for one range) of a quantizer for the target.

    x: what the range is taken from if there is none. Weights (ranges for an axis) are signed for every target.
    """
    if quantizer.amin is not None and quantizer.amax is not None:
        scale, zero = affine_parameters(quantizer.amin, quantizer.amax, quantizer.num_bits)
        return scale, zero.to(torch.uint8), None
    amax = quantizer.amax_of(torch.empty(0) if x is None else x)
    highest = bounds(8, unsigned=quantizer.unsigned, narrow_range=False)[1]
    scale = torch.where(amax > 0, amax / highest, torch.ones_like(amax))
    channels = [i for i, size in enumerate(amax.shape) if size > 1]
    if len(channels) > 1:
        raise InputError(f"export: ONNX knows ranges for one axis, got {len(channels)} ({tuple(amax.shape)})")
    as_unsigned = quantizer.unsigned or (not amax.dim() and current_target() == "onnxruntime-cpu")
    middle = 128 if as_unsigned and not quantizer.unsigned else 0
    scale = scale.flatten() if channels else scale.reshape(())
    zero_point = torch.full_like(scale, middle, dtype=torch.uint8 if as_unsigned else torch.int8)
    return scale, zero_point, channels[0] if channels else None
