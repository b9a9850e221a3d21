"""What a config says about the attention pattern of its layers: full, sliding or chunked."""

from typing import Any

from modelwright.core.errors import ConfigError

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def text_config_of(config: Any) -> Any:
    """Return the part of `config` that describes the text decoder: itself, or its text sub-config."""
    find = getattr(config, "get_text_config", None)
    if find is not None:
        return find(decoder=True)
    return getattr(config, "text_config", None) or config


def layer_types_of(config: Any) -> list[str]:
    """Return the pattern of each layer; a config without `layer_types` has one pattern for all.

    Raises ConfigError if the config does not say how many layers there are.
    """
    named = getattr(config, "layer_types", None)
    if named is not None:
        return list(named)
    # Of a model with an encoder, the decoder's layers are those that have a cache.
    counts = (getattr(config, name, None) for name in ("num_decoder_layers", "decoder_layers", "num_hidden_layers"))
    count = next((count for count in counts if count is not None), None)
    if count is None:
        raise ConfigError(f"{type(config).__name__} names neither `layer_types` nor `num_hidden_layers`")
    if getattr(config, "sliding_window", None) is not None:
        return [SLIDING] * int(count)
    if getattr(config, "attention_chunk_size", None) is not None:
        return [CHUNKED] * int(count)
    return [FULL] * int(count)


def window_of(config: Any, layer_type: str) -> int | None:
    """Return how many tokens a cache layer of this pattern must hold, None for all of them."""
    if layer_type == SLIDING:
        return None if config.sliding_window is None else int(config.sliding_window)
    if layer_type == CHUNKED:
        return int(config.attention_chunk_size)
    return None
