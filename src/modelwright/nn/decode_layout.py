"""Where the numbers of weights lie in memory, and how one row is multiplied: what decides batch-1 decoding on a CPU.

One row of input reads every weight once, so a token costs what reading the weights costs. torch's own product for one
row uses neither both cores nor the memory's full speed. `lay_out_for_decoding(model)` changes two things, once:

- fp32 weights of linear layers, [outputs, inputs] to the outside, lie as [inputs, outputs], and one row is multiplied
  in as many parts as there are threads, one part each. In half precision torch's own product is the fastest.
- The weights of layers that get the same input (the `siblings` of a module: queries, keys and values, say) lie one
  behind the other in one block, and one row is multiplied with the block. Each weight is a part of the block.

Parameters keep their names, shapes and values: the model saves, loads and trains as before, and nothing is held twice.
A move (`model.to(...)`) or a new weight undoes the layout of that weight, which costs speed and nothing else.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RowLinear(nn.Linear):
    """A linear layer that multiplies a single row in parts, and everything else as nn.Linear does."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if input.numel() == self.in_features:
            return _times_row(input, self.weight, self.bias)
        return super().forward(input)


def apply_each(hidden: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Return `layer(hidden)` of each layer; of one row as a single product if their weights lie in one block.

    Layers with hooks or of other classes are called one by one, and all are while gradients are enabled.
    """
    if hidden.numel() == hidden.shape[-1] and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        linear = [layer for layer in layers if isinstance(layer, nn.Linear) and _is_plain(layer)]
        block = _block_of([layer.weight for layer in linear]) if len(linear) == len(layers) else None
        if block is not None:
            parts = _times_row(hidden, block, None).split_with_sizes([layer.out_features for layer in linear], dim=-1)
            biased = zip(parts, linear, strict=True)
            return tuple(part if layer.bias is None else part + layer.bias for part, layer in biased)
    return tuple(layer(hidden) for layer in layers)


# How many rows, and outputs of a weight, `apply_to_few_rows` is for.
_FEW, _MANY_OUTPUTS = range(2, 9), 8192


def apply_to_few_rows(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """Return `layer(hidden)`, for the layer that scores a vocabulary: (..., inputs) -> (..., outputs).

    For 2 to 8 rows (beams, a small batch) in fp32 on the CPU it is computed as W x^T, which reads the weight once where
    x W^T first packs it: 2.9 against 7.5 ms for 4 rows at 512 x 32,128. Not for weights that lie by inputs, and not
    while gradients are enabled.
    """
    weight = layer.weight
    narrow = (
        hidden.numel() // hidden.shape[-1] in _FEW
        and weight.shape[0] >= _MANY_OUTPUTS
        and weight.dtype == hidden.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.is_contiguous()
        and layer.bias is None
        and _is_plain(layer)
    )
    if not narrow or torch.is_grad_enabled() or torch.compiler.is_compiling():
        result: Tensor = layer(hidden)
        return result
    scores = weight.mm(hidden.reshape(-1, hidden.shape[-1]).t()).t().contiguous()
    return scores.view(*hidden.shape[:-1], -1)


def lay_out_for_decoding(model: nn.Module, enable: bool = True) -> int:
    """Lay the weights of the linear layers on the CPU out for decoding one row, or again as torch makes them.

    Returns the number of weights that were moved; while a block is, it is in memory twice. Views of old weights go
    stale. Subclasses of nn.Linear stay as they are. A module with `siblings` names the layers that share its input.
    """
    return sum(_lay_out(layers) if enable else _take_apart(layers) for layers in _groups(model))


def _groups(model: nn.Module) -> Iterator[list[nn.Linear]]:
    """Yield siblings together and all other linear layers by themselves, each weight once."""
    done: set[int] = set()
    for module in model.modules():
        together = [getattr(module, name) for name in getattr(module, "siblings", ())]
        for layers in (together, [module]):
            linear = [layer for layer in layers if type(layer) in (nn.Linear, RowLinear)]
            weights = {id(layer.weight): layer.weight for layer in linear}
            alike = len({(weight.dtype, weight.device, weight.shape[1]) for weight in weights.values()}) == 1
            if alike and len(weights) == len(layers) and done.isdisjoint(weights):
                done.update(weights)
                yield linear


def _lay_out(layers: list[nn.Linear]) -> int:
    weights = [layer.weight for layer in layers]
    by_inputs = weights[0].dtype == torch.float32
    if weights[0].device.type != "cpu" or not (by_inputs or len(layers) > 1):
        return 0
    if by_inputs:
        for layer in layers:
            layer.__class__ = RowLinear  # the same object, so that hooks and references to it stay
    block = _block_of(weights)
    if block is not None and (block.t().is_contiguous() if by_inputs else block.is_contiguous()):
        return 0
    if by_inputs:
        block = torch.cat([weight.data.t() for weight in weights], dim=1).t()
    else:
        block = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, block.split([weight.shape[0] for weight in weights]), strict=True):
        weight.data = part
    return len(layers)


def _take_apart(layers: list[nn.Linear]) -> int:
    moved = 0
    for layer in layers:
        layer.__class__ = nn.Linear
        if layer.weight.untyped_storage().nbytes() != layer.weight.nbytes or not layer.weight.is_contiguous():
            layer.weight.data = layer.weight.data.clone(memory_format=torch.contiguous_format)
            moved += 1
    return moved


def _is_plain(layer: nn.Linear) -> bool:
    """Tell whether calling the layer is no more than its product."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) in (nn.Linear, RowLinear) and not hooked


def _block_of(weights: Sequence[Tensor]) -> Tensor | None:
    """Return the weights [outputs, inputs] as one, if they lie one behind the other in one storage; else None."""
    first = weights[0]
    if len(weights) > 1 and weights[-1].storage_offset() == 0:
        return None  # the usual case: every weight has a storage of its own
    size, offset, outputs = first.element_size(), first.storage_offset(), 0
    start = first.data_ptr() - offset * size
    for weight in weights:
        place = offset + outputs * first.stride(0)
        if weight.stride() != first.stride() or weight.storage_offset() != place:
            return None
        if weight.dtype != first.dtype or weight.data_ptr() - place * size != start:
            return None
        outputs += weight.shape[0]
    return first.as_strided((outputs, first.shape[1]), first.stride(), offset)


def _times_row(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return row W^T + b for one row (..., inputs) and a weight [outputs, inputs], in parts if it lies by inputs."""
    N, K = weight.shape
    parts = math.gcd(torch.get_num_threads(), K)
    if parts == 1 or weight.dtype != torch.float32 or weight.stride(0) != 1 or weight.device.type != "cpu":
        return F.linear(row, weight, bias)
    # A product for each part of the inputs, which torch runs on a thread each; then their sum.
    products_P1N = torch.bmm(row.reshape(parts, 1, -1), weight.t().unflatten(0, (parts, -1)))
    result = products_P1N.sum(dim=0).view(*row.shape[:-1], N)
    return result if bias is None else result + bias
