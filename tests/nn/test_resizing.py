"""Rows of a parameter, more or fewer."""

import torch
from torch import nn

from modelwright.nn.resizing import near_mean, resize_rows, zeros


def test_rows_are_cut_or_appended_in_the_same_parameter():
    parameter = nn.Parameter(torch.arange(6.0).view(3, 2).to(torch.bfloat16), requires_grad=False)
    before = parameter.detach().clone()
    resize_rows(parameter, 5, lambda old, count: old.new_full((count, 2), 7.0, dtype=torch.float64))
    assert torch.equal(parameter[:3], before)
    assert parameter[3:].tolist() == [[7, 7], [7, 7]]
    assert parameter.dtype == torch.bfloat16
    assert not parameter.requires_grad
    resize_rows(parameter, 1, zeros)
    assert torch.equal(parameter, before[:1])
    assert parameter.untyped_storage().nbytes() == 4, "the rows that were cut still take memory"


def test_a_gradient_of_the_old_shape_is_dropped_and_one_that_fits_kept():
    parameter = nn.Parameter(torch.ones(3, 2))
    parameter.sum().backward()
    resize_rows(parameter, 3, zeros)
    assert parameter.grad is not None
    resize_rows(parameter, 4, zeros)
    assert parameter.grad is None
    (parameter * 2).sum().backward()
    assert parameter.grad.shape == (4, 2)


def test_new_rows_have_the_mean_and_a_billionth_of_the_covariance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = torch.randn(40, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 2
        drawn = near_mean(rows, 20_000)
    torch.testing.assert_close(drawn.mean(0), rows.mean(0), rtol=0, atol=1e-5)
    wanted = 1e-9 * torch.cov(rows.T, correction=0)
    torch.testing.assert_close(torch.cov(drawn.T), wanted, rtol=0.05, atol=0.05 * wanted.abs().max().item())


def test_fewer_rows_than_columns_and_a_vector_work_too():
    assert near_mean(torch.ones(2, 5), 3).equal(torch.ones(3, 5))
    few = near_mean(torch.tensor([[0.0, 1, 5], [2, 3, 1]]), 4)
    torch.testing.assert_close(few, torch.tensor([1.0, 2, 3]).expand(4, 3), rtol=0, atol=1e-3)
    assert len(few.unique(dim=0)) == 4
    bias = near_mean(torch.tensor([1.0, 3.0], dtype=torch.bfloat16), 2)
    assert bias.dtype == torch.float32
    torch.testing.assert_close(bias, torch.tensor([2.0, 2.0]), rtol=0, atol=1e-3)
