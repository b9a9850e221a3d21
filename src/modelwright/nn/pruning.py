"""Taking rows or columns out of linear layers, and finding those that belong to attention heads.

A pruned layer keeps the dtype, the device, the mode (train or eval) and what is trainable of the layer it is made of. A
layer that has more than a weight and a bias (a quantized one) has a method `pruned_to(plain, index, dim)`, which
returns it with the parameters of the pruned plain layer.
"""

from collections.abc import Collection, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.nn.conv1d import Conv1D

Layer = TypeVar("Layer", nn.Linear, Conv1D)


def find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: Collection[int]
) -> tuple[set[int], Tensor]:
    """Return the heads that are still to prune, and the flat indices [kept heads * head_size] of what stays.

    `heads` and `already_pruned_heads` are numbered as in the unpruned layer; `n_heads` is the number of heads that the
    layer has now. Raises InputError for a head that the unpruned layer did not have.
    """
    gone = set(already_pruned_heads)
    wanted = set(heads)
    original = n_heads + len(gone)
    for head in sorted(wanted):
        if not 0 <= head < original:
            raise InputError(
                f"find_pruneable_heads_and_indices: expected heads from 0 to {original - 1} ({n_heads} now, "
                f"{len(gone)} pruned before), got {head}"
            )
    wanted -= gone
    mask = torch.ones(n_heads, head_size, dtype=torch.bool)
    for head in wanted:
        mask[head - sum(other < head for other in gone)] = False
    return wanted, mask.view(-1).nonzero().squeeze(1)


def prune_linear_layer(layer: nn.Linear, index: Tensor, dim: int = 0) -> nn.Linear:
    """Return a new linear layer with the outputs (`dim` 0) or inputs (`dim` 1) that `index` names, in its order."""
    _check_class(layer, nn.Linear)
    _check("prune_linear_layer", layer.weight, index, dim)
    index = index.to(layer.weight.device)
    weight = layer.weight.detach().index_select(dim, index)
    pruned = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta", dtype=weight.dtype)
    bias = None if layer.bias is None else _pruned_bias(layer.bias, index, cut=dim == 0)
    return _fill(pruned, layer, weight, bias, index, dim)


def prune_conv1d_layer(layer: Conv1D, index: Tensor, dim: int = 1) -> Conv1D:
    """Return a new Conv1D with the outputs (`dim` 1) or inputs (`dim` 0) that `index` names, in its order."""
    _check_class(layer, Conv1D)
    _check("prune_conv1d_layer", layer.weight, index, dim)
    index = index.to(layer.weight.device)
    weight = layer.weight.detach().index_select(dim, index)
    pruned = Conv1D(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)
    return _fill(pruned, layer, weight, _pruned_bias(layer.bias, index, cut=dim == 1), index, dim)


def prune_layer(layer: nn.Linear | Conv1D, index: Tensor, dim: int | None = None) -> nn.Linear | Conv1D:
    """Return a new layer of the same kind with the entries that `index` names along `dim`, by default the outputs.

    Raises InputError for a layer of another class, and for an `index` or `dim` that the weight does not have.
    """
    if isinstance(layer, nn.Linear):
        return prune_linear_layer(layer, index, dim=0 if dim is None else dim)
    if isinstance(layer, Conv1D):
        return prune_conv1d_layer(layer, index, dim=1 if dim is None else dim)
    raise InputError(f"Can't prune layer of class {type(layer).__name__}: expected an nn.Linear or a Conv1D")


def _check_class(layer: nn.Module, wanted: type[nn.Module]) -> None:
    # What a wrapper (an adapter) adds to the layer would be lost.
    if not isinstance(layer, wanted):
        raise InputError(f"Can't prune layer of class {type(layer).__name__}: expected a {wanted.__name__}")


def _check(where: str, weight: Tensor, index: Tensor, dim: int) -> None:
    if dim not in (0, 1):
        raise InputError(f"{where}: expected dim to be 0 or 1, for a weight of shape {tuple(weight.shape)}, got {dim}")
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
        raise InputError(
            f"{where}: expected index to be whole numbers of shape (kept,), got {index.dtype} {tuple(index.shape)}"
        )
    size = weight.shape[dim]
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
        raise InputError(
            f"{where}: expected indices from 0 to {size - 1}, the size of dimension {dim}, got one from "
            f"{int(index.min())} to {int(index.max())}"
        )


def _pruned_bias(bias: nn.Parameter, index: Tensor, cut: bool) -> Tensor:
    return bias.detach().index_select(0, index) if cut else bias.detach().clone()


def _fill(pruned: Layer, layer: Layer, weight: Tensor, bias: Tensor | None, index: Tensor, dim: int) -> Layer:
    # What was frozen stays frozen.
    pruned.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    if bias is not None:
        pruned.bias = nn.Parameter(bias, requires_grad=layer.bias.requires_grad)
    pruned.train(layer.training)
    more = getattr(layer, "pruned_to", None)
    return pruned if more is None else more(pruned, index, dim)
