import copy

import pytest
import torch
from torch import nn

from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM
from modelwright.nn import decode_layout
from modelwright.nn.decode_layout import RowLinear, apply_each, apply_linear, lay_out_for_decoding

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def llama(dtype=torch.float32, **fields):
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        eos_token_id=None, initializer_range=0.3, **fields,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype).eval()


def storage(layer):
    return layer.weight.untyped_storage().data_ptr()


@DTYPES
def test_the_layout_changes_and_nothing_else(tmp_path, dtype):
    model = llama(dtype, tie_word_embeddings=True)
    ids = torch.tensor([[3, 4, 5]])
    logits, tokens = model(ids).logits, model.generate(ids, max_new_tokens=5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert lay_out_for_decoding(model) == 2 * 7 + 1
    assert lay_out_for_decoding(model) == 0
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    assert storage(attention.q_proj) == storage(attention.k_proj) == storage(attention.v_proj) != storage(mlp.up_proj)
    assert storage(mlp.gate_proj) == storage(mlp.up_proj)
    assert model.lm_head.weight.stride() == (1, 50)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model(ids).logits, logits)
    assert torch.equal(model.generate(ids, max_new_tokens=5), tokens)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, strict=True, dtype=dtype)
    for name, tensor in state.items():
        assert torch.equal(loaded.state_dict()[name], tensor)
        assert torch.equal(model.state_dict()[name], tensor)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) < 1.5 * sum(
        tensor.nbytes for tensor in state.values()
    )
    assert lay_out_for_decoding(model, enable=False) == 2 * 7 + 1
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert not any(isinstance(module, RowLinear) for module in model.modules())
    assert storage(attention.q_proj) != storage(attention.k_proj)


def test_a_weight_is_not_held_twice():
    model = llama()
    before = sum(parameter.nbytes for parameter in model.parameters())
    lay_out_for_decoding(model)
    kept = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert sum(kept.values()) == before


@DTYPES
def test_gradients_of_a_laid_out_model(dtype):
    ids = torch.tensor([[3, 4, 5], [6, 7, 8]])
    plain = llama(dtype)
    laid = copy.deepcopy(plain)
    lay_out_for_decoding(laid)
    for rows in (ids, ids[:1, :1]):
        for model in (plain, laid):
            model.zero_grad()
            model(rows).logits.square().sum().backward()
        for (name, mine), (_, other) in zip(laid.named_parameters(), plain.named_parameters(), strict=True):
            # A row that is multiplied in parts is summed in another order.
            close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
            torch.testing.assert_close(mine.grad, other.grad, **close, msg=lambda text, name=name: f"{name}: {text}")


def siblings(bias=False, dtype=torch.float32):
    class Pair(nn.Module):
        _siblings = ("one", "two")

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(8, 3, bias=bias, dtype=dtype), nn.Linear(8, 5, bias=bias, dtype=dtype)

    torch.manual_seed(0)
    pair = Pair()
    assert lay_out_for_decoding(pair) == 2
    return pair


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_siblings_are_one_product(bias, dtype, monkeypatch):
    pair, seen, real = siblings(bias, dtype), [], decode_layout.linear
    monkeypatch.setattr(decode_layout, "linear", lambda *args: (seen.append(args[1].shape), real(*args))[1])
    for tokens in (1, 2):
        x = torch.randn(1, tokens, 8, dtype=dtype)
        wanted = [nn.functional.linear(x, layer.weight, layer.bias) for layer in (pair.one, pair.two)]
        for mine, other in zip(apply_each(x, pair.one, pair.two), wanted, strict=True):
            # The bias is added to a product that is rounded already.
            torch.testing.assert_close(mine, other, **({} if dtype == torch.float32 else {"rtol": 0.02, "atol": 4e-3}))
    assert seen == [(8, 8)] * 2


