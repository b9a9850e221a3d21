"""Quantizing a trained model without training: calibrate, search, and leave float what costs too much.

The accuracy is how close the outputs stay to the float model's: the cosine of the two vectors of each text. What it is
measured on is held out of calibration, so that ranges which are too narrow for other texts show.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.quantization.descriptor import QuantDescriptor
from modelwright.quantization.recipe import Recipe, Rule
from modelwright.quantization.recording import LayerInput, LinearLayer, linear_layers, record_inputs
from modelwright.quantization.smoothing import smooth, unsmooth
from modelwright.quantization.swapping import swap
from modelwright.quantization.switches import calibrating, load_ranges, quantization_disabled, switches_restored
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


@dataclass(frozen=True)
class Fidelity:
    """How close outputs are to the float model's: the mean and the lowest cosine over the texts."""

    mean: float
    minimum: float

    @classmethod
    def of(cls, outputs: Tensor, reference: Tensor) -> "Fidelity":
        """Return that of outputs [texts, ...] and the float model's."""
        cosines = torch.cosine_similarity(outputs.flatten(1).double(), reference.flatten(1).double(), dim=-1)
        return cls(float(cosines.mean()), float(cosines.min()))


@dataclass(frozen=True)
class Bar:
    """What is accurate enough: a mean cosine, and a lowest one that may be 2.5 times as far from 1."""

    mean: float = 0.998

    @property
    def minimum(self) -> float:
        """The lowest cosine that is accurate enough."""
        return 1 - 2.5 * (1 - self.mean)

    def shortfall(self, fidelity: Fidelity) -> float:
        """Return how far from 1 the worse of the two figures is, as a share of what is allowed: up to 1 is enough."""
        return max((1 - fidelity.mean) / (1 - self.mean), (1 - fidelity.minimum) / (1 - self.minimum))


@dataclass
class AutoResult:
    """What `auto_quantize` chose.

    alpha: of the smoothing. tried: the held-out fidelity of each alpha. sensitivity: by layer, 1 - mean cosine with
    only that layer quantized. float_layers: those that stayed float, with the fidelity after each. float_share: of
    the products of all linear layers that could be quantized.
    """

    alpha: float
    fidelity: Fidelity
    tried: dict[float, Fidelity] = field(default_factory=dict)
    sensitivity: dict[str, float] = field(default_factory=dict)
    float_layers: dict[str, Fidelity] = field(default_factory=dict)
    float_share: float = 0.0


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
    bar: Bar | None = None,
    alphas: Sequence[float] = ALPHAS,
    most_float: float = MOST_FLOAT,
    progress: Progress = _silent,
) -> AutoResult:
    """Quantize `model`, in place, as accurately as `bar` asks if that can be, and return what was chosen.

    Inputs get a zero point and a static range, weights a range for each output; SmoothQuant's alpha is searched. Then
    the layers that cost most, measured one at a time, become float again until the bar holds with room to spare, or
    `most_float` of the linear products are float. `run` calls the model on the texts for the ranges, `run_held_out` on
    others, on which it is judged, `run_few` (that again, if not given) on those on which each layer is measured. The
    choice is noted in the model's config. progress: called with what is done, a number and the total.
    """
    bar = bar or Bar()
    with quantization_disabled(model):
        reference = run_held_out()
    recipe = Recipe("linear", input=QuantDescriptor(asymmetric=True))
    swap(model, recipe)
    layers = linear_layers(model)
    with quantization_disabled(model):
        inputs = record_inputs(model, run)
    tried = {}
    for done, alpha in enumerate(alphas):
        progress("searching how to smooth", done, len(alphas))
        _smooth_and_set_ranges(model, inputs, alpha)
        tried[alpha] = Fidelity.of(run_held_out(), reference)
    best = min(tried, key=lambda alpha: bar.shortfall(tried[alpha]))
    _smooth_and_set_ranges(model, inputs, best)
    result = AutoResult(alpha=best, fidelity=tried[best], tried=tried)
    result.sensitivity = sensitivity(model, run_few or run_held_out, progress=progress)
    total = sum(layer.weight.numel() for layer in layers.values())
    for name in sorted(result.sensitivity, key=result.sensitivity.__getitem__, reverse=True):
        share = layers[name].weight.numel() / total
        if bar.shortfall(result.fidelity) <= AIM:
            break
        if result.float_share + share > most_float:
            continue
        _make_float(layers[name])
        result.fidelity = Fidelity.of(run_held_out(), reference)
        result.float_layers[name] = result.fidelity
        result.float_share += share
        progress("leaving layers float", len(result.float_layers), len(layers))
    if hasattr(model, "config"):
        rules = tuple(_rule(model, name) for name in result.float_layers)
        model.config.quantization_recipe = Recipe(recipe.placement, recipe.input, rules=rules).to_dict()
    return result


@torch.no_grad()
def sensitivity(model: nn.Module, run: Run, *, progress: Progress = _silent) -> dict[str, float]:
    """Return for each enabled linear layer 1 - the mean cosine to the float outputs with only that layer quantized.

    The switches are as before afterwards.
    """
    layers = {name: layer for name, layer in linear_layers(model).items() if layer.input_quantizer.is_enabled}
    costs = {}
    with quantization_disabled(model):
        reference = run()
        for done, (name, layer) in enumerate(layers.items()):
            progress("measuring what each layer costs", done, len(layers))
            with switches_restored(layer):
                layer.input_quantizer.enable()
                layer.weight_quantizer.enable()
                costs[name] = 1 - Fidelity.of(run(), reference).mean
    return costs


def _smooth_and_set_ranges(model: nn.Module, inputs: dict[str, LayerInput], alpha: float) -> None:
    smooth(model, inputs, alpha)
    for name, layer in linear_layers(model).items():
        seen, quantizer = inputs[name], layer.input_quantizer
        scale = quantizer.pre_quant_scale
        assert scale is not None
        quantizer.set_amax((seen.maximum * scale).max(), (seen.minimum * scale).min())
    calibrate_weights(model, "max")


def _rule(model: Any, layer: str) -> Rule:
    """Return the rule that leaves a layer float, in the model and in the base model inside it."""
    inner = layer.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")
    return "disable", rf"(^|\.){re.escape(inner)}\._"


def _make_float(layer: LinearLayer) -> None:
    unsmooth(layer)
    for quantizer in (layer.input_quantizer, layer.weight_quantizer):
        quantizer.reset_amax()
        quantizer.disable()
