"""Where the numbers of weights lie in memory: what decides batch-1 decoding on a CPU.

One row of input reads every weight once, so a token costs what reading the weights costs. torch's own product for one
row uses neither both cores nor the memory's full speed. `lay_out_for_decoding(model)` changes two things, once:

- Weights of linear layers, [outputs, inputs] to the outside, lie as [inputs, outputs], so that one row is multiplied
  as `modelwright.nn.products` says.
- The weights of layers that get the same input (the `_siblings` of a module: queries, keys and values, say) lie one
  behind the other in one block, and one row is multiplied with the block. Each weight is a part of the block.

Parameters keep their names, shapes and values: the model saves, loads and trains as before, and nothing is held twice.
A copy, a move (`model.to(...)`) or a new weight undoes the layout of that weight, which costs speed and nothing else.

With `packed=True` it does something else, for more rows than one: see `modelwright.nn.packed_linear`.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from modelwright.nn.packed_linear import PackedLinear, can_pack, forget, packed_product, ready_packed
from modelwright.nn.precision import autocast_dtype
from modelwright.nn.products import ROW_DTYPES, is_free, linear, ready
from modelwright.nn.tracing import is_tracing


class RowLinear(nn.Linear):
    """A linear layer whose weight lies by inputs; it multiplies by `modelwright.nn.products`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return linear(input, self.weight, self.bias)


# What may be laid out, and multiplied without being called.
_TYPES = (nn.Linear, RowLinear, PackedLinear)


def apply_linear(layer: nn.Module, hidden: Tensor) -> Tensor:
    """Return `layer(hidden)`, (..., inputs) -> (..., outputs); of a plain linear layer by `modelwright.nn.products`.

    Layers with hooks and those of all other classes (quantized ones, adapters), which do more than a product, are
    called, and all are while a call is traced.
    """
    if not is_tracing() and is_plain_linear(layer):
        # Straight from the dictionary: nn.Module's lookup of a weight costs more than all the rest here.
        weight: Tensor = layer._parameters["weight"]  # type: ignore[assignment]
        if type(layer) is PackedLinear and (result := packed_product(hidden, (layer,))) is not None:
            return result
        return linear(hidden, weight, layer._parameters["bias"])
    called: Tensor = layer(hidden)
    return called


