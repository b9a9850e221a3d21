"""The ranges of a model's weights, which need no data."""

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.core.errors import check_choice
from modelwright.quantization import histogram_search
from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.ranges import amax_of


def calibrate_weights(
    model: nn.Module,
    method: str = "percentile",
    perchannel: bool = True,
    percentile: float = 99.99,
    num_bins: int = 2048,
) -> None:
    """Set the range of every weight quantizer in `model`.

    method: "max", "percentile" or "mse", whatever the quantizers' own calibrators are. perchannel: a range for each
    output channel, else one for the weight. num_bins: of the histograms of the last two. Raises InputError for another
    method.
    """
    check_choice("calibrate_weights: method", method, ("max", "mse", "percentile"))
    for module in model.modules():
        quantizer, weight = getattr(module, "weight_quantizer", None), getattr(module, "weight", None)
        if not isinstance(quantizer, TensorQuantizer) or not isinstance(weight, Tensor):
            continue
        axis = getattr(module, "channel_axis", 0) if perchannel else None
        if method == "max":
            amax = amax_of(weight, axis)
        else:
            channels = [weight] if axis is None else weight.detach().unbind(axis)
            ranges = [_searched(channel, quantizer, method, percentile, num_bins) for channel in channels]
            amax = ranges[0] if axis is None else torch.stack(ranges)
        if axis is not None:
            amax = amax.reshape([size if i == axis else 1 for i, size in enumerate(weight.shape)])
        quantizer.set_amax(amax.to(weight.device))


def _searched(weight: Tensor, quantizer: TensorQuantizer, method: str, percentile: float, num_bins: int) -> Tensor:
    values = weight.detach().abs().float().cpu().numpy()
    counts, edges = np.histogram(values, bins=num_bins, range=(0, values.max()))
    return histogram_search.search(
        method, counts, edges, num_bits=quantizer.num_bits, unsigned=quantizer.unsigned, percentile=percentile
    )
