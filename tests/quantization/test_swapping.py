"""Quantizing a model that exists, by recipe."""

import pytest
import torch
from torch import nn

from modelwright import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.decode_layout import lay_out_for_decoding
from modelwright.quantization import (
    QuantConv1D,
    QuantDescriptor,
    QuantLinear,
    Recipe,
    calibrate_weights,
    calibrating,
    load_ranges,
    quantization_disabled,
    quantizers_of,
    swap,
)

IDS = torch.arange(1, 11).view(2, 5)
BERT = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 8,
}
GPT2 = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}


def bert():
    torch.manual_seed(0)
    return BertModel(BertConfig(**BERT)).eval()


@pytest.mark.parametrize(("placement", "count"), [("linear", 12), ("linear+matmul", 16), ("full", 20)])
def test_placements(placement, count):
    model = bert()
    parameters, names, expected = dict(model.named_parameters()), list(model.state_dict()), model(IDS)[0]
    optimizer_sees = {id(parameter) for parameter in model.parameters()}
    swapped = swap(model, Recipe(placement))
    assert len(swapped) == 2 * count
    assert list(model.state_dict()) == names
    assert {id(parameter) for parameter in model.parameters()} == optimizer_sees
    assert dict(model.named_parameters()).keys() == parameters.keys()
    with quantization_disabled(model):
        torch.testing.assert_close(model(IDS)[0], expected)
    assert not torch.equal(model(IDS)[0], expected)
    assert type(model.pooler.dense) is nn.Linear
    assert swap(model, Recipe(placement)) == swapped


def test_a_saved_model_loads_quantized(tmp_path):
    model = bert()
    swap(model, Recipe("linear", input=QuantDescriptor(asymmetric=True), rules=(("disable", r"layer\.0\.output"),)))
    with calibrating(model):
        model(IDS)
    load_ranges(model), calibrate_weights(model, "max")
    model.save_pretrained(tmp_path)
    loaded = BertModel.from_pretrained(tmp_path, strict=True)
    assert repr(loaded) == repr(model)
    assert torch.equal(loaded(IDS)[0], model(IDS)[0])
    disabled = [name for name, quantizer in quantizers_of(loaded).items() if not quantizer.is_enabled]
    assert disabled == [f"encoder.layer.0.output.dense._{kind}_quantizer" for kind in ("input", "weight")]


def test_layers_that_lie_the_other_way_round_have_a_range_for_each_output():
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    swap(model, Recipe())
    layer = model.transformer.h[0].attn.c_attn
    assert type(layer) is QuantConv1D
    calibrate_weights(model, "max")
    assert layer.weight_quantizer.amax.shape == (1, 24)
    assert type(model.lm_head) is nn.Linear


def test_layers_by_name_and_of_no_model_of_ours():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Conv1d(4, 4, 1), Conv1D(2, 4)), nn.Linear(2, 2))
    swap(model, Recipe(layers=r"^1\.1$"))
    assert [type(module) for module in model[1]] == [nn.Conv1d, QuantConv1D]
    assert type(model[0]) is nn.Linear
    swap(model, Recipe())
    assert type(model[0]) is QuantLinear


def test_hooks_and_mode_of_a_layer_stay():
    model, calls = nn.Sequential(nn.Linear(3, 3)).eval(), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    swap(model, Recipe())
    model(torch.ones(1, 3))
    assert calls == [1]
    assert not model[0].input_quantizer.training


def test_layers_that_are_laid_out_for_decoding_are_quantized_too():
    model = bert()
    expected = swap(model, Recipe())
    quantized = model(IDS).last_hidden_state
    model = bert()
    assert lay_out_for_decoding(model)
    assert swap(model, Recipe()) == expected
    torch.testing.assert_close(model(IDS).last_hidden_state, quantized)


def test_t5_is_quantized_without_gradients_too():
    torch.manual_seed(0)
    # So large that few rows of a plain layer would be multiplied another way.
    sizes = {"d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 256, "num_layers": 1}
    model = T5EncoderModel(T5Config(vocab_size=20, **sizes)).eval()
    swap(model, Recipe())
    expected = model(IDS).last_hidden_state
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).last_hidden_state, expected.detach())


def test_recipes_are_data():
    recipe = Recipe("full", input=QuantDescriptor(num_bits=4), rules=(("enable", "x"),), layers="y")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict({}) == Recipe()


def test_refusals():
    with pytest.raises(ValueError, match="Recipe: placement: expected one of full, linear, linear\\+matmul, got 'all'"):
        Recipe("all")
    with pytest.raises(ValueError, match="expected rules such as"):
        Recipe(rules=(("off", "x"),))
    with pytest.raises(ValueError, match="BertModel has no linear layer that fits the recipe"):
        swap(bert(), Recipe(layers="nothing"))
    with pytest.raises(ValueError, match="has no places for quantizers of matrix products"):
        swap(GPT2LMHeadModel(GPT2Config(**GPT2)), Recipe("full"))
    with pytest.raises(ValueError, match="no quantizer of BertModel fits the rule"):
        swap(bert(), Recipe(rules=(("disable", "decoder"),)))
