"""Attention as few ONNX nodes; PyTorch's own way adds a dozen that compute shapes and look for NaN.

Legend: B batch, H query heads, G key/value heads, T query tokens, S key tokens, D head size.
"""
# ruff: noqa: ARG001 - one contract for all kernels

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.common import head_groups, implied_mask, repeat_kv, scale_heads
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS
from modelwright.attention.mask_interface import ALL_MASK_ATTENTION_FUNCTIONS, prepare_padding_mask, sdpa_mask
from modelwright.attention.predicates import Predicate, bidirectional_mask_function
from modelwright.quantization.onnx_nodes import current_target

NAME = "onnx_export"
# ONNX Runtime's attention in one node. It takes queries, keys and values as [B, tokens, H * D], no bias, and a mask
# [B, S] of 32-bit integers.
FUSED_ATTENTION = "MultiHeadAttention"


def onnx_attention(
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
) -> tuple[Tensor, Tensor]:
    """Return the output [B, T, H, D] and the weights [B, H, T, S]; arguments as the eager kernel's, without dropout.

    A query that sees no key gets zeros.
    """
    groups = head_groups(query, key, value)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, repeat_kv(key, groups).transpose(2, 3))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is None:
        attention_mask = implied_mask(module, query, key, is_causal, sliding_window)
    sighted = None
    if attention_mask is not None:
        scores, sighted = _masked(scores, attention_mask)
    weights = torch.softmax(scores, dim=-1)
    if groups == 1 and softcap is None and head_mask is None and _is_fused(query, attention_mask):
        return _fused(query, key, value, attention_mask, scaling), weights
    output = torch.matmul(scale_heads(weights, head_mask), repeat_kv(value, groups)).transpose(1, 2)
    return output if sighted is None else output * sighted, weights


def _is_fused(query: Tensor, mask: Tensor | None) -> bool:
    """Return whether ONNX Runtime's own node can do what the mask says: nothing, or which keys are padding.

    On a CPU it knows 32-bit numbers only.
    """
    if current_target() != "onnxruntime-cpu" or not torch.onnx.is_in_onnx_export() or query.dtype != torch.float32:
        return False
    return mask is None or (mask.dtype == torch.bool and mask.shape[1] == 1 and mask.shape[2] == 1)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Return the output [B, T, H, D] of one node; what queries that see nothing get is seen to in `unpadded`."""
    inputs: list[Tensor | None] = [each.transpose(1, 2).flatten(2) for each in (query, key, value)]
    if mask is not None:
        inputs += [None, mask[:, 0, 0].to(torch.int32)]
    B, H, T, _ = query.shape
    output: Tensor = torch.onnx.ops.symbolic(
        f"com.microsoft::{FUSED_ATTENTION}",
        inputs,
        {"num_heads": H, "scale": scaling, "mask_filter_value": torch.finfo(query.dtype).min / 2},
        dtype=query.dtype,
        shape=(B, T, H * value.shape[-1]),
        version=1,
    )
    return output.reshape(B, T, H, value.shape[-1])


def _masked(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masked scores, and [.., T, 1, 1] for the output: 1 for queries that see something, else 0."""
    lowest = torch.finfo(scores.dtype).min
    if mask.dtype == torch.bool:
        added = torch.zeros((), dtype=scores.dtype).masked_fill(~mask, lowest)
    else:
        added = mask.to(scores.dtype)
    # A sum of two lowest numbers would be -inf, and a row of those NaN.
    sighted = added.amax(dim=-1, keepdim=True) > lowest / 2
    return scores + added, sighted.transpose(1, 2).to(scores.dtype)


def onnx_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Predicate = bidirectional_mask_function,
    attention_mask: Tensor | None = None,
    *,
    use_vmap: bool = False,
    device: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """Return the boolean mask [B, 1, T, S], or [B, 1, 1, S] where all see the same; None without a padding mask there.

    Positions are counted from `q_offset`; those of `cache_position` would be read from a tensor.
    """
    if mask_function is bidirectional_mask_function:
        padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
        return None if padding is None else padding[:, None, None, kv_offset : kv_offset + kv_length]
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        mask_function,
        attention_mask,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )


@contextmanager
def exportable_attention(model: nn.Module) -> Iterator[None]:
    """Let the model use this kernel in the block, in which alone its name is registered."""
    configs: dict[int, Any] = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
    before = {key: getattr(config, "_attn_implementation", None) for key, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS[NAME], ALL_MASK_ATTENTION_FUNCTIONS[NAME] = onnx_attention, onnx_mask
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[NAME], ALL_MASK_ATTENTION_FUNCTIONS[NAME]
        for key, config in configs.items():
            config._attn_implementation = before[key]
