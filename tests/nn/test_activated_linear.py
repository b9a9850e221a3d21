"""An activation and the product behind it, computed again in the backward, are what both are one after the other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modelwright.nn.activated_linear import activated_linear
from modelwright.nn.activations import get_activation


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


def test_activated_linear_drops_the_same_without_gradients():
    layer, act, x = nn.Linear(6, 3), get_activation("gelu"), torch.randn(50, 6, requires_grad=True)
    with torch.random.fork_rng(), torch.no_grad():
        without = activated_linear(layer, act, x, 0.5)
    torch.testing.assert_close(activated_linear(layer, act, x, 0.5), without)


def test_activated_linear_calls_what_has_hooks():
    layer, act, x = nn.Linear(6, 3), get_activation("gelu"), torch.randn(2, 6, requires_grad=True)
    layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    torch.testing.assert_close(activated_linear(layer, act, x), 2 * F.linear(act(x), layer.weight, layer.bias))


def test_activated_linear_calls_an_activation_with_hooks_once():
    layer, act, x = nn.Linear(6, 3), get_activation("gelu"), torch.randn(2, 6, requires_grad=True)
    seen = []
    act.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    activated_linear(layer, act, x).sum().backward()
    assert len(seen) == 1
    assert seen[0].requires_grad


def test_activated_linear_in_fp64_stays_so_under_autocast():
    layer, act, x = nn.Linear(6, 3).double(), get_activation("gelu"), torch.randn(2, 6, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert activated_linear(layer, act, x).dtype == layer(act(x)).dtype == torch.float64


def test_a_frozen_layer_is_not_kept_for_a_frozen_input():
    layer, act, x = nn.Linear(6, 3), get_activation("gelu"), torch.randn(2, 6)
    found = activated_linear(layer, act, x)
    with torch.no_grad():
        layer.weight.add_(1)
    found.sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 2.0))
