"""to_int8: a model's linear layers as integer products in PyTorch itself, where that is faster here."""

import functools
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.quantization.descriptor import QuantDescriptor
from modelwright.quantization.int8_linear import Int8Linear, has_int8_instructions, is_int8_available
from modelwright.quantization.layers import QuantConv1D, QuantLinear
from modelwright.quantization.recipe import Recipe
from modelwright.quantization.recording import LinearLayer, linear_layers
from modelwright.quantization.swapping import swap

logger = get_logger(__name__)

_REPEATS = 7


@torch.no_grad()
def to_int8(model: nn.Module, recipe: Recipe | None = None, *, rows: int | None = 128) -> dict[str, float]:
    """Let the quantized linear layers of a model on the CPU multiply integers, in place, for inference.

    A model without quantized layers is quantized as `recipe` says first; by default the layers inside its encoder and
    decoder layers, the input's range taken token by token. Layers whose quantizers are off stay float, and other
    quantizers (attention's operands, residual additions) stay fake. rows: tokens of a batch with which each shape of
    layer is timed; layers that are faster in float stay float; None times nothing and takes all. Returns how many times
    as fast as its float product each layer's is, by name (NaN if not timed).

    There is no way back: weights are packed for this processor, so save the model before. No parameter requires a
    gradient afterwards. Raises InputError for a model that is elsewhere or has quantizers of linear layers with other
    than 8 bits, and where PyTorch has no such products; as `swap` does if nothing fits the recipe.
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices - {"cpu"}:
        raise InputError(f"to_int8: expected a model on the CPU, it is on {', '.join(sorted(devices))}")
    if not is_int8_available():
        raise InputError(
            "to_int8: this PyTorch has no oneDNN, whose products it needs; export the model to ONNX instead"
        )
    if recipe is not None or not linear_layers(model):
        swap(model, recipe or Recipe(input=QuantDescriptor(per_token=True)))
    layers = {name: layer for name, layer in linear_layers(model).items() if _is_on(layer)}
    check_layers(layers)
    ratios = {}
    for name, layer in layers.items():
        ratio = float("nan") if rows is None else _speedup_of(layer, rows)
        ratios[name] = ratio
        if ratio < 1:
            layer.input_quantizer.disable()
            layer.weight_quantizer.disable()
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Int8Linear(layer).train(layer.training))
    model.requires_grad_(False)
    stayed = [name for name, ratio in ratios.items() if ratio < 1]
    if stayed:
        logger.info(f"to_int8: {len(stayed)} of {len(ratios)} layers are faster in float here and stay so.")
    if ratios and rows is not None and not has_int8_instructions():
        logger.warning_once(
            "This processor has no instructions for products of 8-bit integers (VNNI, AMX, dot product): INT8 layers "
            f"run at {min(ratios.values()):.1f} to {max(ratios.values()):.1f} times the speed of float ones here "
            "(measured); those below 1 stay float."
        )
    return ratios


def _is_on(layer: LinearLayer) -> bool:
    return layer.input_quantizer.is_enabled and layer.weight_quantizer.is_enabled


def check_layers(layers: dict[str, LinearLayer]) -> None:
    """Raise InputError that names the quantizers that integer products of 8 bits cannot do, if there are any."""
    wrong = []
    for name, layer in layers.items():
        for which, quantizer in (("input", layer.input_quantizer), ("weight", layer.weight_quantizer)):
            axes = (None,) if which == "input" else (None, layer.channel_axis, (layer.channel_axis,))
            signed = which == "input" or not (quantizer.unsigned or quantizer.asymmetric)
            if quantizer.num_bits != 8 or quantizer.axis not in axes or not signed:
                wrong.append(f"{name}._{which}_quantizer ({quantizer.extra_repr()})")
    if wrong:
        raise InputError(
            "to_int8: expected 8 bits, one range for an input, and signed weights; disable() these quantizers to leave "
            f"their layers float: {', '.join(wrong)}"
        )


def _speedup_of(layer: LinearLayer, rows: int) -> float:
    inputs, outputs = layer.weight.shape if isinstance(layer, QuantConv1D) else layer.weight.shape[::-1]
    how = "token" if layer.input_quantizer.per_token else "static" if layer.input_quantizer.is_calibrated else "tensor"
    return speedup(inputs, outputs, rows, how, torch.get_num_threads())


@functools.cache
def speedup(inputs: int, outputs: int, rows: int, how: str, threads: int) -> float:  # noqa: ARG001 - a key of the cache
    """Return how many times as fast as in float32 an integer product is here, with `threads` threads.

    how: where the input's range is from: "static", each "tensor" or each "token".
    """
    layer = QuantLinear(inputs, outputs, quant_desc_input=QuantDescriptor(asymmetric=True, per_token=how == "token"))
    x = torch.randn(rows, inputs)
    if how == "static":
        layer.input_quantizer.set_amax(x.max(), x.min())
    integer = Int8Linear(layer)
    slow, fast = (_fastest(run) for run in (lambda: F.linear(x, layer.weight, layer.bias), lambda: integer(x)))
    return slow / fast


def _fastest(run: Any) -> float:
    taken = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
