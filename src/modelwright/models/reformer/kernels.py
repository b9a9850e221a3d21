"""Which kernels attend: on a GPU with Triton those of `triton_attention`, elsewhere `local_kernel` and `lsh_kernel`.

The functions have the arguments of the latter, and results of the same meaning but for what is only for the backward.
With `in_place` the inputs may be overwritten.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.models.reformer import local_kernel, lsh_kernel, triton_attention
from modelwright.models.reformer.local_kernel import Windows
from modelwright.nn.precision import at_least_float32


def local_attention(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, num_heads: int, shape: Windows, **more: Any
) -> Tensor:
    """Attend within chunks and their neighbours; return (B, L, H*D). `part` needs `local_attends_in_parts`."""
    kernel: Any = triton_attention if triton_attention.can_run(q, num_heads) else local_kernel
    return kernel.local_attention(q, k, v, key_mask, num_heads, shape, **more)  # type: ignore[no-any-return]


def local_attends_in_parts(x: Tensor, num_heads: int) -> bool:
    """Tell whether `local_attention` takes a `part` of what is projected of `x`, and that is worth it."""
    return not x.is_cuda and not triton_attention.can_run(x, num_heads)


def local_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    num_heads: int,
    shape: Windows,
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    if triton_attention.can_run(q, num_heads):
        return triton_attention.local_attention_backward(grad, q, k, v, key_mask, num_heads, shape)
    return local_kernel.local_attention_backward(grad, q, k, v, key_mask, num_heads, shape, in_place=in_place)


def lsh_attention(
    qk: Tensor, v: Tensor, order: Tensor, key_mask: Tensor | None, shape: Windows, **into: Tensor
) -> tuple[Tensor, Tensor]:
    """Attend among tokens that `order` sorts next to each other; return (B, L, H*D) and what the backward needs."""
    kernel: Any = triton_attention if triton_attention.can_run(qk, order.shape[1]) else lsh_kernel
    return kernel.lsh_attention(qk, v, order, key_mask, shape, **into)  # type: ignore[no-any-return]


def lsh_overwrites(qk: Tensor, num_heads: int) -> bool:
    """Tell whether `lsh_attention` can write its output over `qk`: not where all heads are at work at once."""
    return not triton_attention.can_run(qk, num_heads)


def empty_rounds(qk: Tensor, order: Tensor) -> Tensor:
    """Return a tensor like the second result of `lsh_attention`, with any content."""
    on_gpu = triton_attention.can_run(qk, order.shape[1])
    shape = triton_attention.kept_shape(order) if on_gpu else order.shape
    return torch.empty(shape, dtype=at_least_float32(qk[:0]).dtype, device=qk.device)


def lsh_attention_backward(
    grad: Tensor,
    qk: Tensor,
    v: Tensor,
    order: Tensor,
    key_mask: Tensor | None,
    out: Tensor,
    rounds: Tensor,
    shape: Windows,
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `qk` and `v`; `out` and `rounds` are what the forward returned."""
    if triton_attention.can_run(qk, order.shape[1]):
        return triton_attention.lsh_attention_backward(grad, qk, v, order, key_mask, out, rounds, shape)
    return lsh_kernel.lsh_attention_backward(grad, qk, v, order, key_mask, out, rounds, shape, in_place=in_place)
