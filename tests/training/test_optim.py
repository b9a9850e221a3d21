"""Which parameters decay, and the shape of the learning rate."""

import itertools

import pytest
import torch
from torch import nn

from modelwright.core.errors import InputError
from modelwright.training.optim import learning_rate, make_optimizer
from modelwright.training.settings import TrainingSettings

SETTINGS = TrainingSettings(steps=100, lr=1.0, final_lr=0.1, warmup=10, weight_decay=0.5)


def test_only_matrices_decay() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4)})
    model.register_parameter("axial", nn.Parameter(torch.ones(4, 1, 2)))
    groups = make_optimizer(model, SETTINGS).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [parameter is model["linear"].weight for parameter in groups[0]["params"]] == [True]
    assert len(groups[1]["params"]) == 4
    # With zero gradients only the decay moves a weight.
    optimizer = make_optimizer(model, SETTINGS)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"linear.weight"}


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 4)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in make_optimizer(model, SETTINGS).param_groups] == [1]
    model.bias.requires_grad_(False)
    with pytest.raises(InputError, match="Linear: expected parameters to train, found every one of them frozen"):
        make_optimizer(model, SETTINGS)


def test_learning_rate_rises_then_falls_on_a_cosine() -> None:
    rates = [learning_rate(step, 100, SETTINGS) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    halfway = (rates[54] + rates[55]) / 2
    assert halfway == pytest.approx((1.0 + 0.1) / 2, abs=1e-3)


def test_warm_up_does_not_depend_on_the_number_of_steps() -> None:
    known = [learning_rate(step, 100, SETTINGS) for step in range(10)]
    assert [learning_rate(step, None, SETTINGS) for step in range(10)] == known


def test_one_step_without_warm_up() -> None:
    assert learning_rate(0, 1, TrainingSettings(steps=1, warmup=0, lr=0.5)) == 0.5
