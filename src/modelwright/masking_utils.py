"""The import path transformers.masking_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.attention.mask_interface import (
        ALL_MASK_ATTENTION_FUNCTIONS,
        AttentionMaskInterface,
        add_offsets_to_mask_function,
        eager_mask,
        flash_attention_mask,
        flex_attention_mask,
        prepare_padding_mask,
        sdpa_mask,
    )
    from modelwright.attention.mask_picture import AttentionMask
    from modelwright.attention.masks import (
        create_bidirectional_mask,
        create_bidirectional_sliding_window_mask,
        create_causal_mask,
        create_chunked_causal_mask,
        create_masks_for_generate,
        create_recurrent_attention_mask,
        create_sliding_window_causal_mask,
    )
    from modelwright.attention.predicates import (
        and_masks,
        bidirectional_mask_function,
        causal_mask_function,
        chunked_causal_mask_function,
        chunked_overlay,
        find_packed_sequence_indices,
        or_masks,
        packed_sequence_mask_function,
        padding_mask_function,
        sliding_window_causal_mask_function,
        sliding_window_overlay,
    )

__all__ = [
    "ALL_MASK_ATTENTION_FUNCTIONS",
    "AttentionMask",
    "AttentionMaskInterface",
    "add_offsets_to_mask_function",
    "and_masks",
    "bidirectional_mask_function",
    "causal_mask_function",
    "chunked_causal_mask_function",
    "chunked_overlay",
    "create_bidirectional_mask",
    "create_bidirectional_sliding_window_mask",
    "create_causal_mask",
    "create_chunked_causal_mask",
    "create_masks_for_generate",
    "create_recurrent_attention_mask",
    "create_sliding_window_causal_mask",
    "eager_mask",
    "find_packed_sequence_indices",
    "flash_attention_mask",
    "flex_attention_mask",
    "or_masks",
    "packed_sequence_mask_function",
    "padding_mask_function",
    "prepare_padding_mask",
    "sdpa_mask",
    "sliding_window_causal_mask_function",
    "sliding_window_overlay",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
