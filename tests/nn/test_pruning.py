import pytest
import torch
from torch import nn

from modelwright.core.errors import InputError
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.pruning import (
    find_pruneable_heads_and_indices,
    prune_conv1d_layer,
    prune_layer,
    prune_linear_layer,
)

INDEX = torch.tensor([2, 0])


def test_heads_and_indices():
    assert find_pruneable_heads_and_indices([1], 3, 2, set())[0] == {1}
    assert find_pruneable_heads_and_indices([1], 3, 2, set())[1].tolist() == [0, 1, 4, 5]


def test_heads_keep_the_numbers_of_the_unpruned_layer():
    # Of four heads, 0 is gone: 1, 2, 3 are the rows 0, 1, 2 of what is left.
    heads, index = find_pruneable_heads_and_indices([0, 2], 3, 2, {0})
    assert heads == {2}
    assert index.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("head", [-1, 4])
def test_a_head_out_of_range_is_named(head):
    with pytest.raises(InputError, match=rf"expected heads from 0 to 3 \(3 now, 1 pruned before\), got {head}"):
        find_pruneable_heads_and_indices([head], 3, 2, {0})


@pytest.mark.parametrize("dim", [0, 1])
def test_linear(dim):
    layer = nn.Linear(3, 4)
    pruned = prune_linear_layer(layer, INDEX, dim=dim)
    assert torch.equal(pruned.weight, layer.weight.index_select(dim, INDEX))
    assert torch.equal(pruned.bias, layer.bias[INDEX] if dim == 0 else layer.bias)
    assert (pruned.out_features, pruned.in_features) == tuple(pruned.weight.shape)
    assert pruned(torch.ones(1, pruned.in_features)).shape == (1, pruned.out_features)
    assert pruned.weight.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize("dim", [0, 1])
def test_conv1d(dim):
    layer = Conv1D(4, 3)
    nn.init.normal_(layer.bias)
    pruned = prune_conv1d_layer(layer, INDEX, dim=dim)
    assert torch.equal(pruned.weight, layer.weight.index_select(dim, INDEX))
    assert torch.equal(pruned.bias, layer.bias[INDEX] if dim == 1 else layer.bias)
    assert (pruned.nx, pruned.nf) == tuple(pruned.weight.shape)
    assert pruned(torch.ones(1, pruned.nx)).shape == (1, pruned.nf)


@pytest.mark.parametrize("make", [lambda **k: nn.Linear(3, 3, **k), lambda **k: Conv1D(3, 3, **k)])
def test_dtype_device_mode_and_what_is_trainable_are_kept(make):
    layer = make(dtype=torch.bfloat16).eval()
    layer.bias.requires_grad_(False)
    pruned = prune_layer(layer, INDEX)
    assert pruned.weight.dtype == pruned.bias.dtype == torch.bfloat16
    assert (pruned.weight.requires_grad, pruned.bias.requires_grad) == (True, False)
    assert not pruned.training
    assert prune_layer(make(device="meta"), INDEX).weight.is_meta


def test_prune_layer_cuts_outputs_by_default():
    assert prune_layer(nn.Linear(3, 4, bias=False), INDEX).weight.shape == (2, 3)
    assert prune_layer(nn.Linear(3, 4, bias=False), INDEX).bias is None
    assert prune_layer(Conv1D(4, 3), INDEX).weight.shape == (3, 2)
    assert prune_layer(Conv1D(4, 3), INDEX, dim=0).weight.shape == (2, 4)


def test_bad_input():
    with pytest.raises(ValueError, match="Can't prune layer of class LayerNorm"):
        prune_layer(nn.LayerNorm(3), INDEX)
    with pytest.raises(InputError, match="indices from 0 to 2, the size of dimension 1, got one from 0 to 3"):
        prune_layer(nn.Linear(3, 4), torch.tensor([0, 3]), dim=1)
    with pytest.raises(InputError, match=r"expected dim to be 0 or 1, for a weight of shape \(4, 3\), got 2"):
        prune_layer(nn.Linear(3, 4), INDEX, dim=2)
    with pytest.raises(InputError, match=r"whole numbers of shape \(kept,\), got torch.bool \(4,\)"):
        prune_layer(nn.Linear(3, 4), torch.ones(4).bool())
