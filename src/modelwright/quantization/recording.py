"""What the inputs of a model's quantized linear layers look like, channel by channel (I input channels)."""

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
    """What a layer's input looked like: the range of each channel [I].

    `shared_with` is the name of the first layer that is called with the same tensor, as keys are with queries.
    """

    minimum: Tensor
    maximum: Tensor
    shared_with: str

    @property
    def largest(self) -> Tensor:
        """The largest |x| of each channel."""
        return torch.maximum(-self.minimum, self.maximum)


def record_inputs(model: nn.Module, run: Callable[[], Any]) -> dict[str, LayerInput]:
    """Return what the inputs of the quantized linear layers look like while `run` calls the model.

    Let the quantizers be off, so that what is seen is float.
    """
    found: dict[str, LayerInput] = {}
    last: list[Any] = [None, ""]

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0] is not last[0]:
                last[:] = inputs[0], name
            minimum, maximum = torch.aminmax(inputs[0].detach().flatten(0, -2), dim=0)
            if (seen := found.get(name)) is None:
                found[name] = LayerInput(minimum, maximum, last[1])
                return
            seen.minimum = torch.minimum(seen.minimum, minimum)
            seen.maximum = torch.maximum(seen.maximum, maximum)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear_layers(model).items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
