"""Integer products in PyTorch: those of fake quantization, on whole models and layer by layer."""

import copy
import pickle

import pytest
import torch
from torch import nn

import modelwright
from modelwright.nn.conv1d import Conv1D
from modelwright.quantization import (
    QuantDescriptor,
    Recipe,
    calibrate_weights,
    calibrating,
    int8_linear,
    int8_model,
    load_ranges,
    quantizers_of,
    swap,
)
from modelwright.quantization.int8_linear import Int8Linear, to_codes
from modelwright.quantization.int8_model import to_int8

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
IDS = torch.arange(24).view(2, 12)
ASYMMETRIC = QuantDescriptor(asymmetric=True)


def quantized(layer, descriptor, x, calibrated=True):
    model = nn.Sequential(layer)
    swap(model, Recipe(input=descriptor))
    if calibrated:
        with calibrating(model):
            model(x)
        load_ranges(model)
    calibrate_weights(model, "max")
    return model


def data(dtype=torch.float32):
    return (torch.randn(3, 7, 40, generator=torch.Generator().manual_seed(0)) * 2 + 0.5).to(dtype)


@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d"])
@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("descriptor", [QuantDescriptor(), ASYMMETRIC, QuantDescriptor(per_token=True)], ids=str)
def test_a_layer_is_its_fake_quantized_self(kind, calibrated, descriptor):
    torch.manual_seed(0)
    layer = Conv1D(24, 40) if kind == "conv1d" else nn.Linear(40, 24, bias=kind == "linear")
    nn.init.normal_(layer.weight)
    model = quantized(layer, descriptor, data(), calibrated and not descriptor.per_token)
    x = data()
    x[0, 0] *= 3
    expected = model(x).detach()
    assert list(to_int8(model, rows=None)) == ["0"]
    assert type(model[0]) is Int8Linear
    torch.testing.assert_close(model(x), expected, atol=5e-5, rtol=1e-5)
    assert model(x[:0]).shape == (0, 7, 24)
    assert not model(x).requires_grad


def test_unsigned_smoothed_and_learned_ranges():
    torch.manual_seed(0)
    x = data().abs()
    model = quantized(nn.Linear(40, 24), QuantDescriptor(unsigned=True), x)
    model[0].input_quantizer.pre_quant_scale = torch.rand(40)
    learned = quantized(nn.Linear(40, 24), QuantDescriptor(learn_amax=True, amax=2.0), x)
    for each in (model, learned):
        expected = each(x).detach()
        to_int8(each, rows=None)
        torch.testing.assert_close(each(x), expected, atol=5e-5, rtol=1e-5)


def test_codes_at_and_beyond_the_ends():
    x = torch.tensor([-1e30, -3.1, -0.5, 0.0, 0.5, 1.5, 2.5, 1e3, float("inf")])
    assert to_codes(x, 1.0, 3).tolist() == [0, 0, 3, 3, 3, 5, 5, 255, 255]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, generator=generator)
    expected = (x / 0.03).round().add(117).clamp(0, 255)
    assert (to_codes(x, 0.03, 117) - expected).abs().max() <= 1
    assert (to_codes(x, 0.03, 117) != expected).float().mean() < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_was(dtype):
    model = quantized(nn.Linear(40, 24), ASYMMETRIC, data())
    x = data(dtype)
    expected = model(x.float()).detach()
    to_int8(model, rows=None)
    assert model(x).dtype == dtype
    torch.testing.assert_close(model(x).float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("family", ["Bert", "QDQBert", "GPT2"])
def test_models(family):
    torch.manual_seed(0)
    model = getattr(modelwright, f"{family}Model")(getattr(modelwright, f"{family}Config")(**SIZES)).eval()
    with torch.no_grad():
        if family == "QDQBert":
            with calibrating(model):
                model(IDS)
            load_ranges(model), calibrate_weights(model, "max")
        expected = model(IDS)[0]
        assert model.to_int8(rows=None) is model
        found = model(IDS)[0]
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == (8 if family == "GPT2" else 12)
    # Of a float model, the error of 8 bits; of a quantized one, none but a code that falls to the other side.
    cosine = torch.cosine_similarity(found.flatten(1), expected.flatten(1)).min()
    assert cosine > (0.999 if family == "Bert" else 0.99)
    assert torch.equal(copy.deepcopy(model)(IDS)[0], found)


def test_what_is_faster_in_float_or_switched_off_stays_float(monkeypatch, caplog):
    model = modelwright.BertModel(modelwright.BertConfig(**SIZES)).eval()
    swap(model, Recipe(input=QuantDescriptor(per_token=True), rules=(("disable", r"layer\.0\.output"),)))
    monkeypatch.setattr(int8_model, "speedup", lambda inputs, outputs, *rest: 0.5 if inputs == outputs else 2.0)
    monkeypatch.setattr(int8_model, "has_int8_instructions", lambda: False)
    said = []
    monkeypatch.setattr(int8_model.logger, "warning_once", said.append)
    ratios = to_int8(model)
    assert sorted(set(ratios.values())) == [0.5, 2.0]
    assert len(ratios) == 11
    integer = [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]
    assert integer == [
        "encoder.layer.0.intermediate.dense",
        "encoder.layer.1.intermediate.dense",
        "encoder.layer.1.output.dense",
    ]
    assert not any(quantizer.is_enabled for quantizer in quantizers_of(model, r"query|value|layer.0.output").values())
    assert "run at 0.5 to 2.0 times the speed of float ones here (measured); those below 1 stay float" in said[0]


def test_the_probe_measures():
    assert int8_model.speedup(64, 32, 8, "static", torch.get_num_threads()) > 0
    assert int8_model.speedup(64, 32, 8, "token", torch.get_num_threads()) > 0


def test_without_integer_instructions_weights_have_seven_bits(monkeypatch):
    model = quantized(nn.Linear(40, 24), ASYMMETRIC, data())
    expected = model(data()).detach()
    monkeypatch.setattr(int8_linear, "has_int8_instructions", lambda: False)
    to_int8(model, rows=None)
    error = (model(data()) - expected).abs().max()
    assert 1e-4 < error < 0.1


def test_what_it_cannot_do_is_said(monkeypatch, tmp_path):
    model = modelwright.BertModel(modelwright.BertConfig(**SIZES)).eval()
    other = copy.deepcopy(model)
    model.to_int8(rows=None)
    with pytest.raises(ValueError, match=r"query: an INT8 layer has no state.*save the model before to_int8\(\)"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(ValueError, match="an INT8 layer loads nothing; load first"):
        model.load_state_dict(other.state_dict(), strict=False)
    with pytest.raises(ValueError, match="cannot be pickled"):
        pickle.dumps(model)
    with pytest.raises(ValueError, match="expected a tensor on the CPU, got one on meta"):
        model.encoder.layer[0].output.dense(torch.empty(2, 64, device="meta"))
    with pytest.raises(ValueError, match="to_int8: expected a model on the CPU, it is on meta"):
        to_int8(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"swap: ReLU has no linear layer that fits the recipe"):
        to_int8(nn.ReLU())
    swap(other, Recipe(input=QuantDescriptor(num_bits=4)))
    with pytest.raises(
        ValueError, match=r"expected 8 bits.*encoder.layer.0.attention.self.query._input_quantizer \(4b"
    ):
        other.to_int8()
    monkeypatch.setattr(int8_model, "is_int8_available", lambda: False)
    with pytest.raises(ValueError, match="this PyTorch has no oneDNN"):
        other.to_int8()
