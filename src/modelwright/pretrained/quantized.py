"""Quantized models: built as their config's recipe says, and loaded with the ranges of their checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch

from modelwright.checkpoint.headers import TensorInfo
from modelwright.nn.walk import modules_with


def quantize_as_configured(model: Any) -> None:
    """Quantize a model that is being built as `config.quantization_recipe` says, if there is one.

    Every model around the base model does so again; what is quantized stays as it is. Raises as `swap` does.
    """
    recipe = getattr(model.config, "quantization_recipe", None)
    if recipe is not None:
        from modelwright.quantization.recipe import Recipe
        from modelwright.quantization.swapping import swap

        swap(model, Recipe.from_dict(recipe))


def make_optional_buffers(model: Any, infos: Mapping[str, TensorInfo]) -> None:
    """Make, on meta, the buffers that modules list in `optional_buffers` and that a checkpoint has."""
    prefix = f"{model.base_model_prefix}."
    for name, module, leaves in modules_with(model, "optional_buffers"):
        for leaf in leaves:
            target = f"{name}.{leaf}"
            stored = (infos.get(spelling) for spelling in (target, prefix + target, target.removeprefix(prefix)))
            info = next((found for found in stored if found is not None), None)
            if info is not None:
                module.register_buffer(leaf, torch.empty(info.shape, dtype=info.dtype, device="meta"))
