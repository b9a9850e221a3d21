"""From a predicate to the mask that a named kernel wants: a boolean matrix, an additive one, a BlockMask, or None.

    mask(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=causal_mask_function,
         attention_mask=None, local_size=None, allow_is_causal_skip=True, allow_is_bidirectional_skip=False,
         use_vmap=False, device="cpu", **kwargs) -> mask or None

4.57 passes `cache_position` [T] in place of `q_length` and `q_offset`; the masks here take either.
"""
# ruff: noqa: ARG001 - one contract for all of a kind

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.attention.interface import GeneralInterface
from modelwright.attention.predicates import (
    Predicate,
    and_masks,
    causal_mask_function,
    evaluate,
    padding_mask_function,
)
from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.nn.tracing import is_jit_traced, is_tracing

logger = get_logger(__name__)
MaskFunction = Callable[..., Any]


def prepare_padding_mask(attention_mask: Tensor | None, kv_length: int, kv_offset: int) -> Tensor | None:
    """Return the padding mask [B, at least kv_offset + kv_length] as booleans; what it lacks counts as padding."""
    if attention_mask is None:
        return None
    mask = attention_mask.bool()
    if is_jit_traced():
        return mask
    lacking = kv_offset + kv_length - mask.shape[-1]
    return F.pad(mask, (0, lacking), value=False) if lacking > 0 else mask


def query_positions(
    q_length: int | Tensor | None, q_offset: int, cache_position: Tensor | None, device: torch.device | str
) -> tuple[Tensor, int]:
    """Return the positions [T] of the queries, and the first of them; read from either version's spelling.

    With both spellings `q_offset` is the first, and no position is read, which would make an accelerator wait.
    """
    # In a traced call sizes are tensors too, without an axis.
    if isinstance(q_length, Tensor) and q_length.dim():
        cache_position = q_length
    if cache_position is not None:
        is_known = isinstance(q_length, int | torch.SymInt) or is_jit_traced()
        return cache_position, q_offset if is_known else int(cache_position[0])
    if q_length is None or isinstance(q_length, Tensor):
        raise InputError(
            "mask: expected q_length (a number of tokens) or cache_position (their positions), got neither"
        )
    return torch.arange(q_offset, q_offset + q_length, device=device), q_offset


def can_skip_causal(
    padding: Tensor | None, q_length: int, q_offset: int, kv_length: int, kv_offset: int, local_size: int | None
) -> bool:
    """Tell whether a causal mask says no more than `is_causal` does for a kernel without a mask."""
    if is_tracing() or (local_size is not None and kv_length > local_size):
        return False
    one_sees_all = q_length == 1 and kv_offset + kv_length <= q_offset + 1
    starts_together = q_offset == kv_offset and q_length > 1
    if not (one_sees_all or starts_together):
        return False
    if padding is None:
        return True
    return bool(padding[:, kv_offset : min(kv_offset + kv_length, q_offset + q_length)].all())


def sdpa_mask(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int = 0,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Predicate = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str | None = None,
    *,
    cache_position: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the boolean mask [B, 1, T, S], True where a key may be seen, or None where the kernel needs none.

    `attention_mask` is the padding mask [B, >= S], True or 1 for tokens.
    """
    device = device or (attention_mask.device if attention_mask is not None else "cpu")
    queries, q_offset = query_positions(q_length, q_offset, cache_position, device)
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if allow_is_causal_skip and can_skip_causal(padding, queries.shape[0], q_offset, kv_length, kv_offset, local_size):
        return None
    if (
        allow_is_bidirectional_skip
        and not is_tracing()
        and (local_size is None or kv_length <= local_size)
        and (padding is None or bool(padding[:, kv_offset : kv_offset + kv_length].all()))
    ):
        return None
    keys = torch.arange(kv_offset, kv_offset + kv_length, device=queries.device)
    visible = evaluate(mask_function, batch_size, queries, keys, use_vmap=use_vmap)
    if padding is not None:
        visible = visible & padding[:, None, None, kv_offset : kv_offset + kv_length]
    return visible


def eager_mask(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int = 0,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Predicate = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = False,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    cache_position: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the additive mask [B, 1, T, S]: 0 where a key may be seen, the lowest number of `dtype` elsewhere.

    A causal mask is never left out, whatever `allow_is_causal_skip` says: an eager kernel of a 4.x model file does not
    know `is_causal`.
    """
    visible = sdpa_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size, False,
        allow_is_bidirectional_skip, use_vmap, device, cache_position=cache_position,
    )  # fmt: skip
    if visible is None:
        return None
    zero = torch.zeros((), dtype=dtype, device=visible.device)
    return torch.where(visible, zero, torch.finfo(dtype).min)


