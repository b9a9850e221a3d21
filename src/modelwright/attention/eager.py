"""Attention written out: scores, mask, softmax, weighted sum. The only kernel that returns its weights."""
# ruff: noqa: ARG001 - one contract for all of a kind

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.attention.common import check_mask, head_groups, implied_mask, repeat_kv, scale_heads


@dataclass(frozen=True)
class Transforms:
    """Functions of the operands of attention's two matrix products, such as quantizers; None leaves one as it is.

    `key` gets the keys as they enter the product, [B, H, D, S], `weights` the probabilities after dropout and head
    mask.
    """

    query: Callable[[Tensor], Tensor] | None = None
    key: Callable[[Tensor], Tensor] | None = None
    value: Callable[[Tensor], Tensor] | None = None
    weights: Callable[[Tensor], Tensor] | None = None


def eager_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    *,
    head_mask: Tensor | None = None,
    softcap: float | None = None,
    transforms: Transforms | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Return the output [B, T, H, D] and the weights [B, H, T, S].

    `attention_mask` is boolean (True: may be seen) or is added to the scores; it broadcasts to [B, H, T, S]. Without
    one, `is_causal` (else the module's) decides. A query that sees no key gets zeros, never NaN. The softmax is in
    fp32. `transforms` see the operands of both matrix products; the weights returned are those before. Raises
    InputError for shapes that do not fit.
    Source: Vaswani et al. 2017, section 3.2; grouped heads: Ainslie et al. 2023.
    """
    groups = head_groups(query, key, value)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    change = transforms or _UNCHANGED
    left, right = _applied(change.query, query), _applied(change.key, repeat_kv(key, groups).transpose(2, 3))
    scores = torch.matmul(left, right).float() * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None:
        attention_mask = implied_mask(module, query, key, is_causal, sliding_window)
    if attention_mask is not None:
        check_mask(attention_mask, query, key)
        scores, sighted = _apply_mask(scores, attention_mask)
    weights = F.softmax(scores, dim=-1)
    if attention_mask is not None:
        weights = weights * sighted
    weights = weights.to(query.dtype)
    if dropout and getattr(module, "training", False):
        weights = F.dropout(weights, p=dropout)
    weights = scale_heads(weights, head_mask)
    left, right = _applied(change.weights, weights), _applied(change.value, repeat_kv(value, groups))
    output = torch.matmul(left, right)
    return output.transpose(1, 2).contiguous(), weights


_UNCHANGED = Transforms()


def _applied(function: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    return x if function is None else function(x)


def _apply_mask(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masked scores and [.., T, 1]: 1 for queries that see something, 0 for the others."""
    if mask.dtype == torch.bool:
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(~mask, lowest), mask.any(dim=-1, keepdim=True).to(scores.dtype)
    blocked = torch.finfo(mask.dtype).min / 2
    sighted = (mask > blocked).any(dim=-1, keepdim=True)
    # -inf in a whole row would make NaN.
    mask = mask.float().clamp_min(torch.finfo(torch.float32).min)
    return scores + mask, sighted.to(scores.dtype)
