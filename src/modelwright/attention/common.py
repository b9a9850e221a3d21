"""What the kernels share: checking, grouped heads, and the mask that is meant when none is given.

Legend: B batch, H query heads, G key/value heads, R = H / G, T query tokens, S key tokens, D head size.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_jit_traced


def repeat_kv(hidden_states: Tensor, n_rep: int) -> Tensor:
    """Repeat each of the G heads of [B, G, S, D] `n_rep` times in place: [B, G * n_rep, S, D]."""
    if n_rep == 1:
        return hidden_states
    B, G, S, D = hidden_states.shape
    return hidden_states[:, :, None].expand(B, G, n_rep, S, D).reshape(B, G * n_rep, S, D)


def head_groups(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Return R, the number of query heads that share a key head; raise InputError where the shapes do not fit."""
    H, G = _head_count(query), _head_count(key)
    if is_jit_traced():
        return H // G
    if G == 0 or H % G or key.shape[:3] != value.shape[:3] or query.shape[-1] != key.shape[-1]:
        raise InputError(
            "attention: expected query [batch, heads, tokens, size], key and value [batch, key heads, key tokens, "
            f"size] with heads a multiple of key heads, got {list(query.shape)}, {list(key.shape)}, {list(value.shape)}"
        )
    return H // G


def _head_count(x_BHTD: Tensor) -> int:
    # Sizes of a call that torch.jit traces are tensors, which must not steer; the length of a list is a number.
    return len(x_BHTD.unbind(1)) if is_jit_traced() else x_BHTD.shape[1]


def check_mask(mask: Tensor, query: Tensor, key: Tensor) -> None:
    """Raise InputError unless `mask` broadcasts to [B, H, T, S]; a traced call is not checked."""
    if is_jit_traced():
        return
    wanted = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    fits = mask.dim() == 4 and all(have in (1, want) for have, want in zip(mask.shape, wanted, strict=True))
    if not fits:
        raise InputError(
            f"attention: expected a mask that broadcasts to [batch, heads, query tokens, key tokens] = {list(wanted)}, "
            f"got shape {list(mask.shape)}; make it with modelwright.masking_utils.create_causal_mask or its sisters"
        )


def with_infinities(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an additive mask in `dtype` with -inf for what it blocks.

    Masks block with the lowest number of their dtype, which to a fused kernel is a number like others: a query that
    sees nothing would get the mean of all values.
    """
    return mask.masked_fill(mask < torch.finfo(mask.dtype).min / 2, float("-inf")).to(dtype)


def is_causal_call(module: Any, query: Tensor, is_causal: bool | None) -> bool:
    """Tell whether a call without a mask is causal: the argument, else the module's `is_causal`, else True.

    One query token always is the newest and sees every key, so there the answer is False.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    return bool(is_causal) and query.shape[2] > 1


def implied_mask(module: Any, query: Tensor, key: Tensor, is_causal: bool | None, window: int | None) -> Tensor | None:
    """Return the boolean mask [1, 1, T, S] that a call without a mask means, or None where all see all.

    The mask builders leave a causal mask out only where queries and keys begin at the same position, so query i sees
    the keys 0..i, of them the last `window` tokens. One query token sees the last `window` keys.
    """
    T, S = query.shape[2], key.shape[2]
    if T == 1 and window is not None and window < S and (is_causal or is_causal is None):
        return (torch.arange(S, device=query.device) >= S - window)[None, None, None]
    if not is_causal_call(module, query, is_causal):
        return None
    q, k = torch.arange(T, device=query.device)[:, None], torch.arange(S, device=query.device)[None]
    visible = k <= q
    if window is not None:
        visible = visible & (k > q - window)
    return visible[None, None]


def scale_heads(output: Tensor, head_mask: Tensor | None) -> Tensor:
    """Multiply each head of [B, H, T, D] by its entry of a head mask [H] or [1 or B, H, 1, 1]."""
    if head_mask is None:
        return output
    if head_mask.dim() == 1:
        head_mask = head_mask[None, :, None, None]
    if head_mask.dim() != 4 or head_mask.shape[1] != output.shape[1] or head_mask.shape[2:] != (1, 1):
        raise InputError(
            f"attention: expected a head mask of shape [heads] or [1 or batch, heads, 1, 1] with "
            f"{output.shape[1]} heads, got {list(head_mask.shape)}"
        )
    return output * head_mask.to(output.dtype)


def own_heads(where: str, head_mask_1H11: Tensor, num_heads: int, pruned_heads: Collection[int]) -> Tensor:
    """Return the mask of the `num_heads` heads that are left, given it for these or for the unpruned layer's."""
    found, before = head_mask_1H11.shape[1], num_heads + len(pruned_heads)
    if found == num_heads:
        return head_mask_1H11
    if found != before:
        raise InputError(
            f"head_mask: expected {num_heads} heads for {where}, or {before} counted with the pruned ones, got {found}"
        )
    left = [head for head in range(before) if head not in pruned_heads]
    return head_mask_1H11[:, left]


def biased(mask: Any, bias_BHTS: Tensor) -> Tensor:
    """Return the mask that blocks what `mask` (booleans, numbers, a BlockMask, None) does, and adds the bias."""
    if mask is None:
        return bias_BHTS
    if not isinstance(mask, Tensor):
        from torch.nn.attention.flex_attention import create_mask

        T, S = bias_BHTS.shape[2:]
        mask = create_mask(mask.mask_mod, mask.shape[0], 1, T, S, device=str(bias_BHTS.device))
    if mask.dtype == torch.bool:
        return bias_BHTS.masked_fill(~mask, torch.finfo(bias_BHTS.dtype).min)
    total: Tensor = bias_BHTS + mask
    return total
