"""The masks that models ask for by pattern, for the kernel that their config names.

Legend: B batch, T query tokens, S key tokens (those of the cache and the new ones).
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.attention.interface import implementation_of
from modelwright.attention.mask_interface import mask_function_for
from modelwright.attention.mask_picture import AttentionMask
from modelwright.attention.patterns import CHUNKED, FULL, SLIDING, layer_types_of, text_config_of
from modelwright.attention.predicates import (
    Predicate,
    and_masks,
    bidirectional_mask_function,
    bidirectional_window_overlay,
    block_mask_function,
    causal_mask_function,
    chunked_overlay,
    find_packed_sequence_indices,
    or_masks,
    packed_sequence_mask_function,
    sliding_window_overlay,
)
from modelwright.core.errors import ConfigError, InputError, reject_unknown
from modelwright.nn.tracing import is_jit_traced, is_tracing

_OPTIONS = (
    "input_embeds",
    "cache_position",
    "past_key_values",
    "position_ids",
    "or_mask_function",
    "and_mask_function",
    "block_sequence_ids",
    "layer_idx",
    "allow_is_causal_skip",
)
_BIDIRECTIONAL_OPTIONS = (
    "input_embeds",
    "past_key_values",
    "or_mask_function",
    "and_mask_function",
    "allow_is_bidirectional_skip",
)


def create_causal_mask(
    config: Any, inputs_embeds: Tensor | None = None, attention_mask: Any = None, **options: Any
) -> Any:
    """Return the mask for a layer whose tokens see themselves and what came before, or None where none is needed.

    `inputs_embeds` [B, T, size] gives sizes, dtype and device. `attention_mask` is a padding mask [B, S], or a mask
    [B or 1, heads or 1, T, S] (or a BlockMask), which is returned as it is. Keywords, in the spellings of transformers
    4.57 and 5.x: `past_key_values` (a cache), `position_ids` [B, T], from which packed sequences are found if there is
    no mask and the cache is empty, `or_mask_function` and `and_mask_function` (batch, head, query, key) -> bool,
    `block_sequence_ids` [B, T] (tokens of one block, numbered from 0, see each other), `layer_idx`,
    `allow_is_causal_skip=True`, `cache_position` [T], and `input_embeds` for `inputs_embeds`.
    Raises InputError for shapes that do not fit, UnknownArgumentError for other keywords.
    """
    return _create("create_causal_mask", config, inputs_embeds, attention_mask, options, causal_mask_function)


def create_sliding_window_causal_mask(
    config: Any, inputs_embeds: Tensor | None = None, attention_mask: Any = None, **options: Any
) -> Any:
    """As `create_causal_mask`, but a token sees the last `config.sliding_window` tokens only, itself included.

    Raises ConfigError if the config has no `sliding_window`.
    """
    window = _local_size(config, "sliding_window", "create_sliding_window_causal_mask")
    predicate = and_masks(sliding_window_overlay(window), causal_mask_function)
    return _create(
        "create_sliding_window_causal_mask", config, inputs_embeds, attention_mask, options, predicate, window
    )


def create_chunked_causal_mask(
    config: Any, inputs_embeds: Tensor | None = None, attention_mask: Any = None, **options: Any
) -> Any:
    """As `create_causal_mask`, but a token sees its own chunk of `config.attention_chunk_size` tokens only.

    The first chunk of a row begins after its left padding. Raises ConfigError if the config has no chunk size.
    """
    where = "create_chunked_causal_mask"
    chunk = _local_size(config, "attention_chunk_size", where)
    padding = None
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
        padding = (attention_mask.cumsum(dim=-1) == 0).sum(dim=-1)
    predicate = and_masks(chunked_overlay(chunk, padding), causal_mask_function)
    return _create(where, config, inputs_embeds, attention_mask, options, predicate, chunk, is_chunked=True)


def create_bidirectional_mask(
    config: Any,
    inputs_embeds: Tensor | None = None,
    attention_mask: Any = None,
    *,
    encoder_hidden_states: Tensor | None = None,
    **options: Any,
) -> Any:
    """Return the mask for a layer whose tokens see all that are not padding, or None where none is needed.

    `encoder_hidden_states` [B, S, size] gives the keys of a cross attention; `attention_mask` then is theirs. Other
    keywords, as in `create_causal_mask`: `past_key_values`, `or_mask_function`, `and_mask_function`, `input_embeds`,
    and `allow_is_bidirectional_skip=True`.
    """
    return _bidirectional(
        "create_bidirectional_mask", config, inputs_embeds, attention_mask, encoder_hidden_states, options
    )


def create_bidirectional_sliding_window_mask(
    config: Any, inputs_embeds: Tensor | None = None, attention_mask: Any = None, **options: Any
) -> Any:
    """As `create_bidirectional_mask`, for keys at most `config.sliding_window` tokens away on either side."""
    where = "create_bidirectional_sliding_window_mask"
    window = _local_size(config, "sliding_window", where)
    return _bidirectional(where, config, inputs_embeds, attention_mask, None, options, window)


def create_recurrent_attention_mask(
    config: Any,  # noqa: ARG001 - one contract for all builders
    inputs_embeds: Tensor | None = None,
    attention_mask: Any = None,
    **options: Any,
) -> Tensor | None:
    """Return the padding mask [B, T] of the new tokens, for a layer with a recurrent state (linear attention, Mamba).

    Such a layer multiplies its input by the mask, so that padding does not reach the state. None where there is nothing
    to hide: without a padding mask [B, S], for a mask of another kind, for one new token, which never is padding, and
    if no new token is padding. Keywords as in `create_causal_mask`; of these only `input_embeds` changes the result.
    """
    where = "create_recurrent_attention_mask"
    reject_unknown(where, options, _OPTIONS)
    embeds = _embeds(where, inputs_embeds, options)
    batch, new = embeds.shape[:2]
    if is_ready(attention_mask) or attention_mask is None or new == 1:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[0] != batch or attention_mask.shape[1] < new:
        raise InputError(
            f"{where}: expected an attention_mask [batch, tokens] = [{batch}, {new} or more], got shape "
            f"{list(attention_mask.shape)}"
        )
    mask: Tensor = attention_mask[:, -new:]
    return None if not is_tracing() and bool(mask.bool().all()) else mask.contiguous()


def create_masks_for_generate(
    config: Any, inputs_embeds: Tensor | None = None, attention_mask: Any = None, **options: Any
) -> Any:
    """Return the mask of the model's only pattern, or a dict from pattern (of `config.layer_types`) to mask."""
    text = text_config_of(config)
    kinds = dict.fromkeys(layer_types_of(text))
    unknown = [kind for kind in kinds if kind not in _BUILDERS]
    if unknown:
        raise ConfigError(f"layer_types: expected names out of {', '.join(sorted(_BUILDERS))}, got {unknown[0]!r}")
    masks = {kind: _BUILDERS[kind](text, inputs_embeds, attention_mask, **options) for kind in kinds}
    return masks if getattr(text, "layer_types", None) is not None else next(iter(masks.values()))


