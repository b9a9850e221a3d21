"""Changes of calibrated ranges: equal ones for queries, keys and values, a limit behind GELU, new ones for weights."""

import re

import torch
from torch import nn

from modelwright.core.errors import InputError
from modelwright.quantization.layers import QuantLinear
from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.ranges import amax_of
from modelwright.quantization.switches import quantizers_of

_OUTPUT_OF_FEED_FORWARD = r"(?<!attention)\.output\.dense\._input_quantizer$"


def fuse_qkv(model: nn.Module) -> int:
    """Give queries, keys and values of each attention one range, the widest, so that they can be computed at once.

    That is for the inputs of the three layers, for weights with one range each, and for the operands of the products.
    Returns how many attentions there were; raises InputError if none has three quantized layers.
    """
    found = 0
    for module in model.modules():
        layers = [getattr(module, name, None) for name in ("query", "key", "value")]
        if not all(isinstance(layer, QuantLinear) for layer in layers):
            continue
        found += 1
        for owner in ("input_quantizer", "weight_quantizer"):
            _widen([getattr(layer, owner) for layer in layers])
        _widen([getattr(module, f"matmul_{operand}_input_quantizer", None) for operand in "qkv"])
    if not found:
        raise InputError(f"fuse_qkv: {type(model).__name__} has no attention with quantized query, key and value")
    return found


def _widen(quantizers: list[TensorQuantizer | None]) -> None:
    calibrated = [each for each in quantizers if each is not None and each.amax is not None and not each.amax.dim()]
    if len(calibrated) < len(quantizers):
        return
    amax = torch.stack([each.amax for each in calibrated if each.amax is not None]).amax()
    lowest = [each.amin for each in calibrated if each.amin is not None]
    for each in calibrated:
        each.set_amax(amax, torch.stack(lowest).amin() if lowest else None)


def clip_gelu(model: nn.Module, limit: float = 10.0, pattern: str = _OUTPUT_OF_FEED_FORWARD) -> list[str]:
    """Let no range of the quantizers that `pattern` matches, those behind GELU, exceed `limit`; return their names.

    Raises InputError if it matches none with a range. Source: Wu et al. 2020, section 5 (GELU clipped to 10).
    """
    found = {name: each for name, each in quantizers_of(model, pattern).items() if each.amax is not None}
    if not found:
        raise InputError(f"clip_gelu: no quantizer with a range matches {re.compile(pattern).pattern!r}")
    for quantizer in found.values():
        assert quantizer.amax is not None
        quantizer.set_amax(quantizer.amax.clamp(max=limit), quantizer.amin)
    return list(found)


def recalibrate_weights(model: nn.Module) -> list[str]:
    """Set the ranges of weights that have one to what the weights, changed by training, are now; return their names."""
    names = []
    for name, module in model.named_modules():
        quantizer = getattr(module, "weight_quantizer", None)
        if isinstance(quantizer, TensorQuantizer) and quantizer.amax is not None:
            assert isinstance(module.weight, torch.Tensor)
            quantizer.set_amax(amax_of(module.weight, quantizer.axis).reshape(quantizer.amax.shape))
            names.append(f"{name}._weight_quantizer")
    return names
