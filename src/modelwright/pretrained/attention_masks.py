"""Additive attention masks of the 4.x kind: 0 where attention is allowed, the dtype's lowest number where it is not.

Shapes: B batch, T query tokens, S key tokens, H heads, N layers.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.nn.tracing import is_tracing

logger = get_logger(__name__)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask of ones (attend) and zeros (do not) into one that is added to the attention scores."""
    return (1.0 - mask.to(dtype)) * torch.finfo(dtype).min


def broadcastable(mask: Tensor) -> Tensor:
    """Give a mask (B, S) or (B, T, S) the axes that it lacks: (B, 1, 1, S) or (B, 1, T, S)."""
    if mask.dim() == 3:
        return mask[:, None, :, :]
    if mask.dim() == 2:
        return mask[:, None, None, :]
    raise InputError(
        f"attention_mask: expected the shape (batch, keys) or (batch, queries, keys), got {tuple(mask.shape)}"
    )


def causal_and_padding(mask: Tensor, num_queries: int) -> Tensor:
    """Return (B, 1, T, S), ones where a query may attend: to keys that `mask` (B, S) allows and that are no later.

    The queries are the last `num_queries` of the S positions: earlier keys are a prefix that all of them may see.
    """
    num_keys = mask.shape[1]
    positions = torch.arange(max(num_keys, num_queries), device=mask.device)
    queries = positions[max(num_keys - num_queries, 0) :][:num_queries]
    causal_TS = (positions[None, :num_keys] <= queries[:, None]).to(mask.dtype)
    return causal_TS[None, None] * mask[:, None, None, :]


def head_mask_per_layer(head_mask: Tensor, num_layers: int, dtype: torch.dtype) -> Tensor:
    """Return (N, 1, H, 1, 1) from a head mask (H,), the same for all layers, or (N, H)."""
    if head_mask.dim() == 1:
        head_mask = head_mask.expand(num_layers, -1)
    elif head_mask.dim() != 2 or head_mask.shape[0] != num_layers:
        raise InputError(
            f"head_mask: expected the shape (heads,) or ({num_layers}, heads), one row per layer, "
            f"got {tuple(head_mask.shape)}"
        )
    return head_mask[:, None, :, None, None].to(dtype)


def warn_if_padding(model: Any, input_ids: Tensor, attention_mask: Tensor | None) -> None:
    """Warn; documented at `PreTrainedModel.warn_if_padding_and_no_attention_mask`."""
    config = model.config
    pad = config.pad_token_id
    if attention_mask is not None or pad is None or model._looked_for_padding or is_tracing():
        return
    if input_ids.is_meta or not input_ids.numel():
        return
    on_cpu = input_ids.device.type == "cpu"
    # To look makes an accelerator wait, so there it is done for the first batch only.
    model._looked_for_padding = not on_cpu
    if not bool((input_ids[..., [0, -1]] == pad).any()):
        return
    model._looked_for_padding = True
    text = (
        f"{type(model).__name__}: a row begins or ends with the pad token {pad}, and there is no attention_mask: "
        "padding is attended to like text. Pass the attention_mask that the tokenizer returns."
    )
    twins = [name for name in ("bos_token_id", "eos_token_id", "sep_token_id") if getattr(config, name, None) == pad]
    if twins:
        text += f" (If these are no padding but {' or '.join(twins)}, which is the same id, pass a mask of ones.)"
    logger.warning_once(text)
