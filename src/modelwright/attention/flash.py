"""Attention by the `flash_attn` package, where it is installed (a GPU, half precision)."""
# ruff: noqa: ARG001 - one contract for all of a kind

import importlib
from typing import Any

import torch
from torch import Tensor

from modelwright.attention.common import head_groups, scale_heads
from modelwright.core.errors import InputError, MissingPackageError
from modelwright.core.optional import is_available

HOW_TO_GET_FLASH = (
    'attn_implementation="flash_attention_2" needs the package flash-attn, which is not installed: '
    'pip install flash-attn (it needs a CUDA GPU), or use attn_implementation="sdpa".'
)


def flash_attention_forward(
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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the output [B, T, H, D] and None; `attention_mask` is the padding mask [B, S] or None.

    Padded keys are taken out before the kernel runs, one sequence of the batch after the other.
    Raises MissingPackageError without `flash_attn`, and InputError for fp32 inputs or a mask of another rank.
    Source: Dao 2023 (FlashAttention-2).
    """
    head_groups(query, key, value)
    flash = _package()
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise InputError(
            f"flash_attention_2 computes in fp16 or bf16, got {query.dtype}; load with dtype=torch.bfloat16"
        )
    if attention_mask is not None and attention_mask.dim() != 2:
        raise InputError(
            f"flash_attention_2 takes a padding mask [batch, key tokens], got shape {list(attention_mask.shape)}"
        )
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    window = (-1, -1) if sliding_window is None else (sliding_window - 1, 0 if is_causal else sliding_window - 1)
    options = {
        "dropout_p": dropout if getattr(module, "training", False) else 0.0,
        "softmax_scale": scaling,
        "causal": is_causal,
        "window_size": window,
        "softcap": softcap or 0.0,
    }
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    if attention_mask is None:
        output = flash.flash_attn_func(q, k, v, **options)
    else:
        output = _without_padding(flash, q, k, v, attention_mask.bool(), options)
    return scale_heads(output.transpose(1, 2), head_mask).transpose(1, 2).contiguous(), None


def _package() -> Any:
    if not is_available("flash_attn"):
        raise MissingPackageError(HOW_TO_GET_FLASH)
    return importlib.import_module("flash_attn")


def _without_padding(flash: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor, options: dict[str, Any]) -> Tensor:
    """Run the kernel on the kept tokens of each sequence; queries at padded places get zeros.

    The queries are the last T of the S positions, so the last T columns of `keep` [B, S] say which of them count.
    """
    T = q.shape[1]
    output = torch.zeros_like(q)
    for row in range(q.shape[0]):
        keys, queries = keep[row], keep[row, -T:]
        found = flash.flash_attn_func(
            q[row : row + 1, queries], k[row : row + 1, keys], v[row : row + 1, keys], **options
        )
        output[row, queries] = found[0]
    return output
