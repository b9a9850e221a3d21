"""SmoothQuant: what is hard to quantize moves from a layer's input into its weight, channel by channel.

x W = (x * s) (W / s) for any positive s, one number for each input channel. The input's quantizer multiplies by s
(`pre_quant_scale`), the weight is divided. s = max|W|^(1 - alpha) / max|x|^alpha: alpha 0 looks at the weight only, 1 at the
input only. Source: Xiao et al. 2022 (arXiv 2211.10438), section 4.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.quantization.layers import QuantConv1D, QuantLinear

_Layer = QuantLinear | QuantConv1D


def input_ranges(model: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """Return the largest |x| of each input channel, [inputs], of each quantized linear layer while `run` calls the
    model.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].detach().flatten(0, -2).abs().amax(dim=0)
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear_layers(model).items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def linear_layers(model: nn.Module) -> dict[str, _Layer]:
    """Return the quantized linear layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear | QuantConv1D)}


@torch.no_grad()
def smooth(model: nn.Module, ranges: Mapping[str, Tensor], alpha: float | Mapping[str, float] = 0.5) -> None:
    """Move ranges from the inputs of linear layers into their weights; the float model stays what it is.

    ranges: of `input_ranges`; layers that it lacks are left alone. alpha: from 0 to 1, for all layers or by name. A
    layer that was smoothed before is smoothed anew. Calibrate inputs and weights after it. Raises InputError for another
    alpha.
    """
    layers = linear_layers(model)
    for name, largest in ranges.items():
        own = alpha if isinstance(alpha, int | float) else alpha.get(name)
        if own is None:
            continue
        if not 0 <= own <= 1:
            raise InputError(f"smooth: expected alpha from 0 to 1, got {own} for {name}")
        unsmooth(layers[name])
        apply_scale(layers[name], smoothing_scale(layers[name], largest, own))


def smoothing_scale(layer: _Layer, largest: Tensor, alpha: float) -> Tensor:
    """Return what the input of a layer is to be multiplied by, [inputs]."""
    weight_range = layer.weight.detach().abs().amax(dim=layer.channel_axis)
    scale = weight_range.pow(1 - alpha) / largest.clamp(min=1e-5).pow(alpha)
    usable = (weight_range > 0) & (largest > 0)
    return torch.where(usable, scale.clamp(1e-5, 1e5), 1.0)


def apply_scale(layer: _Layer, scale: Tensor) -> None:
    """Multiply the input of a layer by `scale` [inputs], and divide its weight by it."""
    layer.weight.div_(scale if layer.channel_axis == 0 else scale[:, None])
    before = layer.input_quantizer.pre_quant_scale
    layer.input_quantizer.pre_quant_scale = scale if before is None else before * scale


def unsmooth(layer: _Layer) -> None:
    """Undo `apply_scale`."""
    scale = layer.input_quantizer.pre_quant_scale
    if scale is not None:
        layer.weight.mul_(scale if layer.channel_axis == 0 else scale[:, None])
        layer.input_quantizer.reset_pre_quant_scale()