PATTERNS = {
    FULL: create_causal_mask,
    SLIDING: create_sliding_window_causal_mask,
    CHUNKED: create_chunked_causal_mask,
}
# Names of layers that do not attend, which third-party models have.
_BUILDERS = {
    **PATTERNS,
    "linear_attention": create_recurrent_attention_mask,
    "conv": create_recurrent_attention_mask,
}


def _create(
    where: str,
    config: Any,
    inputs_embeds: Tensor | None,
    attention_mask: Any,
    options: dict[str, Any],
    predicate: Predicate,
    local_size: int | None = None,
    *,
    is_chunked: bool = False,
) -> Any:
    """Collect sizes and predicates, and let the kernel's mask function make the mask."""
    reject_unknown(where, options, _OPTIONS)
    embeds = _embeds(where, inputs_embeds, options)
    implementation = implementation_of(config)
    if is_ready(attention_mask):
        return attention_mask
    past = options.get("past_key_values")
    layer_idx = options.get("layer_idx")
    if layer_idx is None:
        layer_idx = _layer_of_kind(past, local_size is not None)
    q_length = embeds.shape[1]
    q_offset, kv_length, kv_offset = _sizes(q_length, past, options.get("cache_position"), layer_idx)
    _check_padding(where, attention_mask, embeds.shape[0], q_offset + q_length, kv_offset + kv_length, past)

    skip = options.get("allow_is_causal_skip", True) and not (past is not None and past.is_compileable)
    is_plain = True
    position_ids = options.get("position_ids")
    if position_ids is not None and attention_mask is None and q_offset == 0 and kv_length == q_length:
        packed = find_packed_sequence_indices(position_ids.expand(embeds.shape[0], -1))
        if packed is not None:
            predicate, skip = and_masks(predicate, packed_sequence_mask_function(packed)), False
            is_plain = False
    if options.get("block_sequence_ids") is not None:
        predicate, skip = or_masks(predicate, block_mask_function(options["block_sequence_ids"])), False
        is_plain = False
    predicate, custom = _with_functions(predicate, options)
    mask = mask_function_for(implementation)(
        batch_size=embeds.shape[0],
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=predicate,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=skip and not custom,
        allow_is_bidirectional_skip=False,
        use_vmap=custom,
        device=embeds.device,
        cache_position=torch.arange(q_offset, q_offset + q_length, device=embeds.device),
        dtype=embeds.dtype,
        config=config,
        is_plain=is_plain and not custom,
        is_chunked=is_chunked,
    )
    return with_picture(mask)


