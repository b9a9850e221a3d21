"""Attention in half precision whose gradients are computed in fp32, as in training under autocast.

On the CPU the backward of torch's fused kernel takes, in half precision, up to three times as long as in fp32 where the
queries are few hundred, because it packs each of its blocks anew; its forward does not. In fp32 the gradients are also
closer to the true ones.

Legend: B batch, H heads, T query tokens, S key tokens, D head size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelwright.nn.products import is_watched

# From about so many queries on, the kernel in half precision works in larger blocks.
_MOST_QUERIES = 512


def suits_half_training(query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Tensor | None) -> bool:
    """Tell whether `attend_half_training` takes these, torch would take its fused kernel, and the gradients gain."""
    if not torch.is_grad_enabled() or is_watched(query_BHTD, key_BHSD, value_BHSD):
        return False
    tensors = (query_BHTD, key_BHSD, value_BHSD)
    B, H, T, D = query_BHTD.shape
    return (
        all(each.is_cpu and each.dtype == query_BHTD.dtype and each.stride(3) == 1 for each in tensors)
        and query_BHTD.dtype in (torch.bfloat16, torch.float16)
        and any(each.requires_grad for each in tensors)
        and 0 < T < _MOST_QUERIES
        and key_BHSD.shape[2] > 0
        and key_BHSD.shape[:2] == value_BHSD.shape[:2] == (B, H)
        and key_BHSD.shape[3] == value_BHSD.shape[3] == D
        and not (mask is not None and mask.requires_grad)
        and torch._C._get_flash_sdp_enabled()  # for CPUs too
    )


def attend_half_training(
    query_BHTD: Tensor, key_BHSD: Tensor, value_BHSD: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    """Return the attended values (B, H, T, D), as torch's fused kernel does.

    `mask` is boolean (True: may be seen) or is added to the scores, and broadcasts to (B, H, T, S).
    """
    added = mask
    if mask is not None and mask.dtype == torch.bool:
        added = torch.zeros(mask.shape, dtype=query_BHTD.dtype).masked_fill_(~mask, float("-inf"))
    result: Tensor = _Attend.apply(query_BHTD, key_BHSD, value_BHSD, added, scale, causal)  # type: ignore[no-untyped-call]
    return result


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        output, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=added, scale=scale
        )
        ctx.save_for_backward(q, k, v, added, output, logsumexp)
        ctx.call = (scale, causal)
        return output  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, added, output, logsumexp), (scale, causal) = ctx.saved_tensors, ctx.call
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(each.float() for each in (grad, q, k, v, output)),
            logsumexp,
            0.0,
            causal,
            attn_mask=None if added is None else added.float(),
            scale=scale,
        )
        return (*(each.to(q.dtype) for each in gradients), None, None, None)
