"""Quantizing a model that exists: its linear layers become quantized ones, and its places for quantizers are filled.

Parameters stay the same objects under the same names, so that optimisers, ties and checkpoints go on working. Nothing
of torch is patched.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from modelwright.core.errors import InputError
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.decode_layout import RowLinear
from modelwright.quantization.descriptor import QuantDescriptor
from modelwright.quantization.layers import QuantConv1D, QuantConv1d, QuantConv2d, QuantLinear, QuantMixin
from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.recipe import Recipe
from modelwright.quantization.switches import quantizers_of

# Layers of just these classes: what a subclass adds would be lost.
_QUANTIZED: dict[type, type] = {
    nn.Linear: QuantLinear,
    RowLinear: QuantLinear,
    Conv1D: QuantConv1D,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
}


def swap(model: nn.Module, recipe: Recipe) -> list[str]:
    """Quantize `model` in place as `recipe` says, and return the names of its quantizers.

    What is quantized already stays as it is, but for the recipe's rules. Ranges come from calibration. If the model has
    a config, it notes the recipe, so that a saved model loads quantized. Raises InputError if nothing fits the recipe.
    """
    layers = [(name, module) for name, module in _linear_layers(model, recipe) if type(module) in _QUANTIZED]
    for name, module in layers:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _quantized(module, recipe))
    for owner, slot in _free_slots(model, recipe):
        owner.register_module(slot, TensorQuantizer(recipe.input))
    names = quantizers_of(model)
    if not names:
        raise InputError(
            f"swap: {type(model).__name__} has no linear layer that fits the recipe (layers={recipe.layers!r}); its "
            f"layers are {', '.join(sorted({type(module).__name__ for module in model.modules()})[:8])}, ..."
        )
    if recipe.slots and not any(_is_slot(name.rpartition(".")[2], recipe) for name in names):
        raise InputError(
            f"swap: {type(model).__name__} has no places for quantizers of matrix products or additions, which "
            f"placement={recipe.placement!r} needs; use placement='linear'"
        )
    apply_rules(model, recipe)
    config = getattr(model, "config", None)
    if config is not None:
        config.quantization_recipe = recipe.to_dict()
    return list(names)


def apply_rules(model: nn.Module, recipe: Recipe) -> None:
    """Enable and disable quantizers as the recipe's rules say; raise InputError for a rule that fits none."""
    for what, pattern in recipe.rules:
        found = quantizers_of(model, pattern)
        if not found:
            raise InputError(f"swap: no quantizer of {type(model).__name__} fits the rule ({what!r}, {pattern!r})")
        for quantizer in found.values():
            (quantizer.enable if what == "enable" else quantizer.disable)()


def _linear_layers(model: nn.Module, recipe: Recipe) -> Iterator[tuple[str, nn.Module]]:
    if recipe.layers is not None:
        wanted = re.compile(recipe.layers)
        yield from ((name, module) for name, module in model.named_modules() if name and wanted.search(name))
        return
    blocks: list[tuple[str, nn.Module]] = [
        (name, module) for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    for outer, block in blocks or [("", model)]:
        prefix = f"{outer}." if outer else ""
        yield from ((prefix + name, module) for name, module in block.named_modules() if name)


def _free_slots(model: nn.Module, recipe: Recipe) -> list[tuple[nn.Module, str]]:
    return [
        (owner, slot)
        for owner in model.modules()
        for slot, module in owner._modules.items()
        if module is None and _is_slot(slot, recipe)
    ]


def _is_slot(name: str, recipe: Recipe) -> bool:
    return bool(recipe.slots) and name.startswith(recipe.slots) and name.endswith("_input_quantizer")


def _quantized(layer: nn.Module, recipe: Recipe) -> nn.Module:
    """Return the quantized layer with the parameters, hooks and mode of `layer`."""
    kind: Any = _QUANTIZED[type(layer)]
    swapped = copy.copy(layer)
    # A shallow copy shares the dictionaries of the original.
    for name in ("_parameters", "_buffers", "_modules"):
        setattr(swapped, name, dict(getattr(layer, name)))
    swapped.__class__ = kind
    assert isinstance(swapped, QuantMixin)
    swapped.init_quantizer(recipe.input, _of_channels(recipe.weight, kind))
    return swapped.train(layer.training)


def _of_channels(descriptor: QuantDescriptor, kind: type[QuantMixin]) -> QuantDescriptor:
    if descriptor.axis not in (0, (0,), [0]):
        return descriptor
    return QuantDescriptor(
        **{**descriptor.dict(), "axis": kind.channel_axis if descriptor.axis == 0 else (kind.channel_axis,)}
    )
