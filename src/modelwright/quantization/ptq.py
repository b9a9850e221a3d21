"""Quantizing a trained model without training: calibrate, search, and leave float what costs too much.

The accuracy is how close the outputs stay to the float model's, the cosine of the two vectors of each text, or a score
of the task (fidelity.py). What it is measured on is held out of calibration, so that ranges which are too narrow for
other texts show.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.quantization.descriptor import QuantDescriptor
from modelwright.quantization.fidelity import AccuracyBar, Bar, Fidelity
from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.recipe import Recipe, Rule
from modelwright.quantization.recording import LayerInput, linear_layers, record_inputs
from modelwright.quantization.smoothing import smooth, unsmooth
from modelwright.quantization.swapping import swap
from modelwright.quantization.switches import (
    calibrating,
    load_ranges,
    quantization_disabled,
    quantizers_of,
    switches_restored,
)
from modelwright.quantization.weight_calibration import calibrate_weights

# Above these, scales follow the largest inputs that calibration saw so closely that other texts leave the ranges.
ALPHAS = (0.5, 0.6, 0.65, 0.7)
# What is aimed at, as a share of the distance from 1 that the bar allows: texts of another kind than those that judge
# are further off.
AIM = 0.5
MOST_FLOAT = 0.2
# Calls the model on texts; the outputs [texts, ...].
Run = Callable[[], Tensor]
Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass
class Fallback:
    """What became float again so that a bar holds.

    fidelity: in the end. float_layers: those that are float, with the fidelity after each. float_share: of the products
    of all linear layers that could be quantized.
    """

    fidelity: Fidelity
    float_layers: dict[str, Fidelity] = field(default_factory=dict)
    float_share: float = 0.0


@dataclass
class AutoResult(Fallback):
    """What `auto_quantize` chose.

    alpha: of the smoothing. tried: the held-out fidelity of each alpha. sensitivity: as `sensitivity` returns it.
    """

    alpha: float = 0.0
    tried: dict[float, Fidelity] = field(default_factory=dict)
    sensitivity: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def calibrate(model: nn.Module, run: Callable[[], Any], method: str = "max", **kwargs: Any) -> None:
    """Give a quantized model its ranges: of activations from what `run` lets it see, of weights from themselves.

    method, kwargs: as for `load_ranges`. Raises InputError that names the quantizers that saw nothing.
    """
    with calibrating(model):
        run()
    if unseen := load_ranges(model, method, **kwargs):
        raise InputError(f"calibrate: {len(unseen)} quantizers saw no tensor: {', '.join(unseen)}")
    calibrate_weights(model, "max")


@torch.no_grad()
def auto_quantize(
    model: Any,
    run: Run,
    run_held_out: Run,
    *,
    run_few: Run | None = None,
    bar: AccuracyBar | None = None,
    alphas: Sequence[float] = ALPHAS,
    most_float: float = MOST_FLOAT,
    symmetric: bool = False,
    progress: Progress = _silent,
) -> AutoResult:
    """Quantize `model`, in place, as accurately as `bar` asks if that can be, and return what was chosen.

    Inputs get a static range, with a zero point unless `symmetric`, weights a range for each output; SmoothQuant's
    alpha is searched, by the cosine, which tells more of a few texts than a score does. Then layers become float again
    as `leave_float` says. `run` calls the model on the texts for the ranges, `run_held_out` on others, on which it is
    judged, `run_few` (that again, if not given) on those on which each layer is measured. The choice is noted in the
    model's config. progress: called with what is done, a number and the total.
    """
    bar = bar or Bar()
    with quantization_disabled(model):
        reference = run_held_out()
    swap(model, Recipe("linear", input=QuantDescriptor(asymmetric=not symmetric)))
    with quantization_disabled(model):
        inputs = record_inputs(model, run)
    tried = {}
    for done, alpha in enumerate(alphas):
        progress("searching how to smooth", done, len(alphas))
        _smooth_and_set_ranges(model, inputs, alpha)
        tried[alpha] = bar.judge(run_held_out(), reference)
    best = min(tried, key=lambda alpha: Bar().shortfall(tried[alpha]))
    _smooth_and_set_ranges(model, inputs, best)
    costs = sensitivity(model, run_few or run_held_out, progress=progress)
    left = leave_float(model, costs, run_held_out, reference, bar=bar, most_float=most_float, progress=progress)
    return AutoResult(left.fidelity, left.float_layers, left.float_share, best, tried, costs)


@torch.no_grad()
def sensitivity(model: nn.Module, run: Run, *, progress: Progress = _silent) -> dict[str, float]:
    """Return what is lost with one thing alone quantized: 1 - the mean cosine to the float outputs, by name.

    A thing is a linear layer, with its input and its weight, or another quantizer, of an operand of a product or an
    addition; those that are enabled. The switches are as before afterwards.
    """
    groups = _groups(model)
    costs = {}
    with quantization_disabled(model):
        reference = run()
        for done, (name, quantizers) in enumerate(groups.items()):
            progress("measuring what each layer costs", done, len(groups))
            with switches_restored(model):
                for quantizer in quantizers:
                    quantizer.enable()
                costs[name] = 1 - Fidelity.of(run(), reference).mean
    return costs


@torch.no_grad()
def leave_float(
    model: Any,
    costs: Mapping[str, float],
    run_held_out: Run,
    reference: Tensor,
    *,
    bar: AccuracyBar,
    most_float: float = MOST_FLOAT,
    progress: Progress = _silent,
) -> Fallback:
    """Make things of a quantized model float, in place, that which costs most first, until `bar` holds.

    It is to hold with room to spare (AIM); at most `most_float` of the linear products become float. costs: of
    `sensitivity`. reference: the float model's outputs where `run_held_out` calls the model. The choice is added to the
    recipe in the model's config.
    """
    layers = linear_layers(model)
    total = sum(layer.weight.numel() for layer in layers.values())
    groups = _groups(model)
    left = Fallback(bar.judge(run_held_out(), reference))
    for name in sorted(costs, key=costs.__getitem__, reverse=True):
        share = layers[name].weight.numel() / total if name in layers else 0.0
        if bar.shortfall(left.fidelity) <= AIM:
            break
        if left.float_share + share > most_float:
            continue
        if name in layers:
            unsmooth(layers[name])
        for quantizer in groups[name]:
            quantizer.reset_amax()
            quantizer.disable()
        left.fidelity = bar.judge(run_held_out(), reference)
        left.float_layers[name] = left.fidelity
        left.float_share += share
        progress("leaving layers float", len(left.float_layers), len(groups))
    if left.float_layers and hasattr(model, "config"):
        recipe = Recipe.from_dict(model.config.quantization_recipe)
        rules = tuple(_rule(model, name, is_layer=name in layers) for name in left.float_layers)
        model.config.quantization_recipe = replace(recipe, rules=(*recipe.rules, *rules)).to_dict()
    return left


def _groups(model: nn.Module) -> dict[str, list[TensorQuantizer]]:
    """Return the enabled quantizers: by linear layer those of its input and weight, any other by itself."""
    groups = {
        name: [layer.input_quantizer, layer.weight_quantizer]
        for name, layer in linear_layers(model).items()
        if layer.input_quantizer.is_enabled
    }
    of_layers = {id(quantizer) for layer in linear_layers(model).values() for quantizer in layer.children()}
    others = {name: [each] for name, each in quantizers_of(model).items() if id(each) not in of_layers}
    return groups | {name: found for name, found in others.items() if found[0].is_enabled}


def _smooth_and_set_ranges(model: nn.Module, inputs: dict[str, LayerInput], alpha: float) -> None:
    smooth(model, inputs, alpha)
    for name, layer in linear_layers(model).items():
        seen, quantizer = inputs[name], layer.input_quantizer
        scale = quantizer.pre_quant_scale
        assert scale is not None
        if quantizer.asymmetric:
            quantizer.set_amax((seen.maximum * scale).max(), (seen.minimum * scale).min())
        else:
            quantizer.set_amax((seen.largest * scale).max())
    calibrate_weights(model, "max")


def _rule(model: Any, name: str, *, is_layer: bool) -> Rule:
    """Return the rule that leaves something float, in the model and in the base model inside it."""
    inner = name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")
    return "disable", rf"(^|\.){re.escape(inner)}" + (r"\._" if is_layer else "$")
