"""The alpha of SmoothQuant for each layer by itself: the one whose quantized layer differs least from the float one.

Legend: R rows (tokens) kept of a layer's input, I input and O output channels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.ranges import amax_of
from modelwright.quantization.recording import LayerInput, LinearLayer, linear_layers
from modelwright.quantization.smoothing import smoothing_scale

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@torch.no_grad()
def search_alphas(
    model: nn.Module, inputs: Mapping[str, LayerInput], alphas: Sequence[float] = ALPHAS
) -> dict[str, float]:
    """Return for each layer the alpha with the least mean square error of its output, where that beats no smoothing."""
    layers, best = linear_layers(model), {}
    for name, seen in inputs.items():
        layer = layers[name]
        errors = {alpha: _error(layer, seen, smoothing_scale(layer, seen.largest, alpha)) for alpha in alphas}
        alpha = min(errors, key=errors.__getitem__)
        if errors[alpha] < _error(layer, seen, torch.ones_like(seen.largest)):
            best[name] = alpha
    return best


def _error(layer: LinearLayer, seen: LayerInput, scale_I: Tensor) -> float:
    across = scale_I if layer.channel_axis == 0 else scale_I[:, None]
    weight = layer.weight / across
    quantized = _with_range(layer.weight_quantizer, amax_of(weight, layer.weight_quantizer.axis), None)(weight)
    x_RI = seen.rows * scale_I
    minimum, maximum = (seen.minimum * scale_I).min(), (seen.maximum * scale_I).max()
    x_RI = _with_range(layer.input_quantizer, torch.maximum(-minimum, maximum), (minimum, maximum))(x_RI)
    turned = layer.channel_axis == 0
    difference = x_RI @ (quantized.T if turned else quantized) - seen.rows @ (
        layer.weight.T if turned else layer.weight
    )
    return float(difference.square().mean())


def _with_range(like: TensorQuantizer, amax: Tensor, two_sided: tuple[Tensor, Tensor] | None) -> TensorQuantizer:
    """Return a quantizer like another one, but with this range."""
    quantizer = like.like()
    if two_sided is not None and like.asymmetric and not like.per_token:
        quantizer.set_amax(two_sided[1], two_sided[0])
    elif not like.per_token:
        quantizer.set_amax(amax)
    return quantizer
