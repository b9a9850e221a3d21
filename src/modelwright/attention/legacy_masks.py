"""The mask helpers of 4.x model files: additive 4D masks out of a padding mask [B, S].

Legend: B batch, T query tokens, S key tokens, S - T of them from a cache.
"""

import torch
from torch import Tensor

from modelwright.attention.predicates import (
    Predicate,
    causal_mask_function,
    evaluate,
    sliding_window_causal_mask_function,
)
from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_tracing

Shape = torch.Size | tuple[int, ...] | list[int]


class AttentionMaskConverter:
    """Turns a padding mask [B, S] into an additive one [B, 1, T, S]: 0 for what is seen, the lowest number elsewhere.

    With `sliding_window`, a causal query sees that many tokens, itself included, as it does everywhere else here
    (transformers 4.57 lets it see two more in these helpers). Raises InputError if the window is not positive.
    """

    def __init__(self, is_causal: bool, sliding_window: int | None = None) -> None:
        if sliding_window is not None and sliding_window <= 0:
            raise InputError(
                f"AttentionMaskConverter: expected sliding_window to be positive or None, got {sliding_window}"
            )
        self.is_causal = is_causal
        self.sliding_window = sliding_window

    def to_causal_4d(
        self,
        batch_size: int,
        query_length: int,
        key_value_length: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> Tensor | None:
        """Return the causal mask [B, 1, T, S], or None where one query token sees all.

        Raises InputError if the converter is not causal.
        """
        if not self.is_causal:
            raise InputError("AttentionMaskConverter.to_causal_4d: this converter was made with is_causal=False")
        if query_length == 1 and self.sliding_window is None:
            return None
        past = key_value_length - query_length
        return self._make_causal_mask((batch_size, query_length), dtype, device, past, self.sliding_window)

    def to_4d(
        self,
        attention_mask_2d: Tensor,
        query_length: int,
        dtype: torch.dtype,
        key_value_length: int | None = None,
    ) -> Tensor:
        """Return the mask [B, 1, T, S] for a padding mask [B, S], causal if the converter is.

        Raises InputError if a causal converter is not told `key_value_length`.
        """
        expanded = self._expand_mask(attention_mask_2d, dtype, tgt_len=query_length)
        if not self.is_causal:
            if self.sliding_window is not None:
                raise NotImplementedError("AttentionMaskConverter: a sliding window needs is_causal=True")
            return expanded
        if query_length == 1 and self.sliding_window is None:
            return expanded
        if key_value_length is None:
            raise InputError("AttentionMaskConverter.to_4d: a causal converter needs key_value_length (tokens)")
        causal = self._make_causal_mask(
            (attention_mask_2d.shape[0], query_length),
            dtype,
            attention_mask_2d.device,
            key_value_length - query_length,
            self.sliding_window,
        )
        if expanded.shape[-1] != key_value_length:
            raise InputError(
                f"AttentionMaskConverter.to_4d: expected a padding mask of {key_value_length} tokens, got "
                f"{expanded.shape[-1]}"
            )
        return torch.minimum(causal, expanded)

    @staticmethod
    def _make_causal_mask(
        input_ids_shape: Shape,
        dtype: torch.dtype,
        device: torch.device | str,
        past_key_values_length: int = 0,
        sliding_window: int | None = None,
    ) -> Tensor:
        B, T = input_ids_shape
        S = T + past_key_values_length
        predicate: Predicate = causal_mask_function
        if sliding_window is not None:
            predicate = sliding_window_causal_mask_function(sliding_window)
        positions = torch.arange(S, device=device)
        return _additive(evaluate(predicate, B, positions[past_key_values_length:], positions), dtype)

    @staticmethod
    def _expand_mask(mask: Tensor, dtype: torch.dtype, tgt_len: int | None = None) -> Tensor:
        B, S = mask.shape
        return _additive(mask[:, None, None, :].bool().expand(B, 1, S if tgt_len is None else tgt_len, S), dtype)

    @staticmethod
    def _unmask_unattended(expanded_mask: Tensor, min_dtype: float) -> Tensor:
        """Let queries that see nothing see everything, so that a fused kernel has no row without a number."""
        if expanded_mask.dtype == torch.bool:
            raise InputError("AttentionMaskConverter._unmask_unattended: expected an additive mask, got booleans")
        blind = (expanded_mask == min_dtype).all(dim=-1, keepdim=True)
        return expanded_mask.masked_fill(blind, 0.0)

    @staticmethod
    def _ignore_causal_mask_sdpa(
        attention_mask: Tensor | None,
        inputs_embeds: Tensor,
        past_key_values_length: int,
        sliding_window: int | None = None,
        is_training: bool = False,  # noqa: ARG004 - 4.x callers pass it; the answer is the same
    ) -> bool:
        """Tell whether the kernel's own causal flag says all that the mask would."""
        T = inputs_embeds.shape[1]
        S = T + past_key_values_length
        if is_tracing() or (sliding_window is not None and sliding_window <= S) or (T != 1 and T != S):
            return False
        if attention_mask is None:
            return True
        return attention_mask.dim() == 2 and bool(attention_mask.bool().all())


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(visible, torch.zeros((), dtype=dtype, device=visible.device), torch.finfo(dtype).min)


def _prepare_4d_causal_attention_mask(
    attention_mask: Tensor | None,
    input_shape: Shape,
    inputs_embeds: Tensor,
    past_key_values_length: int,
    sliding_window: int | None = None,
) -> Tensor | None:
    """Return the causal additive mask [B, 1, T, S] for a padding mask [B, S], one of 1 and 0 [B, 1, T, S], or None."""
    B, T = input_shape
    S = T + past_key_values_length
    converter = AttentionMaskConverter(is_causal=True, sliding_window=sliding_window)
    if attention_mask is None:
        return converter.to_causal_4d(B, T, S, inputs_embeds.dtype, inputs_embeds.device)
    if attention_mask.dim() == 4:
        return _inverted(attention_mask, (B, 1, T, S), inputs_embeds.dtype)
    return converter.to_4d(attention_mask, T, inputs_embeds.dtype, key_value_length=S)


def _prepare_4d_causal_attention_mask_for_sdpa(
    attention_mask: Tensor | None,
    input_shape: Shape,
    inputs_embeds: Tensor,
    past_key_values_length: int,
    sliding_window: int | None = None,
) -> Tensor | None:
    """As `_prepare_4d_causal_attention_mask`, or None where sdpa's `is_causal` says the same; no row sees nothing."""
    skips = AttentionMaskConverter._ignore_causal_mask_sdpa
    if skips(attention_mask, inputs_embeds, past_key_values_length, sliding_window):
        return None
    mask = _prepare_4d_causal_attention_mask(
        attention_mask, input_shape, inputs_embeds, past_key_values_length, sliding_window
    )
    if mask is None or attention_mask is None:
        return mask
    return AttentionMaskConverter._unmask_unattended(mask, torch.finfo(mask.dtype).min)


def _prepare_4d_attention_mask(mask: Tensor, dtype: torch.dtype, tgt_len: int | None = None) -> Tensor:
    """Return the additive mask [B, 1, T, S] for a padding mask [B, S]; T is `tgt_len` or S."""
    return AttentionMaskConverter._expand_mask(mask, dtype, tgt_len)


def _prepare_4d_attention_mask_for_sdpa(mask: Tensor, dtype: torch.dtype, tgt_len: int | None = None) -> Tensor | None:
    """As `_prepare_4d_attention_mask`, or None where nothing is padded."""
    if not is_tracing() and bool(mask.bool().all()):
        return None
    return AttentionMaskConverter._expand_mask(mask, dtype, tgt_len)


def _create_4d_causal_attention_mask(
    input_shape: Shape,
    dtype: torch.dtype,
    device: torch.device | str,
    past_key_values_length: int = 0,
    sliding_window: int | None = None,
) -> Tensor | None:
    """Return the causal additive mask [B, 1, T, S] without padding, or None where one query token sees all."""
    converter = AttentionMaskConverter(is_causal=True, sliding_window=sliding_window)
    return converter.to_causal_4d(
        input_shape[0], input_shape[-1], past_key_values_length + input_shape[-1], dtype, device
    )


def _inverted(mask: Tensor, wanted: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if tuple(mask.shape) != wanted:
        raise InputError(f"Incorrect 4D attention_mask shape: {tuple(mask.shape)}; expected: {wanted}.")
    return _additive(mask.bool(), dtype)
