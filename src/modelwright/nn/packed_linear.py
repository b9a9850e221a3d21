"""Linear layers that keep a second copy of their weight, in the order in which a processor multiplies a few rows by it.

A decoding step multiplies a few rows (a small batch, beams) by every weight. oneDNN puts a weight into its own order
before each product, and of a few rows that takes longer than the product does; of a weight that is kept in that order
it takes half of the time. The price is the memory of the copy, so `lay_out_for_decoding(model, packed=True)` asks for
it. A copy is made at the first product of few rows, so layers that see whole texts only have none, and made again when
the weight has changed; it is no part of the model's state, of copies of the model, or of files.

Legend: R rows, K inputs, N outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from modelwright.nn.products import is_free, linear, ready

# With more rows the order of the weight costs little beside the product.
_MOST_ROWS = 128


class PackedLinear(nn.Linear):
    """A linear layer that multiplies few rows, without gradients, by a packed copy of its weight (in fp32, on CPUs)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        # A weight that is made anew for each call (a parametrization, a pruned one) is no parameter.
        result = packed_product(input, (self,)) if "weight" in self._parameters else None
        return linear(input, self.weight, self.bias) if result is None else result


@dataclass(frozen=True)
class _Pack:
    """The weights of layers, one behind the other, and their biases; `made_of` and `state` tell of which tensors."""

    weight: Tensor
    bias: Tensor | None
    made_of: list[ref[Tensor] | None]
    state: list[tuple[int, int] | None]

    def is_of(self, made_of: list[Tensor | None], state: list[tuple[int, int] | None]) -> bool:
        """Tell whether it was made of these tensors, and they are as they were."""
        # The state alone may be that of another tensor, in the memory of one that is gone.
        return self.state == state and all(
            each is None or (old is not None and old() is each) for each, old in zip(made_of, self.made_of, strict=True)
        )


# By the first of the layers that are multiplied as one, and by how many they are.
_PACKS: "WeakKeyDictionary[nn.Module, dict[int, _Pack]]" = WeakKeyDictionary()


def can_pack() -> bool:
    """Tell whether torch has what packs weights and multiplies by them."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def packed_product(x: Tensor, layers: tuple[PackedLinear, ...]) -> Tensor | None:
    """Return x W^T + b, (..., K) -> (..., N), N the outputs of all layers, or None where their weights do not fit.

    That is for more rows, other dtypes and devices, and where gradients are recorded or other code looks.
    """
    weight: Tensor = layers[0]._parameters["weight"]  # type: ignore[assignment]
    if x.dtype != torch.float32 or not is_free(x, weight) or x.numel() > _MOST_ROWS * x.shape[-1]:
        return None
    pack = _pack_of(layers)
    return None if pack is None else _times(x, pack)


def ready_packed(layers: tuple[PackedLinear, ...]) -> Callable[[Tensor], Tensor]:
    """Return a function of x that does what `packed_product` does and asks nothing; more rows are multiplied as usual.

    The caller answers for that nothing changes: see `modelwright.nn.products.ready`.
    """
    pack = _pack_of(layers)
    unpacked = [ready(layer._parameters["weight"], layer._parameters["bias"]) for layer in layers]  # type: ignore[arg-type]

    def times(x: Tensor) -> Tensor:
        if pack is not None and x.numel() <= _MOST_ROWS * x.shape[-1]:
            return _times(x, pack)
        return torch.cat([product(x) for product in unpacked], dim=-1)

    return times


def _times(x: Tensor, pack: _Pack) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, pack.weight, pack.bias, "none", [], "")
    return result


def _pack_of(layers: tuple[PackedLinear, ...]) -> _Pack | None:
    """Return the pack of layers, made anew where there is none of their weights as they are; None if none can be."""
    # Straight from the dictionary: nn.Module's lookup costs more than all the rest here.
    made_of: list[Tensor | None] = [layer._parameters[name] for layer in layers for name in ("weight", "bias")]
    state = [None if each is None or each.is_inference() else (each.data_ptr(), each._version) for each in made_of]
    packs = _PACKS.get(layers[0])
    pack = None if packs is None else packs.get(len(layers))
    if pack is None or not pack.is_of(made_of, state):
        pack = _packed(made_of, state)
        if pack is not None:
            _PACKS.setdefault(layers[0], {})[len(layers)] = pack
    return pack


def _packed(made_of: list[Tensor | None], state: list[tuple[int, int] | None]) -> _Pack | None:
    """Return the pack of layers, each its weight and its bias; None where some have a bias, or changes go unnoticed."""
    weights, biases = made_of[::2], made_of[1::2]
    biased = [each for each in biases if each is not None]
    if len(biased) not in (0, len(biases)) or any(each is not None and each.is_inference() for each in made_of):
        return None
    together: Tensor = weights[0] if len(weights) == 1 else torch.cat(weights)  # type: ignore[assignment, arg-type]
    bias = torch.cat(biased) if biased else None
    reordered = torch.ops.mkldnn._reorder_linear_weight(together.detach().contiguous())
    return _Pack(reordered, bias, [None if each is None else ref(each) for each in made_of], state)


def forget(layer: nn.Module) -> None:
    """Let the copies go that are kept for the layer."""
    _PACKS.pop(layer, None)
