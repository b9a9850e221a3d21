"""What the inputs of a model's quantized linear layers look like, channel by channel.

Legend: R rows (tokens) kept of a layer's input, I input channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.quantization.layers import QuantConv1D, QuantLinear

LinearLayer = QuantLinear | QuantConv1D


def linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """Return the quantized linear layers of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LinearLayer)}


@dataclass
class LayerInput:
    """What a layer's input looked like: the range of each channel [I], and some of its rows [R, I]."""

    minimum: Tensor
    maximum: Tensor
    rows: Tensor

    @property
    def largest(self) -> Tensor:
        """The largest |x| of each channel."""
        return torch.maximum(-self.minimum, self.maximum)


def record_inputs(model: nn.Module, run: Callable[[], Any], rows: int = 512) -> dict[str, LayerInput]:
    """Return what the inputs of the quantized linear layers look like while `run` calls the model.

    Of the tokens, `rows` at most are kept, the first ones of each call in equal parts as far as they go. Let the
    quantizers be off, so that what is seen is float.
    """
    found: dict[str, LayerInput] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x_RI = inputs[0].detach().flatten(0, -2)
            minimum, maximum = torch.aminmax(x_RI, dim=0)
            # Every few rows, so that more than the first text is looked at.
            some = x_RI[:: max(1, 4 * len(x_RI) // rows)]
            if (seen := found.get(name)) is None:
                found[name] = LayerInput(minimum, maximum, some[:rows].clone())
                return
            seen.minimum = torch.minimum(seen.minimum, minimum)
            seen.maximum = torch.maximum(seen.maximum, maximum)
            seen.rows = torch.cat([seen.rows, some[: rows - len(seen.rows)]])

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear_layers(model).items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