def _bidirectional(
    where: str,
    config: Any,
    inputs_embeds: Tensor | None,
    attention_mask: Any,
    encoder_hidden_states: Tensor | None,
    options: dict[str, Any],
    window: int | None = None,
) -> Any:
    reject_unknown(where, options, _BIDIRECTIONAL_OPTIONS)
    embeds = _embeds(where, inputs_embeds, options)
    implementation = implementation_of(config)
    if is_ready(attention_mask):
        return attention_mask
    q_length = embeds.shape[1]
    past = options.get("past_key_values")
    if encoder_hidden_states is None:
        q_offset, kv_length, kv_offset = _sizes(q_length, past, None, _layer_of_kind(past, window is not None))
        tokens = q_offset + q_length
    else:
        # The keys are the encoder's, whatever the cache holds of the decoder.
        q_offset, kv_length, kv_offset = 0, encoder_hidden_states.shape[1], 0
        past, tokens = None, kv_length
    _check_padding(where, attention_mask, embeds.shape[0], tokens, kv_offset + kv_length, past)
    predicate: Predicate = bidirectional_mask_function
    if window is not None:
        predicate = bidirectional_window_overlay(window)
    predicate, custom = _with_functions(predicate, options)
    if past is not None and kv_offset + kv_length > tokens:
        # The end of a static cache, where nothing is written yet.
        predicate, custom = and_masks(predicate, lambda b, h, q, kv: kv < tokens), True  # noqa: ARG005
    mask = mask_function_for(implementation)(
        batch_size=embeds.shape[0],
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=predicate,
        attention_mask=attention_mask,
        local_size=window,
        allow_is_causal_skip=False,
        allow_is_bidirectional_skip=options.get("allow_is_bidirectional_skip", True) and not custom,
        use_vmap=custom,
        device=embeds.device,
        cache_position=torch.arange(q_offset, q_offset + q_length, device=embeds.device),
        dtype=embeds.dtype,
        config=config,
        is_plain=not custom,
    )
    return with_picture(mask)


def _with_functions(predicate: Predicate, options: dict[str, Any]) -> tuple[Predicate, bool]:
    """Return `predicate` with the caller's mask functions in it, and whether there are any."""
    either, both = options.get("or_mask_function"), options.get("and_mask_function")
    if either is not None:
        predicate = or_masks(predicate, either)
    if both is not None:
        predicate = and_masks(predicate, both)
    return predicate, either is not None or both is not None


def is_ready(attention_mask: Any) -> bool:
    """Tell whether a mask is beyond the padding mask [B, S] that builders take: a 4D one, or a BlockMask."""
    if attention_mask is None:
        return False
    return not isinstance(attention_mask, Tensor) or attention_mask.dim() == 4


def with_picture(mask: Any) -> Any:
    """Return a mask matrix as one that prints itself as a picture; others, and those of a traced call, as they are."""
    if isinstance(mask, Tensor) and mask.dim() == 4 and not is_tracing():
        return mask.as_subclass(AttentionMask)
    return mask


def _embeds(where: str, inputs_embeds: Tensor | None, options: dict[str, Any]) -> Tensor:
    old = options.get("input_embeds")
    if (inputs_embeds is None) == (old is None):
        raise InputError(f"{where}: expected inputs_embeds [batch, tokens, size], once, got {inputs_embeds!r}, {old!r}")
    embeds = old if inputs_embeds is None else inputs_embeds
    assert embeds is not None
    return embeds


def _sizes(q_length: int, past: Any, cache_position: Tensor | None, layer_idx: int) -> tuple[int, int, int]:
    """Return the first query's position, the number of keys, and the first key's position."""
    if past is not None:
        return past.get_seq_length(layer_idx), *past.get_mask_sizes(q_length, layer_idx)
    q_offset = 0 if cache_position is None else int(cache_position[0])
    return q_offset, q_offset + q_length, 0


def _layer_of_kind(past: Any, sliding: bool) -> int:
    """Return the first cache layer that slides or does not, as asked; 0 if the cache has only the other kind."""
    flags = list(getattr(past, "is_sliding", ()))
    return flags.index(sliding) if sliding in flags else 0


def _check_padding(where: str, mask: Any, batch: int, tokens: int, most: int, past: Any) -> None:
    if mask is None or is_jit_traced():
        return
    most = max(tokens, most)
    if mask.dim() != 2 or mask.shape[0] != batch or not tokens <= mask.shape[1] <= most:
        held = 0 if past is None else past.get_seq_length()
        raise InputError(
            f"{where}: expected an attention_mask [batch, tokens] = [{batch}, {tokens}] ({held} tokens in the cache), "
            f"or a ready one [batch, heads or 1, query tokens, key tokens], got shape {list(mask.shape)}"
        )


def _local_size(config: Any, name: str, where: str) -> int:
    size = getattr(config, name, None)
    if size is None:
        raise ConfigError(f"{where}: expected the config to have {name} (a number of tokens), got None")
    return int(size)
