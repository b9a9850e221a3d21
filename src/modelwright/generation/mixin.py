"""GenerationMixin: `generate` for every model that fulfils the small protocol in `modelwright.generation.protocol`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from modelwright.attention.caches import StaticCache
from modelwright.core.errors import InputError
from modelwright.generation.assemble import AllowedTokens, Lengths, merged, processors_of, stopping_criteria_of
from modelwright.generation.beam_search import beam_search
from modelwright.generation.cache_rows import reorder_beams
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.decode import Decoding, decode
from modelwright.generation.encoder_decoder import decoder_start, encode_source
from modelwright.generation.logits_process import LogitsProcessorList
from modelwright.generation.outputs import GenerateOutput
from modelwright.generation.prepare import (
    check_attention_mask,
    pad_id_of,
    prompt_of_call,
    repeat_rows,
    resolve_lengths,
    settings_of_call,
)
from modelwright.generation.prepare_cache import prepare_cache
from modelwright.generation.protocol import GenerativeModel, accepted_keywords, is_encoder_decoder
from modelwright.generation.speculative import speculative_decode
from modelwright.generation.stopping_criteria import Decoder, StoppingCriteriaList
from modelwright.generation.transition_scores import transition_scores


class GenerationMixin:
    """Decoding for a model with `config`, `device`, `prepare_inputs_for_generation` and a call that gives `logits`."""

    # Whether the model keeps what it computed for the prefix, so that `use_cache=True` can be asked for.
    _supports_generation_cache: ClassVar[bool] = False
    # Whether any cache of modelwright.attention.caches can be `past_key_values` of the first call, the static ones too.
    _supports_cache_objects: ClassVar[bool] = False
    # Whether `encoder_outputs` and their mask may have one row for several rows of the decoder, those of one source
    # together, so that beams and sampled answers share them and the keys made of them.
    _shares_source: ClassVar[bool] = False
    # Where a model's output may hold its cache; the same name is its keyword in the next step.
    _cache_names: ClassVar[tuple[str, ...]] = ("past_key_values", "past_buckets_states")

    @classmethod
    def can_generate(cls) -> bool:
        """Tell whether the class defines `prepare_inputs_for_generation`, which `generate` needs."""
        return cls.prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return the keywords of one call of the model, given all ids so far, [batch, tokens].

        kwargs: the caller's keywords, `attention_mask` [batch, tokens] among them if there is padding, and with a cache
        `use_cache` and the cache by its name. A class that can decode defines this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot generate: it does not define prepare_inputs_for_generation. Use a class "
            "with a language-model head."
        )

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        streamer: Any = None,
        *,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        generator: torch.Generator | None = None,
        tokenizer: Decoder | None = None,
        **kwargs: Any,
    ) -> Tensor | GenerateOutput:
        """Continue each prompt of `inputs` [batch, tokens], and return prompts and new ids [batch, tokens].

        An encoder-decoder reads `inputs` with its encoder and returns the ids of its decoder, which begin with
        `decoder_start_token_id` or the keyword `decoder_input_ids`.
        Rows that finish early are filled with the pad id. Runs without gradients, in the mode (train or eval) that the
        model is in. Prompts of different lengths are padded on the left and come with their `attention_mask`.
        logits_processor, stopping_criteria: in addition to those that the settings ask for; one of the same class takes
        its place. streamer: gets the prompt and each token; one row only. prefix_allowed_tokens_fn: (batch item, its
        ids so far [tokens]) -> the ids that may follow. generator: what sampling draws from, else torch's own stream.
        tokenizer: for `stop_strings`. kwargs: fields of GenerationConfig and keywords of the model.
        Raises UnknownArgumentError, InputError, ConfigError, and NotImplementedError for what is not built.
        """
        with _reporting_to(streamer), torch.no_grad():
            if not self.can_generate():
                GenerationMixin.prepare_inputs_for_generation(self, torch.empty(0))
            model = cast(GenerativeModel, self)
            given = set(kwargs)
            settings, model_kwargs = settings_of_call(model, generation_config, dict(kwargs))
            if is_encoder_decoder(model):
                source = encode_source(model, inputs, settings, model_kwargs)
                input_ids = decoder_start(model, settings, model_kwargs)
            else:
                vocabulary = getattr(model.config, "vocab_size", None)
                input_ids = prompt_of_call(model, inputs, settings, model_kwargs, vocabulary=vocabulary)
                check_attention_mask(input_ids, settings, model_kwargs)
                source = input_ids
            beams = settings.num_beams or 1
            if beams == 1:
                input_ids, model_kwargs = repeat_rows(
                    model, input_ids, model_kwargs, settings.num_return_sequences or 1
                )
            _check_streamer(streamer, input_ids.shape[0], beams)
            _check_generator(generator, input_ids)
            if "use_cache" in accepted_keywords(model):
                model_kwargs["use_cache"] = model._keeps_a_cache() and settings.use_cache is not False
            prompt = input_ids.shape[1]
            lengths = Lengths(prompt, *resolve_lengths(model, settings, prompt_length=prompt, given=given))
            prepare_cache(model, settings, model_kwargs, longest=lengths.longest)
            criteria = stopping_criteria_of(settings, lengths.longest, tokenizer)
            early = len(criteria) > 1 or bool(stopping_criteria)
            run = Decoding(
                settings=settings,
                processors=processors_of(
                    settings,
                    lengths,
                    given=logits_processor,
                    source=source,
                    prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
                    device=input_ids.device,
                ),
                criteria=merged(criteria, stopping_criteria),
                pad_id=pad_id_of(settings, input_ids.shape[0] * beams, rows_may_finish_early=early),
                longest=lengths.longest,
                streamer=streamer,
                generator=generator,
            )
            loop = beam_search if beams > 1 else speculative_decode if settings.speculative_ngram else decode
            return loop(model, input_ids, model_kwargs, run)

    def _next_token_logits(self, outputs: Any, inputs: dict[str, Any]) -> Tensor:  # noqa: ARG002
        """Return the logits of each row's next token, [batch, vocabulary]: by default those at the last position.

        A model whose `prepare_inputs_for_generation` puts a row's text elsewhere than at its end, as `inputs` (the
        keywords of this call) show, defines this method.
        """
        return cast(Tensor, outputs.logits[:, -1, :])

    def _update_model_kwargs_for_generation(
        self,
        outputs: Any,
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool = False,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        """Return the keywords of the next step: masks grown by the new tokens, and the cache that `outputs` hold.

        What an encoder reads does not grow.
        """
        updated = dict(model_kwargs)
        for name, grown in _GROWING_OF_A_DECODER if is_encoder_decoder else _GROWING:
            if isinstance(value := updated.get(name), Tensor):
                updated[name] = torch.cat([value, grown(value, num_new_tokens)], dim=-1)
        if updated.get("use_cache"):
            for name in self._cache_names:
                if getattr(outputs, name, None) is not None:
                    updated[name] = getattr(outputs, name)
        return updated

    def _reorder_cache(self, past_key_values: Any, beam_idx: Tensor) -> Any:
        """Return the cache with its rows in the order of `beam_idx` [rows], which only move within a batch item.

        Made for caches that are tensors with the rows first, in tuples or lists of any depth, or an object with
        `reorder_cache(beam_idx)`; keys and values of an encoder's states stay, as they are an item's. A model with
        another cache defines this method.
        """
        return reorder_beams(past_key_values, beam_idx)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """Return the score of each new token, [rows, new tokens], out of the parts of one output of `generate`.

        With `beam_indices` their sum, divided by (number of tokens ** length_penalty), is `sequences_scores`.
        normalize_logits: make log probabilities of the scores first. Raises InputError for parts of different runs.
        """
        return transition_scores(sequences, scores, beam_indices, normalize_logits=normalize_logits)

    def _keeps_a_cache(self) -> bool:
        """Tell whether the model can go on from a cache; model files of 4.x say so by defining `_reorder_cache`."""
        return self._supports_generation_cache or not self._can_repeat_cache()

    def _new_static_cache(self, tokens: int) -> Any:
        """Return an empty cache of fixed size for the keys that the (decoder's) layers make of `tokens` tokens."""
        return StaticCache(cast(GenerativeModel, self).config, max_cache_len=tokens)

    def _can_repeat_cache(self) -> bool:
        # A _reorder_cache of a model's own speaks of a cache that may need a way of its own to be repeated as well.
        return type(self)._reorder_cache is GenerationMixin._reorder_cache

    def _draft_keywords(self) -> dict[str, Any]:
        """Return the keywords of a call that also predicts the token after the next, for `speculative_ngram`.

        A model that can do so defines this method; raises NotImplementedError, or InputError for a config that cannot.
        """
        raise NotImplementedError(
            f"generate: speculative_ngram=True, but {type(self).__name__} has no stream that predicts the token after "
            "the next one; ProphetNet has. Leave speculative_ngram out."
        )

    def _position_limit(self) -> int | None:
        """Return the most tokens that one call can look at, None if there is no limit.

        By default `config.max_position_embeddings`; a model with relative positions returns None.
        """
        limit = getattr(cast(GenerativeModel, self).config, "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None


def positions_of_mask(attention_mask: Tensor) -> Tensor:
    """Return the position of each token [batch, tokens], counted from each row's first one; padding gets 0.

    With these as `position_ids` a row that is padded on the left is the same text as without the padding.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


@contextmanager
def _reporting_to(streamer: Any) -> Iterator[None]:
    # A reader of a TextIteratorStreamer waits in another thread; an error must not leave it waiting.
    try:
        yield
    except BaseException as error:
        if hasattr(streamer, "fail"):
            streamer.fail(error)
        raise


def _check_streamer(streamer: Any, rows: int, beams: int) -> None:
    if streamer is not None and beams > 1:
        raise InputError("generate: beam search knows its tokens at the end only: use num_beams=1, or no streamer.")
    if streamer is not None and rows > 1:
        raise InputError(f"generate: a streamer shows one row, got {rows}; pass one prompt, or no streamer.")


def _check_generator(generator: torch.Generator | None, input_ids: Tensor) -> None:
    if generator is not None and generator.device.type != input_ids.device.type:
        raise InputError(
            f"generate: the generator is on {generator.device} and the prompt on {input_ids.device}: make it with "
            f"torch.Generator(device={input_ids.device.type!r})."
        )


def _ones(mask: Tensor, count: int) -> Tensor:
    return mask.new_ones((mask.shape[0], count))


def _repeat_last(types: Tensor, count: int) -> Tensor:
    return types[:, -1:].expand(-1, count)


_GROWING = (("attention_mask", _ones), ("token_type_ids", _repeat_last))
_GROWING_OF_A_DECODER = (("decoder_attention_mask", _ones),)
