"""SmoothQuant: what is hard to quantize moves from a layer's input into its weight, channel by channel.

x W = (x * s) (W / s) for any positive s, one number for each input channel. The input's quantizer multiplies by s
(`pre_quant_scale`), the weight is divided. s = max|W|^(1 - alpha) / max|x|^alpha: alpha 0 looks at the weight only, 1
at the input only. Source: Xiao et al. 2022 (arXiv 2211.10438), section 4.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.quantization.recording import LayerInput, LinearLayer, linear_layers


@torch.no_grad()
def smooth(model: nn.Module, inputs: Mapping[str, LayerInput], alpha: float | Mapping[str, float] = 0.5) -> None:
    """Move ranges from the inputs of linear layers into their weights; the float model stays what it is.

    inputs: of `record_inputs`; layers that it lacks are left alone. alpha: from 0 to 1, for all layers or by name; of
    layers that share a tensor, which then is multiplied and quantized once, the first one's counts. A layer that was
    smoothed before is smoothed anew. Calibrate inputs and weights after it. Raises InputError for another alpha.
    """
    layers = linear_layers(model)
    together: dict[str, list[str]] = {}
    for name, seen in inputs.items():
        together.setdefault(seen.shared_with, []).append(name)
    for first, names in together.items():
        own = alpha if isinstance(alpha, int | float) else alpha.get(first)
        if own is None:
            continue
        if not 0 <= own <= 1:
            raise InputError(f"smooth: expected alpha from 0 to 1, got {own} for {first}")
        for name in names:
            unsmooth(layers[name])
        scale = _smoothing_scale([layers[name] for name in names], inputs[first].largest, own)
        for name in names:
            apply_scale(layers[name], scale)


def _smoothing_scale(layers: Sequence[LinearLayer], largest: Tensor, alpha: float) -> Tensor:
    """Return what the input of layers that share it is to be multiplied by, [inputs]."""
    ranges = [layer.weight.detach().abs().amax(dim=layer.channel_axis) for layer in layers]
    weight_range = torch.stack(ranges).amax(dim=0)
    scale = weight_range.pow(1 - alpha) / largest.clamp(min=1e-5).pow(alpha)
    usable = (weight_range > 0) & (largest > 0)
    return torch.where(usable, scale.clamp(1e-5, 1e5), 1.0)


@torch.no_grad()
def apply_scale(layer: LinearLayer, scale: Tensor) -> None:
    """Multiply the input of a layer by `scale` [inputs], and divide its weight by it."""
    layer.weight.div_(scale if layer.channel_axis == 0 else scale[:, None])
    before = layer.input_quantizer.pre_quant_scale
    layer.input_quantizer.pre_quant_scale = scale if before is None else before * scale


@torch.no_grad()
def unsmooth(layer: LinearLayer) -> None:
    """Undo `apply_scale`."""
    scale = layer.input_quantizer.pre_quant_scale
    if scale is not None:
        layer.weight.mul_(scale if layer.channel_axis == 0 else scale[:, None])
        layer.input_quantizer.reset_pre_quant_scale()
