"""Quantized layers: close to the float layer, its parameters' names, class-wide defaults, the toolkit's patch."""

import pytest
import torch
from torch import nn

from modelwright.nn.conv1d import Conv1D
from modelwright.quantization import (
    QuantConv1D,
    QuantConv1d,
    QuantConv2d,
    QuantDescriptor,
    QuantLinear,
    calibrate_weights,
    quant_modules,
)

PAIRS = [
    (nn.Linear, QuantLinear, (6, 5), (3, 6)),
    (Conv1D, QuantConv1D, (5, 6), (3, 6)),
    (nn.Conv1d, QuantConv1d, (6, 5, 3), (2, 6, 9)),
    (nn.Conv2d, QuantConv2d, (6, 5, 3), (2, 6, 9, 9)),
]


@pytest.mark.parametrize(("floating", "quantized", "sizes", "shape"), PAIRS)
def test_close_to_the_float_layer_with_a_range_for_each_output(floating, quantized, sizes, shape):
    torch.manual_seed(0)
    plain, layer = floating(*sizes), quantized(*sizes)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(shape)
    expected = plain(x)
    # Outputs of very different size need ranges of their own.
    scales = torch.logspace(-3, 3, 5).view([-1 if i == layer.channel_axis else 1 for i in range(plain.weight.dim())])
    for each in (plain, layer):
        each.weight.data *= scales
    expected = plain(x)
    calibrate_weights(layer, "max")
    assert layer.weight_quantizer.amax.numel() == 5
    axis = -1 if x.dim() == 2 else 1
    error = (layer(x) - expected).movedim(axis, 0).flatten(1).abs().amax(1)
    assert (error < 0.03 * expected.movedim(axis, 0).flatten(1).abs().amax(1)).all()
    layer.weight_quantizer.disable(), layer.input_quantizer.disable()
    torch.testing.assert_close(layer(x), expected)


def test_factory_arguments():
    layer = QuantLinear(3, 2, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta
    assert layer.weight.dtype == torch.bfloat16


def test_defaults_of_the_class(monkeypatch):
    for name in ("default_quant_desc_input", "default_quant_desc_weight"):
        monkeypatch.setattr(QuantLinear, name, getattr(QuantLinear, name))
    QuantLinear.set_default_quant_desc_input(QuantDescriptor(num_bits=4))
    QuantLinear.set_default_quant_desc_weight(QuantDescriptor(num_bits=5, axis=None))
    layer = QuantLinear(3, 2)
    assert (layer.input_quantizer.num_bits, layer.weight_quantizer.num_bits) == (4, 5)
    assert QuantConv1d(3, 2, 1).input_quantizer.num_bits == 8
    assert QuantLinear(3, 2, quant_desc_input=QuantDescriptor(num_bits=7)).input_quantizer.num_bits == 7
    with pytest.raises(ValueError, match="expected a QuantDescriptor, got int"):
        QuantLinear.set_default_quant_desc_input(8)


def test_refusals():
    with pytest.raises(TypeError, match="unknown keyword 'quant_desc_inputs'. Did you mean 'quant_desc_input'"):
        QuantLinear(3, 2, quant_desc_inputs=QuantDescriptor())
    with pytest.raises(ValueError, match="QuantConv1d: expected fake_quant=True for the weight"):
        QuantConv1d(3, 2, 1, quant_desc_weight=QuantDescriptor(fake_quant=False))
    with pytest.raises(ValueError, match="calibrate_weights: method: expected one of max, mse, percentile, got 'min'"):
        calibrate_weights(nn.Linear(1, 1), "min")


def test_the_patch_of_torch_nn():
    plain = nn.Linear, nn.Conv1d, nn.Conv2d
    quant_modules.initialize(float_module_list=["Conv2d"])
    try:
        assert isinstance(nn.Linear(2, 2), QuantLinear)
        assert nn.Conv2d is plain[2]
        with pytest.raises(ValueError, match="already in force"):
            quant_modules.initialize()
    finally:
        quant_modules.deactivate()
    assert (nn.Linear, nn.Conv1d, nn.Conv2d) == plain
    with pytest.raises(ValueError, match="float_module_list has \\['LSTM'\\]"):
        quant_modules.initialize(["LSTM"])
