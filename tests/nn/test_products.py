"""Products by either library are torch's, with their gradients, and torch's own calls where others look."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modelwright.nn import products
from modelwright.nn.activated_linear import activated_linear
from modelwright.nn.activations import get_activation
from modelwright.nn.products import add_product_, linear, onednn_is_faster

# Forced where the processor would not choose it; every build of torch for x86 has it.
has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(params=[False, pytest.param(True, marks=has_onednn)])
def onednn(request, monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return request.param


@pytest.mark.parametrize("shape", [(70, 130), (2, 35, 130), (0, 130)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_linear_is_torchs_with_its_gradients(shape, transposed, biased, onednn, monkeypatch):
    monkeypatch.setattr(products, "_LARGE", 1)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(130, 90).t() if transposed else torch.randn(90, 130)
    weight.requires_grad_()
    bias = torch.randn(90, requires_grad=True) if biased else None
    inputs = [x, weight, *([bias] if biased else [])]
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__.startswith("_Linear") == (onednn and x.numel() > 0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    grad = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, inputs, grad)
    for left, right in zip(torch.autograd.grad(found, inputs, grad), wanted, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-5)


def test_second_derivatives(onednn, monkeypatch):
    monkeypatch.setattr(products, "_LARGE", 1)

    def penalty(function):
        torch.manual_seed(0)
        x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
        (first,) = torch.autograd.grad(function(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), (x, weight))

    for left, right in zip(penalty(linear), penalty(F.linear), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own jvp
@has_onednn
def test_torch_is_called_where_others_look(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_LARGE", 1)
    x, weight = torch.randn(6, 5), torch.randn(4, 5)
    expected = F.linear(x, weight)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 6 * 5 * 4
    torch.testing.assert_close(torch.func.vmap(linear, (0, None))(x, weight), expected)
    _, tangent = torch.func.jvp(lambda each: linear(each, weight), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, F.linear(torch.ones_like(x), weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    # A part of a wider block, for which oneDNN has a kernel that takes seconds.
    assert not products._suits(x, torch.randn(5, 9)[:, :4].t(), None)
    assert linear(x.double(), weight.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_added_in_parts(dtype, onednn, monkeypatch):
    monkeypatch.setattr(products, "_LARGE", 1)
    monkeypatch.setattr(products, "_PART", 7)
    left, right, total = torch.randn(6, 20).to(dtype), torch.randn(6, 5).to(dtype), torch.randn(20, 5)
    expected = total + (left.t() @ right).float()
    add_product_(total, left.t(), right)
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "capability", "answer"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
@has_onednn
def test_which_processors(text, capability, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    file = tmp_path / "cpuinfo"
    file.write_text(f"vendor_id : {text}\n")
    assert onednn_is_faster(str(file)) is answer
    assert onednn_is_faster(str(tmp_path / "none")) is False


@pytest.mark.parametrize("name", ["gelu", "relu", "silu"])
def test_activated_linear_is_both_one_after_the_other(name):
    layer, act = nn.Linear(6, 3), get_activation(name)
    x = torch.randn(2, 5, 6, requires_grad=True)
    inputs = [x, layer.weight, layer.bias]
    found, expected = activated_linear(layer, act, x), layer(act(x))
    torch.testing.assert_close(found, expected)
    first, wanted = (torch.autograd.grad(each.pow(2).sum(), inputs, create_graph=True) for each in (found, expected))
    for left, right in zip(first, wanted, strict=True):
        torch.testing.assert_close(left, right)
    second, wanted = (torch.autograd.grad(each[0].pow(2).sum(), inputs[:2]) for each in (first, wanted))
    for left, right in zip(second, wanted, strict=True):
        torch.testing.assert_close(left, right)


def test_activated_linear_keeps_its_input_only_and_drops_the_same_twice():
    layer, act, x = nn.Linear(6, 6, bias=False), get_activation("gelu"), torch.randn(50, 6, requires_grad=True)
    nn.init.eye_(layer.weight)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.data_ptr()) or each, lambda each: each):
        found = activated_linear(layer, act, x, 0.5)
    assert sorted(set(kept)) == sorted({x.data_ptr(), layer.weight.data_ptr()})
    scale = found.detach() / act(x.detach())
    torch.testing.assert_close(scale, scale.round() * (scale > 1))
    assert 0 < int((scale > 0).sum()) < scale.numel()
    (grad,) = torch.autograd.grad(found.sum(), x)
    (whole,) = torch.autograd.grad(act(x).sum(), x)
    torch.testing.assert_close(grad, whole * scale)


def test_activated_linear_calls_what_has_hooks():
    layer, act, x = nn.Linear(6, 3), get_activation("gelu"), torch.randn(2, 6, requires_grad=True)
    layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    torch.testing.assert_close(activated_linear(layer, act, x), 2 * F.linear(act(x), layer.weight, layer.bias))
