"""Lookups in a table that a head shares have torch's values and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modelwright.nn.tied_table import tied_table


@pytest.fixture
def tied():
    torch.manual_seed(0)
    lookup, head = nn.Embedding(11, 3, padding_idx=2), nn.Linear(3, 11, bias=False)
    head.weight = lookup.weight
    return head.double(), lookup.double()


IDS = torch.tensor([[1, 4, 2], [4, 4, 0]]), torch.tensor([[10, 2, 4]])


def _losses(head, lookup):
    """The same of the table and of torch's calls: a loss of the head, and one of the first lookup alone."""
    table = tied_table(head, lookup)
    for rows, weight in (
        ([table.rows(ids, 2) for ids in IDS], table.weight),
        ([lookup(ids) for ids in IDS], head.weight),
    ):
        of_head = F.linear(torch.cat([rows[0][:1], rows[1]]).sin(), weight).square().sum()
        yield of_head + rows[0].cos().sum(), rows[0].cos().sum()


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_are_those_of_torch(tied, which):
    found, expected = (losses[which] for losses in _losses(*tied))
    torch.testing.assert_close(found, expected)
    weight = tied[0].weight
    left, right = (torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(torch.autograd.grad(found, weight)[0], right)


def test_second_derivatives_are_those_of_torch(tied):
    weight, twice = tied[0].weight, []
    for loss, _ in _losses(*tied):
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        twice.append(torch.autograd.grad(first.square().sum(), weight)[0])
    torch.testing.assert_close(*twice)


def test_the_gradient_of_the_head_is_the_memory_of_all(tied):
    table, kept = tied_table(*tied), []

    class Give(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight):
            return weight.sum()

        @staticmethod
        def backward(ctx, grad):
            made = torch.ones(11, 3, dtype=torch.float64)
            kept.append(made.data_ptr())
            return made

    rows = [table.rows(ids, 2) for ids in IDS]
    (Give.apply(table.weight) + sum(each.sum() for each in rows)).backward()
    assert tied[0].weight.grad.data_ptr() == kept[0]
    torch.testing.assert_close(tied[0].weight.grad[4], torch.full((3,), 5.0, dtype=torch.float64))


def test_who_has_no_table(tied):
    head, lookup = tied
    assert tied_table(head, lookup, lookup) is not None
    with torch.no_grad():
        assert tied_table(head, lookup) is None
    assert tied_table(head, nn.Embedding(11, 3)) is None
    lookup.max_norm = 1.0
    assert tied_table(head, lookup) is None
    lookup.max_norm = None
    hook = lookup.register_forward_hook(lambda *_: None)
    assert tied_table(head, lookup) is None
    hook.remove()
    head.weight.requires_grad_(False)
    assert tied_table(head, lookup) is None
