"""The cache that a setting asks for, made before the first call of the model."""

from typing import Any

from modelwright.attention.caches import DynamicCache, EncoderDecoderCache
from modelwright.core.errors import InputError
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.protocol import GenerativeModel, is_encoder_decoder

# What `cache_implementation` may be: with None and "dynamic" the model makes its own in the first call.
KINDS = (None, "dynamic", "dynamic_full", "static")


def prepare_cache(
    model: GenerativeModel, settings: GenerationConfig, model_kwargs: dict[str, Any], *, longest: int
) -> None:
    """Put an empty cache of the kind `cache_implementation` into `model_kwargs`, if the first call is to find one.

    "static": of fixed size, for `longest` tokens less the last, which is never fed. "dynamic_full": grows, and keeps
    all tokens, also in layers that look at a window only. Raises InputError where the call has a cache or wants none,
    and NotImplementedError for a kind, or a model, that is not built for it.
    """
    kind = settings.cache_implementation
    if kind not in KINDS:
        raise NotImplementedError(
            f"generate: cache_implementation={kind!r} is not built; use {', '.join(repr(each) for each in KINDS[1:])}."
        )
    if kind in (None, "dynamic"):
        return
    if model_kwargs.get("past_key_values") is not None:
        raise InputError(f"generate: cache_implementation={kind!r}, but past_key_values were given; leave one out.")
    if not model_kwargs.get("use_cache"):
        raise InputError(f"generate: cache_implementation={kind!r}, but there is no cache: leave use_cache out.")
    if not model._supports_cache_objects:
        raise NotImplementedError(
            f"generate: cache_implementation={kind!r}, but {type(model).__name__} makes its own cache; leave it out."
        )

    def new(tokens: int) -> Any:
        return DynamicCache() if kind == "dynamic_full" else model._new_static_cache(max(1, tokens))

    cache = new(longest - 1)
    if is_encoder_decoder(model):
        cache = EncoderDecoderCache(cache, new(model_kwargs["encoder_outputs"][0].shape[1]))
    model_kwargs["past_key_values"] = cache
