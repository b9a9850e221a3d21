import copy
import gc
import pickle

import numpy
import pytest
import torch
from torch import nn

from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.modeling_prophetnet import ProphetNetForConditionalGeneration
from modelwright.nn import packed_linear
from modelwright.nn.decode_layout import apply_each, apply_linear, are_packed, lay_out_for_decoding
from modelwright.nn.packed_linear import PackedLinear, can_pack

pytestmark = pytest.mark.skipif(not can_pack(), reason="torch without oneDNN")


class Pair(nn.Module):
    def __init__(self, bias=True, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(24, 40, bias=bias, dtype=dtype), nn.Linear(24, 7, bias=bias, dtype=dtype)


def kept(layer):
    return packed_linear._PACKS.get(layer, {})


def wanted(x, *layers):
    return tuple(nn.functional.linear(x, layer.weight, layer.bias) for layer in layers)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 128])
@torch.no_grad()
def test_few_rows_are_multiplied_by_the_copy(rows, bias):
    pair, x = Pair(bias), torch.randn(rows, 1, 24)
    assert lay_out_for_decoding(pair, packed=True) == 2
    assert are_packed(pair.one, pair.two) and not kept(pair.one)
    torch.testing.assert_close(apply_linear(pair.one, x), *wanted(x, pair.one))
    torch.testing.assert_close(pair.two(x), *wanted(x, pair.two))
    torch.testing.assert_close(apply_each(x, pair.one, pair.two), wanted(x, pair.one, pair.two))
    assert kept(pair.one).keys() == {1, 2} and kept(pair.two).keys() == {1}
    assert lay_out_for_decoding(pair, enable=False) == 0
    assert type(pair.one) is nn.Linear and not kept(pair.one) and not kept(pair.two)


def test_many_rows_gradients_and_half_precision_have_no_copy():
    pair = Pair()
    lay_out_for_decoding(pair, packed=True)
    x = torch.randn(2, 24, requires_grad=True)
    apply_linear(pair.one, x).sum().backward()
    torch.testing.assert_close(x.grad, pair.one.weight.detach().sum(0).expand(2, -1))
    with torch.no_grad():
        apply_each(torch.randn(129, 24), pair.one, pair.two)
        with torch.autocast("cpu", torch.bfloat16):
            assert apply_linear(pair.one, x).dtype == torch.bfloat16
    assert not kept(pair.one)
    assert lay_out_for_decoding(Pair(dtype=torch.bfloat16), packed=True) == 0


@torch.no_grad()
def test_a_changed_weight_is_packed_again():
    pair, x = Pair(), torch.randn(3, 24)
    lay_out_for_decoding(pair, packed=True)
    changes = (
        lambda: pair.one.weight.mul_(2),
        lambda: pair.one.bias.add_(1),
        lambda: pair.load_state_dict(Pair().state_dict()),
        lambda: setattr(pair.two, "weight", nn.Parameter(torch.randn(7, 24))),
    )
    for change in changes:
        apply_each(x, pair.one, pair.two)
        change()
        torch.testing.assert_close(apply_each(x, pair.one, pair.two), wanted(x, pair.one, pair.two))


@torch.no_grad()
def test_copies_of_the_layer_and_layers_that_are_gone_keep_nothing():
    gc.collect()
    before = len(packed_linear._PACKS)
    pair, x = Pair(), torch.randn(3, 24)
    lay_out_for_decoding(pair, packed=True)
    apply_linear(pair.one, x)
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert type(other.one) is PackedLinear and not kept(other.one)
        torch.testing.assert_close(apply_linear(other.one, x), *wanted(x, pair.one))
    del pair, other
    gc.collect()
    assert len(packed_linear._PACKS) == before


@torch.no_grad()
def test_hooked_layers_are_called():
    pair, called = Pair(), []
    lay_out_for_decoding(pair, packed=True)
    pair.two.register_forward_hook(lambda *_: called.append("hook"))
    assert not are_packed(pair.one, pair.two)
    apply_each(torch.randn(3, 24), pair.one, pair.two)
    assert called == ["hook"]


@pytest.mark.parametrize("beams", [1, 3])
def test_prophetnet_writes_the_same(beams):
    torch.manual_seed(0)
    config = ProphetNetConfig(
        vocab_size=60, hidden_size=16, encoder_ffn_dim=24, decoder_ffn_dim=24, num_encoder_layers=1,
        num_decoder_layers=2, num_encoder_attention_heads=2, num_decoder_attention_heads=2, init_std=0.4,
    )  # fmt: skip
    model = ProphetNetForConditionalGeneration(config).eval()
    ids = torch.randint(3, 60, (2, 70))
    call = {"max_new_tokens": 12, "num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(ids, **call)
    lay_out_for_decoding(model, packed=True)
    packed = model.generate(ids, **call)
    assert torch.equal(packed.sequences, plain.sequences)
    for mine, other in zip(packed.scores, plain.scores, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    decoder, encoder = model.get_decoder().layers[1], model.get_encoder().layers[0]
    assert kept(decoder.self_attn.query_proj).keys() == {4}
    assert not kept(encoder.self_attn.query_proj)


@torch.no_grad()
def test_a_new_weight_in_the_memory_of_one_that_is_gone_is_packed():
    layer, x = nn.Linear(24, 7, bias=False), torch.randn(3, 24)
    lay_out_for_decoding(layer, packed=True)
    memory = numpy.empty((7, 24), numpy.float32)
    for number in (1, 2):
        memory[:] = number
        layer.weight = nn.Parameter(torch.from_numpy(memory))  # at the same place, never changed
        torch.testing.assert_close(apply_linear(layer, x), *wanted(x, layer))


@torch.no_grad()
def test_a_bias_of_inference_mode_is_added():
    layer, x = nn.Linear(24, 7, bias=False), torch.randn(3, 24)
    lay_out_for_decoding(layer, packed=True)
    apply_linear(layer, x)
    with torch.inference_mode():
        layer.bias = nn.Parameter(torch.ones(7), requires_grad=False)
    torch.testing.assert_close(apply_linear(layer, x), *wanted(x, layer))


def test_a_weight_that_is_made_anew_for_each_call_is_no_parameter_to_pack():
    pair, x = Pair(), torch.randn(3, 24)
    lay_out_for_decoding(pair, packed=True)
    torch.nn.utils.parametrizations.weight_norm(pair.one)
    with torch.no_grad():
        pair.one.parametrizations.weight.original0.mul_(2.0)
        torch.testing.assert_close(apply_each(x, pair.one, pair.two), wanted(x, pair.one, pair.two))
