"""Attention by torch's `flex_attention`, whose mask is a function (a BlockMask) and never a matrix."""
# ruff: noqa: ARG001 - one contract for all of a kind

from typing import Any

import torch
from torch import Tensor

from modelwright.attention.common import check_mask, head_groups, implied_mask, repeat_kv, scale_heads, with_infinities
from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.sdpa import sdpa_attention_forward
from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)


def flex_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    *,
    head_mask: Tensor | None = None,
    output_attentions: bool = False,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return the output [B, T, H, D] and None.

    `attention_mask` is a BlockMask, or a matrix as in the other kernels. torch runs it fused on a GPU and inside
    `torch.compile`, and unfused (slow, but right) elsewhere; it has no gradients on a CPU, where the sdpa kernel runs
    instead. `output_attentions=True` runs the eager kernel. Both say so once. Raises InputError for dropout in
    training, which flex_attention does not have, and for shapes that do not fit.
    """
    from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention

    groups = head_groups(query, key, value)
    if dropout and getattr(module, "training", False):
        raise InputError(
            f"flex_attention has no dropout, got dropout={dropout} in training; set attention_dropout to 0 in the "
            'config or use attn_implementation="sdpa"'
        )
    trains_on_cpu = query.device.type == "cpu" and torch.is_grad_enabled() and _wants_gradients(query, key, value)
    if output_attentions or trains_on_cpu:
        if output_attentions:
            logger.warning_once("flex_attention cannot return weights, so this call runs the eager kernel.")
        else:
            logger.warning_once(
                "torch's flex_attention has no gradients on a CPU, so calls that need them run the sdpa kernel (eager "
                "with a softcap); the results agree."
            )
        if isinstance(attention_mask, BlockMask):
            T, S = query.shape[2], key.shape[2]
            attention_mask = create_mask(attention_mask.mask_mod, query.shape[0], 1, T, S, device=str(query.device))
        kernel = eager_attention_forward if output_attentions or softcap is not None else sdpa_attention_forward
        return kernel(
            module, query, key, value, attention_mask, scaling, 0.0, is_causal, sliding_window,
            head_mask=head_mask, softcap=softcap,
        )  # fmt: skip
    matrix = None
    if not isinstance(attention_mask, BlockMask):
        matrix = attention_mask
        if matrix is None:
            matrix = implied_mask(module, query, key, is_causal, sliding_window)
    if matrix is not None:
        check_mask(matrix, query, key)
        if matrix.dtype == torch.bool:
            matrix = torch.where(matrix, 0.0, float("-inf"))
        else:
            matrix = with_infinities(matrix, torch.float32)
        matrix = matrix.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        if softcap is not None:
            score = torch.tanh(score / softcap) * softcap
        return score if matrix is None else score + matrix[b, h, q, kv]

    output = flex_attention(
        query,
        repeat_kv(key, groups),
        repeat_kv(value, groups),
        score_mod=score_mod if matrix is not None or softcap is not None else None,
        block_mask=attention_mask if isinstance(attention_mask, BlockMask) else None,
        scale=scaling,
    )
    assert isinstance(output, Tensor)
    return scale_heads(output, head_mask).transpose(1, 2).contiguous(), None


def _wants_gradients(*tensors: Tensor) -> bool:
    return any(tensor.requires_grad for tensor in tensors)
