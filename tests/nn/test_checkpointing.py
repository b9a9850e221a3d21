import functools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from modelwright.core import logging
from modelwright.core.errors import InputError
from modelwright.nn.checkpointing import GradientCheckpointingLayer, default_function


class Layer(GradientCheckpointingLayer):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.dropout = nn.Dropout(dropout)
        self.calls = []

    def forward(self, x, scale=None, past_key_values=None, use_cache=False):
        self.calls.append((past_key_values, use_cache))
        y = self.dropout(torch.tanh(self.dense(x)))
        return y if scale is None else y * scale


class Outer(Layer):
    def forward(self, x, **kwargs):
        return super().forward(x, **kwargs) + 1


@pytest.fixture
def said(caplog):
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]


def run(layer, on, reentrant=False, **switch):
    """Gradients of x, a keyword tensor and the weight."""
    layer.gradient_checkpointing = on
    layer._gradient_checkpointing_func = default_function(use_reentrant=reentrant)
    torch.manual_seed(0)
    x, scale = torch.randn(2, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    layer.zero_grad()
    torch.manual_seed(1)
    output = layer(x, scale=scale, **switch)
    output.square().sum().backward()
    return [output.detach(), x.grad, scale.grad, layer.dense.weight.grad]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", [Layer, Outer])
def test_gradients_of_positional_and_keyword_tensors_are_those_without(kind, reentrant):
    layer = kind()
    plain, recomputed = run(layer, on=False), run(layer, on=True, reentrant=reentrant)
    for left, right in zip(plain, recomputed, strict=True):
        assert torch.equal(left, right)
    # Once, then the forward and its replay; a subclass that calls its parent is not checkpointed twice.
    assert len(layer.calls) == 3


def test_dropout_replays():
    layer = Layer(dropout=0.5)
    for left, right in zip(run(layer, on=False), run(layer, on=True), strict=True):
        assert torch.equal(left, right)


def test_module_hooks_run_once():
    layer, ran = Layer(), []
    layer.register_forward_pre_hook(lambda *_: ran.append("before"))
    layer.register_forward_hook(lambda *_: ran.append("after"))
    run(layer, on=True)
    assert ran == ["before", "after"]
    assert len(layer.calls) == 2


def test_evaluation_and_no_grad_are_plain_and_keep_their_cache(said):
    layer = Layer().eval()
    run(layer, on=True, past_key_values="cache", use_cache=True)
    layer.train()
    with torch.no_grad():
        layer(torch.ones(1, 4), past_key_values="cache", use_cache=True)
    assert layer.calls == [("cache", True)] * 2
    assert not said()


def test_caches_are_switched_off_with_one_warning(said):
    layer = Layer()
    for _ in range(2):
        run(layer, on=True, past_key_values="cache", use_cache=True)
    assert layer.calls == [(None, False)] * 4
    assert said() == [
        "Caching is incompatible with gradient checkpointing in Layer: setting past_key_values=None, use_cache=False."
    ]


def test_reentrant_gradients_of_positional_tensors():
    layer = Layer()
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=True)
    x, scale = torch.randn(2, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    layer(x, scale).sum().backward()
    replayed, scale.grad = scale.grad, None
    layer.gradient_checkpointing = False
    layer(x, scale).sum().backward()
    assert torch.equal(replayed, scale.grad)
    layer.gradient_checkpointing = True
    with pytest.raises(
        InputError, match="Layer: argument 0 holds a tensor that needs a gradient.*: use use_reentrant=F"
    ):
        layer([x], scale)
    with pytest.raises(InputError, match="Layer: scale holds a tensor that needs a gradient"):
        layer(x, scale=(scale,))


def test_documented_attributes():
    assert GradientCheckpointingLayer.gradient_checkpointing is False
    assert Layer()._gradient_checkpointing_func is None
    layer, given = Layer(), []
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = lambda call, *args: (given.append(len(args)), call(*args))[1]
    layer(torch.ones(1, 4), scale=torch.ones(4))
    assert given == [1]
