"""What decoding needs of a model, and how its signature is read."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch


class GenerativeModel(Protocol):
    """A model that `generate` can decode with.

    Called with what `prepare_inputs_for_generation` returns, it gives an object with `logits`
    [batch, tokens, vocabulary], of which the last position is used (`_next_token_logits` may choose others). A model
    with a cache also gives it (`past_key_values`), finds it again among the keywords of the next
    `prepare_inputs_for_generation`, and says so by `_supports_generation_cache = True` or by a `_reorder_cache` of its
    own, which beam search needs for a cache that is neither a Cache nor tensors with the rows first.

    A model with `config.is_encoder_decoder=True` also has `get_encoder()`. The encoder is called once, with those of
    the caller's keywords that its `forward` names (none that begin with `decoder_`), and what it returns stands among
    the keywords of each `prepare_inputs_for_generation(decoder_input_ids, ...)` as `encoder_outputs`, a ModelOutput
    that holds the states [batch, tokens, width] first; a caller may give it instead of the source. There,
    `attention_mask` is the source's, and `decoder_attention_mask`, if the caller gave one, grows with the decoder's
    ids. Rows of beams and of several answers are repeated in all of these; with `_shares_source = True` the states and
    their mask are not, and the model lets the n-th row of them answer for the n-th stretch of the decoder's rows. A new
    model's cache is an EncoderDecoderCache, made in the first call: `past_key_values` is None then, `use_cache` True.

    A model whose calls can also say which token comes after the next one returns from `_draft_keywords` what such a
    call needs; it then gives `logits_ngram` [batch, streams, tokens, vocabulary]: see
    `modelwright.generation.speculative`.

    A model that takes any Cache of `modelwright.attention.caches` as `past_key_values`, the static ones too, says so by
    `_supports_cache_objects = True`.
    """

    config: Any
    _supports_generation_cache: bool
    _supports_cache_objects: bool
    _shares_source: bool
    _cache_names: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """The device that the model expects its inputs on."""
        ...

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return the keywords of one call, given all ids so far [batch, tokens] and the caller's keywords."""
        ...

    def _next_token_logits(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor: ...

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]: ...

    def _draft_keywords(self) -> dict[str, Any]: ...

    def _position_limit(self) -> int | None: ...

    def _keeps_a_cache(self) -> bool: ...

    def _new_static_cache(self, tokens: int) -> Any: ...

    def _can_repeat_cache(self) -> bool: ...

    def _reorder_cache(self, past_key_values: Any, beam_idx: torch.Tensor) -> Any: ...

    def __call__(self, **kwargs: Any) -> Any:
        """Run the model."""
        ...


def is_encoder_decoder(model: GenerativeModel) -> bool:
    """Tell whether the model's configuration says that it answers a source that an encoder reads."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def encoder_of(model: Any) -> Any:
    """Return the model's encoder; raises NotImplementedError if it has no `get_encoder`."""
    if not hasattr(model, "get_encoder"):
        raise NotImplementedError(
            f"generate: config.is_encoder_decoder is True, but {type(model).__name__} does not define get_encoder()."
        )
    return model.get_encoder()


def takes_any_keyword(model: Any, method: str | None = None) -> bool:
    """Tell whether the model's call (or the `method`) takes keywords that it does not name."""
    parameters = call_parameters(model) if method is None else inspect.signature(getattr(model, method)).parameters
    return any(each.kind is each.VAR_KEYWORD or each.name == "model_kwargs" for each in parameters.values())


def call_parameters(model: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of the model's `forward`, or of its `__call__` if it is no torch module."""
    return inspect.signature(model.forward if hasattr(model, "forward") else model.__call__).parameters


def accepted_keywords(model: Any) -> set[str]:
    """Return the keywords of `generate` that end up in the model.

    Those of `prepare_inputs_for_generation`, those of the call if it hands further keywords on, and those of the
    encoder if there is one.
    """
    names = _named(inspect.signature(model.prepare_inputs_for_generation).parameters)
    if takes_any_keyword(model, "prepare_inputs_for_generation"):
        names |= _named(call_parameters(model))
    if is_encoder_decoder(model):
        encoder = encoder_of(model)
        names |= _named(call_parameters(encoder))
        names |= {"decoder_input_ids", "encoder_outputs", getattr(encoder, "main_input_name", "input_ids")}
    return names - {"input_ids", "model_kwargs", "return_dict", "labels"}


def _named(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    return {name for name, each in parameters.items() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
