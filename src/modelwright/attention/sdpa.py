"""Attention by torch's fused kernels (`scaled_dot_product_attention`)."""
# ruff: noqa: ARG001 - one contract for all of a kind

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.attention.common import (
    check_mask,
    head_groups,
    implied_mask,
    is_causal_call,
    repeat_kv,
    scale_heads,
    with_infinities,
)
from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.few_queries import attend_few, suits_few
from modelwright.attention.half_training import attend_half_training, suits_half_training
from modelwright.core.logging import get_logger
from modelwright.nn.tracing import is_jit_traced

logger = get_logger(__name__)


def sdpa_attention_forward(
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
    output_attentions: bool = False,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return the output [B, T, H, D] and None.

    `attention_mask` is boolean (True: may be seen) or is added to the scores; it broadcasts to [B, H, T, S]. Without
    one, `is_causal` (else the module's) decides. `output_attentions=True` or a `softcap`, which the fused kernels
    cannot do, run the eager kernel, with one warning. Raises InputError for shapes that do not fit.
    """
    if output_attentions or softcap is not None:
        logger.warning_once(
            f"sdpa attention cannot {'return weights' if output_attentions else 'cap its scores'}, so this call runs "
            'the eager kernel; pass attn_implementation="eager" when the model is made to choose it for good.'
        )
        return eager_attention_forward(
            module, query, key, value, attention_mask, scaling, dropout, is_causal, sliding_window,
            head_mask=head_mask, softcap=softcap,
        )  # fmt: skip
    groups = head_groups(query, key, value)
    causal = False
    if attention_mask is not None:
        check_mask(attention_mask, query, key)
        if attention_mask.dtype != torch.bool:
            attention_mask = with_infinities(attention_mask, query.dtype)
    elif sliding_window is not None and key.shape[2] > sliding_window:
        attention_mask = implied_mask(module, query, key, is_causal, sliding_window)
    else:
        causal = is_causal_call(module, query, is_causal)
    probability = dropout if getattr(module, "training", False) else 0.0
    B, H, T, D = query.shape
    folded = groups > 1 and T == 1 and (attention_mask is None or attention_mask.shape[1] == 1)
    if folded:
        # One token: the heads that share keys become query rows, and no key is copied.
        query = query.reshape(B, H // groups, groups, D)
    elif groups > 1 and attention_mask is not None:
        # With a mask, not every fused kernel takes grouped heads.
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    dtype = query.dtype
    half_on_cpu = dtype.itemsize == 2 and query.device.type == "cpu" and not torch.is_grad_enabled()
    if half_on_cpu and not folded and not is_jit_traced() and T == 1:
        # For a lone query row the CPU's half-precision kernel takes 1.3 to 10 times as long as copies in fp32 do.
        query, key, value = query.float(), key.float(), value.float()
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            attention_mask = attention_mask.float()
    if not (causal or probability) and suits_few(query, key, value, attention_mask):
        output = attend_few(query, key, value, attention_mask, scaling)
    elif not probability and suits_half_training(query, key, value, attention_mask):
        output = attend_half_training(query, key, value, attention_mask, scaling, causal)
    else:
        output = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=probability,
            is_causal=causal,
            scale=scaling,
            enable_gqa=groups > 1 and not folded and attention_mask is None,
        )
    if folded:
        output = output.reshape(B, H, 1, value.shape[-1])
    return scale_heads(output.to(dtype), head_mask).transpose(1, 2).contiguous(), None
