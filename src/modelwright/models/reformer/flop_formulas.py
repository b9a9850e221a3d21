"""The floating-point operations of this family's operators, for counters, which cannot see inside them."""

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from modelwright.models.reformer import operators  # noqa: F401 - defines the operators

_OPS = torch.ops.modelwright
Shape = tuple[int, ...]


def _products(shape: Shape, chunk_length: int, num_before: int, num_after: int) -> int:
    """Return the cost of one product of queries, or probabilities, with all windows of one round."""
    batch, length, width = shape
    window = length if length <= chunk_length else chunk_length * (num_before + 1 + num_after)
    return 2 * batch * length * window * width


@register_flop_formula(_OPS.reformer_hash_order)
def _hash(qk: Shape, _mask: Any, _heads: Any, num_hashes: int, factors: list[int], *_: Any, **__: Any) -> int:
    batch, length, width = qk
    return 2 * batch * length * width * num_hashes * sum(factor // 2 for factor in factors)


@register_flop_formula(_OPS.reformer_local_attention)
def _local(q: Shape, _k: Shape, _v: Shape, _mask: Any, _heads: int, *settings: Any, **_: Any) -> int:
    return 2 * _products(q, *settings[:3])


@register_flop_formula(_OPS.reformer_local_attention_backward)
def _local_backward(
    _grad: Shape, q: Shape, _k: Shape, _v: Shape, _mask: Any, _heads: int, *settings: Any, **_: Any
) -> int:
    # The scores again, and a product for each operand of both products.
    return 5 * _products(q, *settings[:3])


@register_flop_formula(_OPS.reformer_lsh_attention)
def _lsh(qk: Shape, _v: Shape, order: Shape, _mask: Any, *settings: Any, **_: Any) -> int:
    return 2 * order[2] * _products(qk, *settings[:3])


@register_flop_formula(_OPS.reformer_lsh_attention_backward)
def _lsh_backward(
    _grad: Shape, qk: Shape, _v: Shape, order: Shape, _mask: Any, _out: Shape, _weights: Shape, *settings: Any, **_: Any
) -> int:
    return 5 * order[2] * _products(qk, *settings[:3])