@pytest.mark.parametrize("bias", [False, True])
def test_under_autocast_the_input_is_cast_once(bias, monkeypatch):
    torch.manual_seed(0)
    layers = [nn.Linear(8, outputs, bias=bias) for outputs in (6, 5, 7)]
    x, seen, real = torch.randn(2, 3, 8, requires_grad=True), [], decode_layout.linear
    monkeypatch.setattr(decode_layout, "linear", lambda *args: (seen.append(args[0]), real(*args))[1])
    with torch.autocast("cpu", torch.bfloat16):
        found = apply_each(x, *layers)
        expected = [layer(x) for layer in layers]
        assert len(seen) == 3 and all(each is seen[0] for each in seen)
        apply_each(x, *layers, nn.Sequential(layers[0]))  # nor is another class's input touched
        assert seen[-1].dtype == torch.float32
    assert all(map(torch.equal, found, expected))
    weights = [weight for layer in layers for weight in layer.parameters()]
    results = [
        torch.autograd.grad(sum(each.float().square().sum() for each in several), (x, *weights))
        for several in (found, expected)
    ]
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=0.02, atol=0.05)
    assert seen[0].dtype == torch.bfloat16 and results[0][0].dtype == torch.float32


@torch.no_grad()
def test_hooks_and_replaced_layers_are_called():
    row, called = torch.randn(1, 1, 8), []
    pair = siblings()
    handle = pair.two.register_forward_hook(lambda *_: called.append("hook"))
    apply_each(row, pair.one, pair.two)
    handle.remove()
    real = pair.one.forward
    pair.one.forward = lambda x: (called.append("own forward"), real(x))[1]
    apply_each(row, pair.one, pair.two)
    del pair.one.forward
    wrapped = nn.Sequential(pair.two)
    wrapped.register_forward_hook(lambda *_: called.append("wrapper"))
    apply_each(row, pair.one, wrapped)
    assert called == ["hook", "own forward", "wrapper"]


@torch.no_grad()
def test_a_new_weight_is_used():
    row, pair = torch.randn(1, 1, 8), siblings()
    pair.two.weight = nn.Parameter(torch.zeros(5, 8))
    assert not apply_each(row, pair.one, pair.two)[1].any()
    pair = siblings()
    pair.one.weight.data = torch.zeros(3, 8)
    one, two = apply_each(row, pair.one, pair.two)
    assert not one.any() and two.any()
    pair = siblings().double()
    torch.testing.assert_close(apply_each(row.double(), pair.one, pair.two)[1], pair.two(row.double()))
    pair = copy.deepcopy(siblings())
    torch.testing.assert_close(apply_each(row, pair.one, pair.two)[1], pair.two(row))


def test_what_has_nothing_to_gain_stays():
    layer = nn.Linear(3, 4, dtype=torch.float64)
    assert lay_out_for_decoding(layer) == 0 and type(layer) is nn.Linear
    pair = siblings()
    pair.two = nn.Linear(8, 5, dtype=torch.float64)
    before = pair.two.weight.data_ptr()
    lay_out_for_decoding(pair)
    assert pair.two.weight.data_ptr() == before


class Doubled(nn.Linear):
    """A subclass that does more than its product, as a quantized layer does."""

    def forward(self, input):
        return 2 * super().forward(input)


class Wrapped(nn.Module):
    """What adapters put in the place of a layer: its weight, and more than its product."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    @property
    def weight(self):
        return self.base.weight

    def forward(self, input):
        return 2 * self.base(input)


def test_layers_of_other_classes_are_called():
    plain, hidden = nn.Linear(512, 128, bias=False), torch.randn(4, 512)
    doubled = Doubled(512, 128, bias=False)
    doubled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = 2 * plain(hidden)
        for layer in (doubled, Wrapped(plain)):
            torch.testing.assert_close(apply_linear(layer, hidden), expected)
            for found in apply_each(hidden, layer, layer):
                torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_hooks_of_a_layer_and_of_all_layers_are_called():
    layer, hidden = nn.Linear(8, 4), torch.randn(3, 8)
    expected = 2 * layer(hidden)
    for register in (layer.register_forward_hook, nn.modules.module.register_module_forward_hook):
        handle = register(lambda _module, _inputs, output: output * 2)
        torch.testing.assert_close(apply_linear(layer, hidden), expected)
        handle.remove()
    torch.testing.assert_close(apply_linear(layer, hidden), expected / 2)
