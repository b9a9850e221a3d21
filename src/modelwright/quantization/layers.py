"""Layers that quantize their input and their weight: the float layer of the same name, and two quantizers.

Their parameters have the float layer's names, so a float checkpoint loads.
"""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.nn import conv1d
from modelwright.quantization import onnx_nodes
from modelwright.quantization.descriptor import (
    QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL,
    QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW,
    QUANT_DESC_8BIT_PER_TENSOR,
    QuantDescriptor,
)
from modelwright.quantization.quantizer import TensorQuantizer


class QuantMixin:
    """Two quantizers beside a layer's parameters, and what they are when nothing is said, by class."""

    default_quant_desc_input: ClassVar[QuantDescriptor] = QUANT_DESC_8BIT_PER_TENSOR
    default_quant_desc_weight: ClassVar[QuantDescriptor] = QUANT_DESC_8BIT_PER_TENSOR
    # The axis of the weight that counts output channels.
    channel_axis: ClassVar[int] = 0

    _input_quantizer: TensorQuantizer
    _weight_quantizer: TensorQuantizer

    @classmethod
    def set_default_quant_desc_input(cls, value: QuantDescriptor) -> None:
        """Set how layers of this class that are made from now on quantize their input; raise InputError for another
        type.
        """
        cls.default_quant_desc_input = _checked(cls, value)

    @classmethod
    def set_default_quant_desc_weight(cls, value: QuantDescriptor) -> None:
        """Set how layers of this class that are made from now on quantize their weight; raise InputError for another
        type.
        """
        cls.default_quant_desc_weight = _checked(cls, value)

    @property
    def input_quantizer(self) -> TensorQuantizer:
        """What quantizes the input."""
        return self._input_quantizer

    @property
    def weight_quantizer(self) -> TensorQuantizer:
        """What quantizes the weight."""
        return self._weight_quantizer

    def init_quantizer(self, quant_desc_input: QuantDescriptor, quant_desc_weight: QuantDescriptor) -> None:
        """Make the two quantizers; raise InputError for descriptors without fake quantization."""
        for which, descriptor in (("input", quant_desc_input), ("weight", quant_desc_weight)):
            if not _checked(type(self), descriptor).fake_quant:
                raise InputError(f"{type(self).__name__}: expected fake_quant=True for the {which}, got {descriptor}")
        self._input_quantizer = TensorQuantizer(quant_desc_input)
        self._weight_quantizer = TensorQuantizer(quant_desc_weight)

    def pruned_to(self, plain: nn.Module, index: Tensor, dim: int) -> nn.Module:
        """Return this layer with the parameters of `plain`, which was pruned to the entries `index` along `dim`.

        A range for each output is cut with the outputs; other ranges stay.
        """
        quantizers = copy.deepcopy((self._input_quantizer, self._weight_quantizer))
        plain.__class__ = type(self)  # type: ignore[assignment]
        assert isinstance(plain, QuantMixin)
        plain._input_quantizer, plain._weight_quantizer = quantizers
        amax = plain._weight_quantizer.amax
        if dim == self.channel_axis and amax is not None and amax.dim() > dim and amax.shape[dim] > 1:
            plain._weight_quantizer.reset_amax()
            plain._weight_quantizer.set_amax(amax.index_select(dim, index.to(amax.device)))
        return plain

    def _init_from(self, keywords: dict[str, Any]) -> None:
        known = ("quant_desc_input", "quant_desc_weight")
        for name in keywords:
            if name not in known:
                where = type(self).__name__
                raise UnknownArgumentError(f"{where} got an unknown keyword {name!r}.{nearest(name, known)}")
        self.init_quantizer(
            keywords.get("quant_desc_input", self.default_quant_desc_input),
            keywords.get("quant_desc_weight", self.default_quant_desc_weight),
        )


def _checked(cls: type, value: Any) -> QuantDescriptor:
    if not isinstance(value, QuantDescriptor):
        raise InputError(f"{cls.__name__}: expected a QuantDescriptor, got {type(value).__name__}")
    return copy.deepcopy(value)


class QuantLinear(nn.Linear, QuantMixin):
    """`torch.nn.Linear` with quantized input and weight; the weight has a range for each output by default.

    quant_desc_input, quant_desc_weight: how, instead of the class's defaults.
    """

    default_quant_desc_weight = QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._init_from(kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product of the quantized input and weight, plus the bias."""
        if torch.onnx.is_in_onnx_export():
            return onnx_nodes.linear(self, input)
        return F.linear(self._input_quantizer(input), self._weight_quantizer(self.weight), self.bias)


class QuantConv1D(conv1d.Conv1D, QuantMixin):
    """GPT-2's `Conv1D`, a linear layer whose weight is [inputs, outputs], with quantized input and weight."""

    default_quant_desc_weight = QuantDescriptor(num_bits=8, axis=1)
    channel_axis = 1

    def __init__(
        self,
        nf: int,
        nx: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(nf, nx, device=device, dtype=dtype)
        self._init_from(kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of the quantized input and weight, plus the bias."""
        if torch.onnx.is_in_onnx_export():
            return onnx_nodes.linear(self, x)
        return torch.matmul(self._input_quantizer(x), self._weight_quantizer(self.weight)) + self.bias


class QuantConv1d(nn.Conv1d, QuantMixin):
    """`torch.nn.Conv1d` with quantized input and weight; the weight has a range for each output by default."""

    default_quant_desc_weight = QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        quantization = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith("quant_desc_")}
        super().__init__(*args, **kwargs)
        self._init_from(quantization)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of the quantized input and weight, plus the bias."""
        x, weight = self._input_quantizer(input), self._weight_quantizer(self.weight)
        result: Tensor = self._conv_forward(x, weight, self.bias)
        return result


class QuantConv2d(nn.Conv2d, QuantMixin):
    """`torch.nn.Conv2d` with quantized input and weight; the weight has a range for each output by default."""

    default_quant_desc_weight = QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        quantization = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith("quant_desc_")}
        super().__init__(*args, **kwargs)
        self._init_from(quantization)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of the quantized input and weight, plus the bias."""
        x, weight = self._input_quantizer(input), self._weight_quantizer(self.weight)
        result: Tensor = self._conv_forward(x, weight, self.bias)
        return result


# The toolkit's names without a prefix, for code that replaces torch.nn by this module.
Linear, Conv1d, Conv2d = QuantLinear, QuantConv1d, QuantConv2d
