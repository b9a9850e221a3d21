"""Fake quantization, calibration and quantized layers, with the names of NVIDIA's pytorch-quantization."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.quantization.descriptor import QuantDescriptor
    from modelwright.quantization.fake_quant import fake_tensor_quant
    from modelwright.quantization.int8_linear import Int8Linear
    from modelwright.quantization.int8_model import to_int8
    from modelwright.quantization.layers import QuantConv1D, QuantConv1d, QuantConv2d, QuantLinear
    from modelwright.quantization.quantizer import TensorQuantizer
    from modelwright.quantization.recipe import Recipe
    from modelwright.quantization.swapping import swap
    from modelwright.quantization.switches import (
        calibrating,
        load_ranges,
        quantization_disabled,
        quantizers_of,
        switches_restored,
    )
    from modelwright.quantization.weight_calibration import calibrate_weights

__all__ = [
    "Int8Linear",
    "QuantConv1D",
    "QuantConv1d",
    "QuantConv2d",
    "QuantDescriptor",
    "QuantLinear",
    "Recipe",
    "TensorQuantizer",
    "calibrate_weights",
    "calibrating",
    "fake_tensor_quant",
    "load_ranges",
    "quantization_disabled",
    "quantizers_of",
    "swap",
    "switches_restored",
    "to_int8",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