def apply_each(hidden: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Return `layer(hidden)` of each layer, as `apply_linear` does; of packed weights or a block as one product.

    Then the results are parts of one tensor (..., all outputs).
    """
    if are_packed(*layers):
        product = packed_product(hidden, layers)  # type: ignore[arg-type]
        if product is not None:
            return product.split_with_sizes([layer.out_features for layer in layers], dim=-1)  # type: ignore[misc]
    if all(type(layer) is RowLinear and is_plain_linear(layer) for layer in layers):
        weights: list[Tensor] = [layer._parameters["weight"] for layer in layers]  # type: ignore[misc]
        biases: list[Tensor] = [bias for layer in layers if (bias := layer._parameters["bias"]) is not None]
        if len(biases) in (0, len(layers)) and _are_block(weights) and is_free(hidden, weights[0]):
            result = linear(hidden, _block(weights), torch.cat(biases) if biases else None)
            return tuple(result.split_with_sizes([weight.shape[0] for weight in weights], dim=-1))
    dtype = autocast_dtype(hidden)
    if dtype is not None and all(map(is_plain_linear, layers)):
        # Once for all: autocast would do it for each, and their gradients would be cast and added one by one.
        hidden = hidden.to(dtype)
    return tuple(apply_linear(layer, hidden) for layer in layers)


def ready_product(*layers: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function that does what `apply_each` does with plain layers in fp32, and asks nothing.

    It returns their results side by side, (..., all outputs). For how long it is right, `modelwright.nn.products.ready`
    says, and a packed weight must not change.
    """
    if all(type(layer) is PackedLinear for layer in layers):
        return ready_packed(layers)  # type: ignore[arg-type]
    weights: list[Tensor] = [layer._parameters["weight"] for layer in layers]  # type: ignore[misc]
    biases = [layer._parameters["bias"] for layer in layers]
    if len(layers) == 1:
        return ready(weights[0], biases[0])
    if all(bias is None for bias in biases) and _are_block(weights):
        return ready(_block(weights))
    products = list(map(ready, weights, biases))
    return lambda hidden: torch.cat([product(hidden) for product in products], dim=-1)


def are_packed(*layers: nn.Module) -> bool:
    """Tell whether few rows are multiplied by the weights of all these layers at once."""
    return all(type(layer) is PackedLinear and is_plain_linear(layer) for layer in layers) and not is_tracing()


def lay_out_for_decoding(model: nn.Module, enable: bool = True, *, packed: bool = False) -> int:
    """Lay the weights of the linear layers on the CPU out for decoding one row, or again as torch makes them.

    Returns the number of weights that were moved; while a block is, it is in memory twice. Views of old weights go
    stale. Subclasses of nn.Linear stay as they are. What goes by the exact class, as torch's `quantize_dynamic` does,
    no longer finds the layers: quantize first, or undo the layout with `enable=False`. A module with `_siblings` names
    the layers that share its input.

    packed: instead keep a second copy of each fp32 weight that few rows are multiplied by, which is faster for more
        rows than one and takes the memory of those weights again, from their first such product on. Returns the number
        of layers that will. A weight that is changed through `.data` is not noticed; call this again. Without oneDNN in
        torch nothing changes.
    """
    lays = enable and not packed
    moved = sum(_lay_out(layers) if lays else _take_apart(layers) for layers in _groups(model))
    return _pack(model) if enable and packed else moved


def _groups(model: nn.Module) -> Iterator[list[nn.Linear]]:
    """Yield siblings together and all other linear layers by themselves, each weight once."""
    done: set[int] = set()
    for module in model.modules():
        together = [getattr(module, name) for name in getattr(module, "_siblings", ())]
        for layers in (together, [module]):
            linear = [layer for layer in layers if isinstance(layer, nn.Linear) and type(layer) in _TYPES]
            weights = {id(layer.weight): layer.weight for layer in linear}
            alike = len({(weight.dtype, weight.device, weight.shape[1]) for weight in weights.values()}) == 1
            if alike and len(weights) == len(layers) and done.isdisjoint(weights):
                done.update(weights)
                yield linear


def _lay_out(layers: list[nn.Linear]) -> int:
    weights: list[Tensor] = [layer.weight for layer in layers]
    if weights[0].device.type != "cpu" or weights[0].dtype not in ROW_DTYPES:
        return 0
    for layer in layers:
        forget(layer)
        layer.__class__ = RowLinear  # the same object, so that hooks and references to it stay
    if _are_block(weights):
        return 0
    block = torch.cat([weight.data.t() for weight in weights], dim=1).t()
    for weight, part in zip(weights, block.split_with_sizes([weight.shape[0] for weight in weights]), strict=True):
        weight.data = part
    return len(layers)


def _take_apart(layers: list[nn.Linear]) -> int:
    moved = 0
    for layer in layers:
        layer.__class__ = nn.Linear
        forget(layer)
        if layer.weight.untyped_storage().nbytes() != layer.weight.nbytes or not layer.weight.is_contiguous():
            layer.weight.data = layer.weight.data.clone(memory_format=torch.contiguous_format)
            moved += 1
    return moved


def _pack(model: nn.Module) -> int:
    packed = 0
    for layer in model.modules():
        weight = layer._parameters.get("weight") if type(layer) is nn.Linear else None
        if weight is not None and weight.dtype == torch.float32 and weight.device.type == "cpu" and can_pack():
            layer.__class__ = PackedLinear
            packed += 1
    return packed


def is_plain_linear(layer: nn.Module) -> bool:
    """Tell whether calling the layer is the product with its parameter, plus its bias, and no more: nothing is hooked.

    In a replica of `torch.nn.DataParallel` the weight is no parameter.
    """
    return type(layer) in _TYPES and "weight" in layer._parameters and not is_hooked(layer)


def is_hooked(module: nn.Module) -> bool:
    """Tell whether calling the module does more than its class's `forward`: hooks, a patched or compiled call."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def _are_block(weights: Sequence[Tensor]) -> bool:
    """Tell whether the weights [outputs, inputs] lie by inputs, one behind the other, with nothing between."""
    strides, place = (1, sum(weight.shape[0] for weight in weights)), weights[0].data_ptr()
    for weight in weights:
        # Each reaches over the beginning of the next, so what continues it is in the same memory.
        if weight.stride() != strides or weight.data_ptr() != place:
            return False
        place += weight.shape[0] * weight.element_size()
    return True


def _block(weights: Sequence[Tensor]) -> Tensor:
    """Return the weights of a block as one, [all outputs, inputs]."""
    N = sum(weight.shape[0] for weight in weights)
    return weights[0].as_strided((N, weights[0].shape[1]), (1, N))
