"""Where the numbers of weights lie in memory, and how one row is multiplied: what decides batch-1 decoding on a CPU.

One row of input reads every weight once, so a token costs what reading the weights costs. torch's own product for one
row uses neither both cores nor the memory's full speed. `lay_out_for_decoding(model)` changes two things, once:

- fp32 weights of linear layers, [outputs, inputs] to the outside, lie as [inputs, outputs], and one row is multiplied
  in as many parts as there are threads, one part each. In half precision torch's own product is the fastest.
- The weights of layers that get the same input (the `_siblings` of a module: queries, keys and values, say) lie one
  behind the other in one block, and one row is multiplied with the block. Each weight is a part of the block.

Parameters keep their names, shapes and values: the model saves, loads and trains as before, and nothing is held twice.
A copy, a move (`model.to(...)`) or a new weight undoes the layout of that weight, which costs speed and nothing else.
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
    one_row = hidden.numel() == hidden.shape[-1] and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if one_row and all(type(layer) is RowLinear and _is_plain(layer) for layer in layers):
        # Straight from the dictionaries: nn.Module's lookup of a weight costs more than all the rest here.
        weights: list[Tensor] = [layer._parameters["weight"] for layer in layers]  # type: ignore[misc]
        biases: list[Tensor] = [bias for layer in layers if (bias := layer._parameters["bias"]) is not None]
        block = _block_of(weights) if len(biases) in (0, len(layers)) else None
        if block is not None:
            result = _times_row(hidden, block, torch.cat(biases) if biases else None)
            return tuple(result.split_with_sizes([weight.shape[0] for weight in weights], dim=-1))
    return tuple(apply_to_few_rows(layer, hidden) for layer in layers)


def apply_row(layer: nn.Module, row: Tensor) -> Tensor:
    """Return `layer(row)`; sooner if it is one row, without gradients, and the layer laid out for decoding."""
    if type(layer) is RowLinear and row.numel() == row.shape[-1] and _is_plain(layer) and not torch.is_grad_enabled():
        weight, bias = layer._parameters["weight"], layer._parameters["bias"]
        assert weight is not None
        return _times_row(row, weight, bias)
    other: Tensor = layer(row)
    return other


# The numbers of a few rows that fit into a core's fastest cache beside what is read of the weight: 16 kB.
_FEW = 4096
# A weight with fewer numbers stays in a cache, where the order it is read in costs little.
_LARGE = 2**16
# A weight with no more numbers (1 MB in fp32) takes so little time that adding up parts of the result would show.
_IN_CACHE = 2**18


def apply_to_few_rows(layer: nn.Module, hidden: Tensor) -> Tensor:
    """Return `layer(hidden)`, (..., inputs) -> (..., outputs), fast for a few rows (beams, a small batch).

    In fp32 on the CPU, and without gradients, it is W x^T, which reads the weight once, where torch's x W^T copies it
    into another order first: half of the time for 4 rows of 512, if the weight is not in a cache. More than 4,096
    numbers in all rows, one row, small weights, those that lie by inputs and layers with hooks or a bias go the usual
    way, and so do layers of all other classes (quantized ones, adapters), which do more than this product.
    """
    if type(layer) not in (nn.Linear, RowLinear):
        other: Tensor = layer(hidden)
        return other
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if (
        hidden.shape[-1] < hidden.numel() <= _FEW
        and not torch.is_grad_enabled()
        and weight.dtype == hidden.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.numel() >= _LARGE
        and weight.is_contiguous()
        and getattr(layer, "bias", None) is None
        and _is_plain(layer)
        and not torch.compiler.is_compiling()
    ):
        result = weight.mm(hidden.reshape(-1, hidden.shape[-1]).t()).t().contiguous()
        return result.view(*hidden.shape[:-1], -1)
    usual: Tensor = layer(hidden)
    return usual


def lay_out_for_decoding(model: nn.Module, enable: bool = True) -> int:
    """Lay the weights of the linear layers on the CPU out for decoding one row, or again as torch makes them.

    Returns the number of weights that were moved; while a block is, it is in memory twice. Views of old weights go
    stale. Subclasses of nn.Linear stay as they are. A module with `_siblings` names the layers that share its input.
    """
    return sum(_lay_out(layers) if enable else _take_apart(layers) for layers in _groups(model))


def _groups(model: nn.Module) -> Iterator[list[nn.Linear]]:
    """Yield siblings together and all other linear layers by themselves, each weight once."""
    done: set[int] = set()
    for module in model.modules():
        together = [getattr(module, name) for name in getattr(module, "_siblings", ())]
        for layers in (together, [module]):
            linear = [
                layer for layer in layers if isinstance(layer, nn.Linear) and type(layer) in (nn.Linear, RowLinear)
            ]
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
    for layer in layers:
        layer.__class__ = RowLinear  # the same object, so that hooks and references to it stay
    block = _block_of(weights)
    if block is not None and (block.t().is_contiguous() if by_inputs else block.is_contiguous()):
        return 0
    if by_inputs:
        block = torch.cat([weight.data.t() for weight in weights], dim=1).t()
    else:
        block = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, block.split_with_sizes([weight.shape[0] for weight in weights]), strict=True):
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


def _is_plain(layer: nn.Module) -> bool:
    """Tell whether calling the layer is no more than its own forward."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)


def _block_of(weights: Sequence[Tensor]) -> Tensor | None:
    """Return the weights [outputs, inputs] as one, if they lie one behind the other in one storage; else None."""
    first = weights[0]
    strides, place, size = first.stride(), first.storage_offset(), first.element_size()
    start, outputs = first.data_ptr() - place * size, 0
    for weight in weights:
        # The same start of the storage, seen from either, is the same storage.
        if weight.storage_offset() != place or weight.data_ptr() - place * size != start or weight.stride() != strides:
            return None
        outputs += weight.shape[0]
        place += weight.shape[0] * strides[0]
    return first.as_strided((outputs, first.shape[1]), strides, first.storage_offset())


def _times_row(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return row W^T + b for one row (..., inputs) and a weight [outputs, inputs], in parts if it lies by inputs."""
    N, K = weight.shape
    small = N * K <= _IN_CACHE
    parts = math.gcd(torch.get_num_threads(), N if small else K)
    if parts == 1 or weight.dtype != torch.float32 or weight.stride(0) != 1 or weight.device.type != "cpu":
        return F.linear(row, weight, bias)
    if small:
        # A product for each part of the outputs, which torch runs on a thread each.
        size = N // parts
        weight_PKS = weight.as_strided((parts, K, size), (size, weight.stride(1), 1), weight.storage_offset())
        row_P1K = row.reshape(1, 1, K).expand(parts, 1, K)
        if bias is None:
            return torch.bmm(row_P1K, weight_PKS).view(*row.shape[:-1], N)
        return torch.baddbmm(bias.view(parts, 1, size), row_P1K, weight_PKS).view(*row.shape[:-1], N)
    # A product for each part of the inputs, whose rows are read one behind the other; then their sum.
    products_P1N = torch.bmm(row.reshape(parts, 1, -1), weight.t().view(parts, K // parts, N))
    result = products_P1N.sum(dim=0).view(*row.shape[:-1], N)
    return result if bias is None else result + bias
