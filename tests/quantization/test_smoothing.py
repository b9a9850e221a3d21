"""SmoothQuant: nothing changes in float, and outliers stop costing what they cost."""

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

OUTLIERS = torch.tensor([1.0, 1.0, 100.0, 1.0, 1.0, 30.0, 1.0, 1.0])


def model_and_data(kind, descriptor=None):
    torch.manual_seed(0)
    layer = nn.Linear(8, 16) if kind is nn.Linear else Conv1D(16, 8)
    layer.weight.data.normal_(std=0.5)
    model = nn.Sequential(layer)
    swap(model, Recipe(input=descriptor or QuantDescriptor()))
    return model, torch.randn(64, 8) * OUTLIERS


def inputs_of(model, x):
    with quantization_disabled(model):
        return record_inputs(model, lambda: [model(part) for part in x.split(16)])


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
    inputs = inputs_of(model, x)
    assert torch.equal(inputs["0"].largest, x.abs().amax(0))
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


def test_layers_that_share_a_tensor_share_its_scale():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.other = nn.Linear(8, 4), nn.Linear(8, 6), nn.Linear(4, 4)

        def forward(self, x):
            left, right = self.left(x), self.right(x)
            return left, right, self.other(left)

    torch.manual_seed(0)
    model, x = Split(), torch.randn(64, 8) * OUTLIERS
    swap(model, Recipe())
    with quantization_disabled(model):
        inputs = record_inputs(model, lambda: model(x))
        before = model(x)
    assert {name: seen.shared_with for name, seen in inputs.items()} == {
        "left": "left",
        "right": "left",
        "other": "other",
    }
    smooth(model, inputs, 0.5)
    assert torch.equal(model.left.input_quantizer.pre_quant_scale, model.right.input_quantizer.pre_quant_scale)
    with quantization_disabled(model):
        torch.testing.assert_close(model(x), before)


def test_alpha_out_of_range():
    model, x = model_and_data(nn.Linear)
    with pytest.raises(ValueError, match=r"smooth: expected alpha from 0 to 1, got 1.5 for 0"):
        smooth(model, inputs_of(model, x), 1.5)
