import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.modeling_llama import LlamaForCausalLM
from modelwright.nn.decode_layout import RowLinear, apply_each, apply_to_few_rows, lay_out_for_decoding

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
    moved = 2 * 7 + 1 if dtype == torch.float32 else 2 * 5
    assert lay_out_for_decoding(model) == moved
    assert lay_out_for_decoding(model) == 0
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    assert storage(attention.q_proj) == storage(attention.k_proj) == storage(attention.v_proj) != storage(mlp.up_proj)
    assert storage(mlp.gate_proj) == storage(mlp.up_proj)
    assert model.lm_head.weight.stride() == ((1, 50) if dtype == torch.float32 else (16, 1))
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
    assert lay_out_for_decoding(model, enable=False) == moved
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


def products(monkeypatch):
    """Count the products that are computed."""
    seen = []
    for name in ("linear", "bmm", "baddbmm"):
        module = nn.functional if name == "linear" else torch
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real: (seen.append(1), real(*args))[1])
    return seen


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_siblings_are_one_product_for_one_row(bias, dtype, monkeypatch):
    pair = siblings(bias, dtype)
    row, rows = torch.randn(1, 1, 8, dtype=dtype), torch.randn(1, 2, 8, dtype=dtype)
    wanted = [[nn.Linear.forward(layer, x) for layer in (pair.one, pair.two)] for x in (row, rows)]
    seen = products(monkeypatch)
    for x, results, count in ((row, wanted[0], 1), (rows, wanted[1], 2)):
        seen.clear()
        for mine, other in zip(apply_each(x, pair.one, pair.two), results, strict=True):
            torch.testing.assert_close(mine, other)
        assert len(seen) == count


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
    layer = nn.Linear(3, 4, dtype=torch.bfloat16)
    assert lay_out_for_decoding(layer) == 0 and type(layer) is nn.Linear
    pair = siblings()
    pair.two = nn.Linear(8, 5, dtype=torch.bfloat16)
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


def test_few_rows_of_other_classes_are_called():
    plain, hidden = nn.Linear(512, 128, bias=False), torch.randn(4, 512)
    doubled = Doubled(512, 128, bias=False)
    doubled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = 2 * plain(hidden)
        for layer in (doubled, Wrapped(plain)):
            torch.testing.assert_close(apply_to_few_rows(layer, hidden), expected)
            for found in apply_each(hidden, layer, layer):
                torch.testing.assert_close(found, expected)


def test_few_rows_are_multiplied_by_the_weight_from_the_left():
    layer, hidden = nn.Linear(512, 128, bias=False), torch.randn(9, 1, 512)
    expected = layer(hidden).detach()
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.default:
                products.append(tuple(args[0].shape))
            return function(*args, **(kwargs or {}))

    def check(rows):
        products.clear()
        found = apply_to_few_rows(layer, hidden[:rows])
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected[:rows])
        return products == [(128, 512)]

    with torch.no_grad(), Products():
        # One row, and more numbers than stay beside a core, go the usual way.
        assert [rows for rows in (1, 2, 8, 9) if check(rows)] == [2, 8]
        handle = layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
        torch.testing.assert_close(apply_to_few_rows(layer, hidden[:4]), 2 * expected[:4])
        handle.remove()
        lay_out_for_decoding(layer)
        assert not check(4)
    lay_out_for_decoding(layer, enable=False)
    assert apply_to_few_rows(layer, hidden[:4]).requires_grad
    layer = nn.Linear(512, 127, bias=False)
    with torch.no_grad(), Products():
        expected = layer(hidden)
        assert not check(4)  # small


@pytest.mark.parametrize("shape", [(512, 256), (768, 640)], ids=["small", "large"])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_one_row_is_the_same_product_whatever_the_size(shape, bias):
    torch.manual_seed(0)
    layer = nn.Linear(*shape, bias=bias)
    row = torch.randn(1, 1, shape[0])
    wanted = layer(row)
    lay_out_for_decoding(layer)
    assert type(layer) is RowLinear
    torch.testing.assert_close(layer(row), wanted, rtol=1e-5, atol=1e-6)
