"""A quantizer in an export to ONNX: a pair of QuantizeLinear and DequantizeLinear.

PyTorch's own fake quantization cannot be exported with shapes that vary, so the nodes are named here. Two targets:
"tensorrt" (signed integers, zero point 0) and "onnxruntime-cpu" (unsigned integers, whose kernels use the processor's
8-bit instructions; a signed code q becomes q + 128, so nothing is lost). Needs opset 21.
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


def quantize_dequantize(quantizer: "TensorQuantizer", x: Tensor) -> Tensor:
    """Return `x` through a QuantizeLinear and a DequantizeLinear with the range of `quantizer`.

    Raises InputError for other than 8 bits, integers that are not brought back, or no range.
    """
    if quantizer.num_bits != 8 or not quantizer.fake_quant:
        raise InputError(
            f"export: expected 8 bits and fake quantization, got {quantizer.num_bits} bits and "
            f"fake_quant={quantizer.fake_quant}; disable() the quantizer to leave it out"
        )
    if not quantizer.is_calibrated:
        raise InputError(
            "export: a quantizer without a range; calibrate it and call load_calib_amax(), or disable() it"
        )
    scale, zero_point, axis = parameters(quantizer)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    integers = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x, scale, zero_point), attributes, dtype=zero_point.dtype, shape=x.shape, version=OPSET
    )
    result: Tensor = torch.onnx.ops.symbolic(
        "DequantizeLinear", (integers, scale, zero_point), attributes, dtype=x.dtype, shape=x.shape, version=OPSET
    )
    return result


def parameters(quantizer: "TensorQuantizer") -> tuple[Tensor, Tensor, int | None]:
    """Return the scale, the zero point and the axis (None for one range) of a calibrated quantizer for the target.

    Weights (ranges for an axis) are signed for every target.
    """
    if quantizer.amin is not None and quantizer.amax is not None:
        scale, zero = affine_parameters(quantizer.amin, quantizer.amax, quantizer.num_bits)
        return scale, zero.to(torch.uint8), None
    amax = quantizer.amax_of(torch.empty(0))
    highest = bounds(8, unsigned=quantizer.unsigned, narrow_range=False)[1]
    scale = torch.where(amax > 0, amax / highest, torch.ones_like(amax))
    channels = [i for i, size in enumerate(amax.shape) if size > 1]
    if len(channels) > 1:
        raise InputError(f"export: ONNX knows ranges for one axis, got {len(channels)} ({tuple(amax.shape)})")
    as_unsigned = quantizer.unsigned or (not amax.dim() and _target.get() == "onnxruntime-cpu")
    middle = 128 if as_unsigned and not quantizer.unsigned else 0
    scale = scale.flatten() if channels else scale.reshape(())
    zero_point = torch.full_like(scale, middle, dtype=torch.uint8 if as_unsigned else torch.int8)
    return scale, zero_point, channels[0] if channels else None
