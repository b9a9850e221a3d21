"""SmoothQuant: nothing changes in float, outliers stop costing what they cost, and the search finds that."""

import pytest
import torch
from torch import nn

from modelwright.nn.conv1d import Conv1D
from modelwright.quantization import (
    QuantDescriptor,
    Recipe,
    calibrate_weights,
    calibrating,
    load_ranges,
    quantization_disabled,
    swap,
)
from modelwright.quantization.recording import record_inputs
from modelwright.quantization.smoothing import smooth, unsmooth
from modelwright.quantization.smoothing_search import search_alphas

OUTLIERS = torch.tensor([1.0, 1.0, 100.0, 1.0, 1.0, 30.0, 1.0, 1.0])
KINDS = [QuantDescriptor(), QuantDescriptor(asymmetric=True), QuantDescriptor(per_token=True)]


def model_and_data(kind, descriptor=None):
    torch.manual_seed(0)
    layer = nn.Linear(8, 16) if kind is nn.Linear else Conv1D(16, 8)
    layer.weight.data.normal_(std=0.5)
    model = nn.Sequential(layer)
    swap(model, Recipe(input=descriptor or QuantDescriptor()))
    return model, torch.randn(64, 8) * OUTLIERS


def inputs_of(model, x, **settings):
    with quantization_disabled(model):
        return record_inputs(model, lambda: [model(part) for part in x.split(16)], **settings)


def quantized_error(model, x):
    with quantization_disabled(model):
        wanted = model(x)
    for quantizer in (model[0].input_quantizer, model[0].weight_quantizer):
        quantizer.reset_amax()
        quantizer.calibrator.reset()
    with calibrating(model):
        model(x)
    load_ranges(model), calibrate_weights(model, "max")
    return (model(x) - wanted).square().mean().item()


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_the_float_model_stays_and_the_error_falls(kind):
    model, x = model_and_data(kind)
    inputs = inputs_of(model, x, rows=24)
    assert torch.equal(inputs["0"].largest, x.abs().amax(0))
    assert 16 <= len(inputs["0"].rows) <= 24
    with quantization_disabled(model):
        before, weight = model(x), model[0].weight.detach().clone()
    plain = quantized_error(model, x)
    smooth(model, inputs, 0.5)
    with quantization_disabled(model):
        torch.testing.assert_close(model(x), before)
    assert not torch.allclose(model[0].weight, weight)
    assert quantized_error(model, x) < 0.2 * plain
    smooth(model, inputs, {"0": 0.7})
    with quantization_disabled(model):
        torch.testing.assert_close(model(x), before)
    unsmooth(model[0])
    torch.testing.assert_close(model[0].weight.detach(), weight)
    assert "0._input_quantizer._pre_quant_scale" not in model.state_dict()


@pytest.mark.parametrize("descriptor", KINDS, ids=str)
def test_the_search_takes_the_best_alpha(descriptor):
    model, x = model_and_data(nn.Linear, descriptor)
    inputs = inputs_of(model, x)
    best = search_alphas(model, inputs)["0"]
    errors = {}
    for alpha in (0.3, 0.5, 0.8, 1.0, best):
        smooth(model, inputs, alpha)
        errors[alpha] = quantized_error(model, x)
    assert errors[best] <= 1.3 * min(errors.values())


def test_where_smoothing_does_not_help_there_is_none():
    model, _ = model_and_data(nn.Linear)
    model[0].weight.data.fill_(0.5)
    assert search_alphas(model, inputs_of(model, torch.ones(32, 8))) == {}


def test_alpha_out_of_range():
    model, x = model_and_data(nn.Linear)
    with pytest.raises(ValueError, match=r"smooth: expected alpha from 0 to 1, got 1.5 for 0"):
        smooth(model, inputs_of(model, x), 1.5)
