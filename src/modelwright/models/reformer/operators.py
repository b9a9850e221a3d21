"""The attention kernels as operators of torch: one node each for `torch.compile` and `torch.export`, with gradients.

Shapes as in the kernels: (B, L, H*D) tensors; `key_mask` (B, L) is True at tokens that may be attended to; `order`
(B, H, N, L). `seed` is that of the dropout, and of the rotations in `hash_order`.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.models.reformer import hashing
from modelwright.models.reformer.kernels import (
    empty_rounds,
    local_attention,
    local_attention_backward,
    lsh_attention,
    lsh_attention_backward,
)
from modelwright.models.reformer.local_kernel import Windows
from modelwright.models.reformer.windows import split_heads
from modelwright.nn.tracing import is_recorded


def order_by_hash(
    qk: Tensor, key_mask: Tensor | None, heads: list[bool], num_hashes: int, factors: list[int], seed: int
) -> Tensor:
    """Hash every head's vectors and return the sorted token order (B, H, N, L), int32; nothing has a gradient.

    `heads` tells which of the layer's original heads are left.
    """
    if is_recorded():
        order: Tensor = hash_order(qk, key_mask, heads, num_hashes, factors, seed)
        return order
    # Calling an operator written in Python makes torch import its compiler: 90 MB and a second, for nothing here.
    return _order_by_hash(qk, key_mask, heads, num_hashes, factors, seed)


def _order_by_hash(
    qk: Tensor, key_mask: Tensor | None, heads: list[bool], num_hashes: int, factors: list[int], seed: int
) -> Tensor:
    qk_BHLD = split_heads(qk, sum(heads))
    rotations_HDNR = hashing.draw_rotations(heads, qk_BHLD.shape[-1], num_hashes, factors, like=qk, seed=seed)
    return hashing.hash_and_sort(qk_BHLD, rotations_HDNR, factors, key_mask)


hash_order = torch.library.custom_op("modelwright::reformer_hash_order", _order_by_hash, mutates_args=())


@hash_order.register_fake
def _(qk: Tensor, _key_mask: Tensor | None, heads: list[bool], num_hashes: int, *_settings: Any) -> Tensor:
    return qk.new_empty((qk.shape[0], sum(heads), num_hashes, qk.shape[1]), dtype=torch.int32)


@torch.library.custom_op("modelwright::reformer_local_attention", mutates_args=())
def local_attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    num_heads: int,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    dropout: float,
    seed: int,
) -> Tensor:
    """Local attention; see `local_kernel.local_attention`."""
    shape = Windows(chunk_length, num_before, num_after, causal, dropout, seed)
    return local_attention(q, k, v, key_mask, num_heads, shape)


@local_attention_op.register_fake
def _(_q: Tensor, _k: Tensor, v: Tensor, *_settings: Any) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@torch.library.custom_op("modelwright::reformer_local_attention_backward", mutates_args=())
def _local_backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    num_heads: int,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = Windows(chunk_length, num_before, num_after, causal, dropout, seed)
    return local_attention_backward(grad, q, k, v, key_mask, num_heads, shape)


@_local_backward_op.register_fake
def _(_grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _local_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 (given by name)
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _local_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = _local_backward_op(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, None, *(None for _ in ctx.settings))


local_attention_op.register_autograd(_local_grad, setup_context=_local_save)


@torch.library.custom_op("modelwright::reformer_lsh_attention", mutates_args=())
def lsh_attention_op(
    qk: Tensor,
    v: Tensor,
    order: Tensor,
    key_mask: Tensor | None,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """LSH attention; see `kernels.lsh_attention`. What the backward needs of the rounds has no gradient."""
    shape = Windows(chunk_length, num_before, num_after, causal, dropout, seed)
    return lsh_attention(qk, v, order, key_mask, shape)


@lsh_attention_op.register_fake
def _(qk: Tensor, v: Tensor, order: Tensor, *_settings: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), empty_rounds(qk, order)


@torch.library.custom_op("modelwright::reformer_lsh_attention_backward", mutates_args=())
def _lsh_backward_op(
    grad: Tensor,
    qk: Tensor,
    v: Tensor,
    order: Tensor,
    key_mask: Tensor | None,
    out: Tensor,
    rounds: Tensor,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    shape = Windows(chunk_length, num_before, num_after, causal, dropout, seed)
    return lsh_attention_backward(grad, qk, v, order, key_mask, out, rounds, shape)


@_lsh_backward_op.register_fake
def _(_grad: Tensor, qk: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qk), torch.empty_like(v)


def _lsh_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.settings = inputs[4:]


def _lsh_grad(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    grads = _lsh_backward_op(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, None, None, *(None for _ in ctx.settings))


lsh_attention_op.register_autograd(_lsh_grad, setup_context=_lsh_save)
