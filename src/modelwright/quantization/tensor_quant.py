"""The import path transformers.quantization.tensor_quant of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.quantization.descriptor import (
        QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL,
        QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW,
        QUANT_DESC_8BIT_PER_TENSOR,
        QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR,
        QuantDescriptor,
        ScaledQuantDescriptor,
    )
    from modelwright.quantization.fake_quant import (
        fake_affine_tensor_quant,
        fake_tensor_quant,
        legacy_fake_tensor_quant,
        tensor_quant,
    )

__all__ = [
    "QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL",
    "QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW",
    "QUANT_DESC_8BIT_PER_TENSOR",
    "QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR",
    "QuantDescriptor",
    "ScaledQuantDescriptor",
    "fake_affine_tensor_quant",
    "fake_tensor_quant",
    "legacy_fake_tensor_quant",
    "tensor_quant",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