def flash_attention_mask(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int = 0,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Predicate = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    *,
    is_plain: bool = True,
    is_chunked: bool = False,
    **kwargs: Any,
) -> Tensor | None:
    """Return the padding mask [B, S] of the keys, or None without padding; flash kernels know the rest themselves.

    Raises InputError for patterns that they do not know: `is_plain=False` (mask functions, packed sequences,
    blocks), and chunks that are shorter than the keys.
    """
    if not is_plain:
        raise InputError(
            "flash_attention_2 takes no mask functions, packed sequences or blocks; "
            'use attn_implementation="sdpa" or "flex_attention"'
        )
    if is_chunked and local_size is not None and kv_length > local_size:
        raise InputError(
            f"flash_attention_2 cannot attend in chunks: {kv_length} keys are more than a chunk of {local_size}; "
            'use attn_implementation="sdpa" or "flex_attention"'
        )
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is None:
        return None
    padding = padding[:, kv_offset : kv_offset + kv_length]
    return None if bool(padding.all()) else padding


def flex_attention_mask(
    batch_size: int,
    q_length: int | Tensor | None = None,
    kv_length: int = 0,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Predicate = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str | None = None,
    *,
    cache_position: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """Return a BlockMask over T queries and S keys, whose positions begin at the offsets."""
    from torch.nn.attention.flex_attention import create_block_mask

    device = device or (attention_mask.device if attention_mask is not None else "cpu")
    queries, q_offset = query_positions(q_length, q_offset, cache_position, device)
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        mask_function = and_masks(mask_function, padding_mask_function(padding))
    return create_block_mask(
        add_offsets_to_mask_function(mask_function, q_offset, kv_offset),
        B=batch_size,
        H=None,
        Q_LEN=queries.shape[0],
        KV_LEN=kv_length,
        device=str(queries.device),
    )


def add_offsets_to_mask_function(mask_function: Predicate, q_offset: int, kv_offset: int) -> Predicate:
    """Return the predicate over indices that begin at 0, for one over positions that begin at the offsets."""
    return lambda b, h, q, kv: mask_function(b, h, q + q_offset, kv + kv_offset)


class AttentionMaskInterface(GeneralInterface[MaskFunction]):
    """The mask functions by the name of their kernel; register one beside every attention that you register."""

    kind = "mask function"
    _global_mapping: ClassVar[dict[str, Any]] = {
        "eager": eager_mask,
        "sdpa": sdpa_mask,
        "flex_attention": flex_attention_mask,
        "flash_attention_2": flash_attention_mask,
    }


ALL_MASK_ATTENTION_FUNCTIONS = AttentionMaskInterface()


def mask_function_for(attn_implementation: str) -> MaskFunction:
    """Return the mask function of this name; an attention registered without one gets sdpa's, with one warning.

    That one is never left out, because a kernel that nobody knows may not know `is_causal`.
    """
    if attn_implementation in ALL_MASK_ATTENTION_FUNCTIONS:
        return ALL_MASK_ATTENTION_FUNCTIONS[attn_implementation]
    logger.warning_once(
        f"The attention {attn_implementation!r} has no mask function, so it gets sdpa's: booleans [batch, 1, query "
        "tokens, key tokens], True where a key may be seen. Choose one with "
        f"AttentionMaskInterface.register({attn_implementation!r}, function)."
    )
    return _explicit_sdpa_mask


def _explicit_sdpa_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
