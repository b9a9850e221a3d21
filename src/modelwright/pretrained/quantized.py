"""Quantized models: built as their config's recipe says, and loaded with the ranges of their checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch

from modelwright.checkpoint.headers import TensorInfo
from modelwright.nn.walk import modules_with

if TYPE_CHECKING:
    from modelwright.quantization.recipe import Recipe


class Int8Mixin:
    """Running a model with 8-bit integers in PyTorch itself."""

    def to_int8(self, recipe: "Recipe | None" = None, *, rows: int | None = 128) -> Self:
        """Let the linear layers multiply 8-bit integers on this CPU, in place, for inference; return the model.

        Layers that are faster in float stay float. A calibrated model keeps its ranges, a float one takes those of each
        token, or what `recipe` says. Weights are packed for this processor, so there is no way back: the model cannot
        be saved, trained or moved afterwards. See `modelwright.quantization.to_int8`, which says by layer how much
        faster it is, for rows and for what is raised.
        """
        from modelwright.quantization.int8_model import to_int8

        to_int8(self, recipe, rows=rows)  # type: ignore[arg-type]
        return self


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
