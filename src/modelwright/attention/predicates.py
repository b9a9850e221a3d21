"""Who may see whom, as functions of index tensors: predicate(batch, head, query, key) -> bool.

Queries and keys are absolute positions. The indices broadcast, so a predicate of ours evaluates a whole matrix in one
call; torch's flex_attention calls the same functions with single indices.
"""
# ruff: noqa: ARG001, ARG005 - one contract for all predicates

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelwright.nn.tracing import is_tracing

Predicate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def causal_mask_function(batch_idx: Tensor, head_idx: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """A query sees itself and what came before."""
    return kv_idx <= q_idx


def bidirectional_mask_function(batch_idx: Tensor, head_idx: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    """Every query sees every key."""
    return (kv_idx >= 0) & (q_idx >= 0)


def and_masks(*mask_functions: Predicate) -> Predicate:
    """Return the predicate that holds where all of `mask_functions` hold."""

    def both(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        found = mask_functions[0](b, h, q, kv)
        for function in mask_functions[1:]:
            found = found & function(b, h, q, kv)
        return found

    return _checked(both, mask_functions, "and_masks")


def or_masks(*mask_functions: Predicate) -> Predicate:
    """Return the predicate that holds where one of `mask_functions` holds."""

    def either(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        found = mask_functions[0](b, h, q, kv)
        for function in mask_functions[1:]:
            found = found | function(b, h, q, kv)
        return found

    return _checked(either, mask_functions, "or_masks")


def _checked(combined: Predicate, functions: tuple[Any, ...], where: str) -> Predicate:
    if not functions or not all(callable(function) for function in functions):
        raise TypeError(f"{where}: expected functions of (batch, head, query, key), got {functions!r}")
    return combined


def sliding_window_overlay(sliding_window: int) -> Predicate:
    """Return the predicate for keys less than `sliding_window` tokens before the query, itself included."""
    return lambda b, h, q, kv: kv > q - sliding_window


def bidirectional_window_overlay(sliding_window: int) -> Predicate:
    """Return the predicate for keys at most `sliding_window` tokens away from the query on either side."""
    return lambda b, h, q, kv: (kv >= q - sliding_window) & (kv <= q + sliding_window)


def sliding_window_causal_mask_function(sliding_window: int) -> Predicate:
    """Return the predicate: the last `sliding_window` tokens, the query included."""
    return and_masks(sliding_window_overlay(sliding_window), causal_mask_function)


def chunked_overlay(chunk_size: int, left_padding: Tensor | None = None) -> Predicate:
    """Return the predicate for keys in the query's chunk; chunks begin after each row's `left_padding` [B] tokens."""
    if left_padding is None:
        return lambda b, h, q, kv: kv // chunk_size == q // chunk_size
    shift = left_padding
    return lambda b, h, q, kv: (kv - shift[b]) // chunk_size == (q - shift[b]) // chunk_size


def chunked_causal_mask_function(chunk_size: int, left_padding: Tensor | None = None) -> Predicate:
    """Return the predicate: the query's chunk, up to the query."""
    return and_masks(chunked_overlay(chunk_size, left_padding), causal_mask_function)


def padding_mask_function(padding_mask: Tensor) -> Predicate:
    """Return the predicate for keys that `padding_mask` [B, S] keeps."""
    return lambda b, h, q, kv: padding_mask[b, kv]


def packed_sequence_mask_function(packed_sequence_mask: Tensor) -> Predicate:
    """Return the predicate for keys of the query's own sequence; the tensor [B, T] numbers the sequences of a row."""
    return lambda b, h, q, kv: packed_sequence_mask[b, q] == packed_sequence_mask[b, kv]


def block_mask_function(block_ids: Tensor) -> Predicate:
    """Return the predicate for keys of the query's block; `block_ids` [B, S] numbers the blocks, -1 is in none."""

    def same(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        last = block_ids.shape[1] - 1
        of_query = torch.where(q <= last, block_ids[b, q.clamp(max=last)], -1)
        of_key = torch.where(kv <= last, block_ids[b, kv.clamp(max=last)], -1)
        return (of_query == of_key) & (of_query >= 0)

    return same


def find_packed_sequence_indices(position_ids: Tensor) -> Tensor | None:
    """Number the sequences packed into each row of `position_ids` [B, T]: a new one begins where the step is not 1.

    Returns None if every row is one sequence.
    """
    step = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1)
    numbers = (step != 1).cumsum(dim=-1)
    if is_tracing():
        return numbers
    return numbers if bool((numbers[:, -1] != 0).any()) else None


def evaluate(
    predicate: Predicate, batch_size: int, queries: Tensor, keys: Tensor, *, use_vmap: bool = False, heads: int = 1
) -> Tensor:
    """Return the boolean matrix [B, heads, T, S] of `predicate` at positions `queries` [T] and `keys` [S].

    With `use_vmap` the predicate gets single indices, as users write theirs; without, index tensors that broadcast.
    """
    device = queries.device
    b, h = torch.arange(batch_size, device=device), torch.arange(heads, device=device)
    if use_vmap:
        function: Any = predicate
        for dims in ((None, None, None, 0), (None, None, 0, None), (None, 0, None, None), (0, None, None, None)):
            function = torch.vmap(function, in_dims=dims, out_dims=0)
        found: Tensor = function(b, h, queries, keys)
        return found.bool()
    found = predicate(b[:, None, None, None], h[None, :, None, None], queries[None, None, :, None], keys)
    return found.expand(batch_size, heads, queries.shape[0], keys.shape[0])
