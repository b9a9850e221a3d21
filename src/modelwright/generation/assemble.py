"""From settings to the lists that the decoding loop applies: processors and stopping criteria."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.generation import (
    logits_bias,
    logits_ends,
    logits_process,
    logits_source,
    logits_warpers,
    stopping_criteria,
)
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.logits_process import LogitsProcessor, LogitsProcessorList
from modelwright.generation.prepare import as_list
from modelwright.generation.stopping_criteria import Decoder, StoppingCriteriaList

logger = get_logger(__name__)

# Of a batch item and its ids so far [tokens], the ids that may follow.
AllowedTokens = Callable[[int, Tensor], Sequence[int]]


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row, prompt included: of the prompt, and the fewest and the most that may become of it."""

    prompt: int
    shortest: int
    longest: int


def processors_of(
    settings: GenerationConfig,
    lengths: Lengths,
    *,
    given: LogitsProcessorList | None,
    source: Tensor | None,
    prefix_allowed_tokens_fn: AllowedTokens | None,
    device: torch.device,
) -> LogitsProcessorList:
    """Return the processors of one run, the caller's among them, in the order of 4.x.

    source: the ids that the encoder reads, or a decoder's prompt, [items, tokens]; None if there are none.
    """
    own = _for_all(settings, lengths, source, prefix_allowed_tokens_fn, device)
    processors: LogitsProcessorList = merged(own, given)
    if settings.do_sample:
        processors.extend(logits_warpers_of(settings))
    if settings.renormalize_logits:
        processors.append(logits_process.LogitNormalization())
    return processors


def _for_all(
    settings: GenerationConfig,
    lengths: Lengths,
    source: Tensor | None,
    prefix_allowed_tokens_fn: AllowedTokens | None,
    device: torch.device,
) -> LogitsProcessorList:
    """Return the processors for every way of decoding."""
    ends = as_list(settings.eos_token_id)
    processors = LogitsProcessorList(_of_repetition(settings, source))
    if settings.bad_words_ids is not None:
        processors.append(logits_bias.NoBadWordsLogitsProcessor(settings.bad_words_ids, ends or None))
    if ends and settings.min_new_tokens:
        processors.append(
            logits_process.MinNewTokensLengthLogitsProcessor(lengths.prompt, settings.min_new_tokens, ends, device)
        )
    elif ends and lengths.shortest:
        processors.append(logits_process.MinLengthLogitsProcessor(lengths.shortest, ends, device))
    if prefix_allowed_tokens_fn is not None:
        rows_of_item = (settings.num_beams or 1) // (settings.num_beam_groups or 1)
        processors.append(logits_bias.PrefixConstrainedLogitsProcessor(prefix_allowed_tokens_fn, max(1, rows_of_item)))
    processors.extend(_of_begin_and_end(settings, lengths, ends, device))
    return processors


def _of_repetition(settings: GenerationConfig, source: Tensor | None) -> list[LogitsProcessor]:
    made: list[LogitsProcessor] = []
    if settings.sequence_bias is not None:
        made.append(logits_bias.SequenceBiasLogitsProcessor(settings.sequence_bias))
    if (settings.num_beam_groups or 1) > 1 and (settings.num_beams or 1) > 1:
        made.append(
            logits_process.HammingDiversityLogitsProcessor(
                settings.diversity_penalty, settings.num_beams, settings.num_beam_groups
            )
        )
    if (penalty := settings.encoder_repetition_penalty) not in (None, 1.0):
        ids = _needed(source, "encoder_repetition_penalty")
        made.append(logits_source.EncoderRepetitionPenaltyLogitsProcessor(penalty, ids))
    if settings.repetition_penalty not in (None, 1.0):
        made.append(logits_process.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        made.append(logits_process.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if size := settings.encoder_no_repeat_ngram_size:
        ids = _needed(source, "encoder_no_repeat_ngram_size")
        made.append(logits_source.EncoderNoRepeatNGramLogitsProcessor(size, ids))
    return made


def _of_begin_and_end(
    settings: GenerationConfig, lengths: Lengths, ends: list[int], device: torch.device
) -> list[LogitsProcessor]:
    made: list[LogitsProcessor] = []
    if settings.forced_bos_token_id is not None:
        made.append(logits_ends.ForcedBOSTokenLogitsProcessor(settings.forced_bos_token_id))
    if settings.forced_eos_token_id is not None:
        made.append(logits_ends.ForcedEOSTokenLogitsProcessor(lengths.longest, settings.forced_eos_token_id, device))
    if settings.remove_invalid_values:
        made.append(logits_process.InfNanRemoveLogitsProcessor())
    if (decay := settings.exponential_decay_length_penalty) is not None:
        if not ends:
            raise InputError("generate: exponential_decay_length_penalty needs an eos_token_id; got none.")
        made.append(logits_ends.ExponentialDecayLengthPenalty(decay, ends, lengths.prompt))
    if settings.suppress_tokens is not None:
        made.append(logits_bias.SuppressTokensLogitsProcessor(settings.suppress_tokens, device))
    if settings.begin_suppress_tokens is not None:
        # A forced first token comes before the text.
        forced = lengths.prompt == 1 and settings.forced_bos_token_id is not None
        begin = lengths.prompt + 1 if forced else lengths.prompt
        made.append(logits_bias.SuppressTokensAtBeginLogitsProcessor(settings.begin_suppress_tokens, begin, device))
    return made


def _needed(source: Tensor | None, name: str) -> Tensor:
    if source is None:
        raise InputError(f"generate: {name} looks at the ids of the source, and there are none: pass input_ids.")
    return source


def logits_warpers_of(settings: GenerationConfig) -> LogitsProcessorList:
    """Return the processors that only sampling has, in the order of 4.x."""
    warpers = LogitsProcessorList()
    # Beams need a candidate that goes on beside each that ends.
    kept = 1 if (settings.num_beams or 1) == 1 else max(2, 1 + len(as_list(settings.eos_token_id)))
    if settings.temperature not in (None, 1.0):
        warpers.append(logits_warpers.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        warpers.append(logits_warpers.TopKLogitsWarper(settings.top_k, min_tokens_to_keep=kept))
    if settings.top_p is not None and settings.top_p < 1.0:
        warpers.append(logits_warpers.TopPLogitsWarper(settings.top_p, min_tokens_to_keep=kept))
    if settings.min_p is not None:
        warpers.append(logits_warpers.MinPLogitsWarper(settings.min_p, min_tokens_to_keep=kept))
    if settings.typical_p is not None and settings.typical_p < 1.0:
        warpers.append(logits_warpers.TypicalLogitsWarper(settings.typical_p, min_tokens_to_keep=kept))
    if settings.epsilon_cutoff:
        warpers.append(logits_warpers.EpsilonLogitsWarper(settings.epsilon_cutoff, min_tokens_to_keep=kept))
    if settings.eta_cutoff:
        warpers.append(logits_warpers.EtaLogitsWarper(settings.eta_cutoff, min_tokens_to_keep=kept))
    return warpers


def stopping_criteria_of(settings: GenerationConfig, longest: int, tokenizer: Decoder | None) -> StoppingCriteriaList:
    """Return the criteria that the settings ask for; raises InputError for stop strings without a tokenizer."""
    criteria = StoppingCriteriaList([stopping_criteria.MaxLengthCriteria(longest)])
    if settings.max_time is not None:
        criteria.append(stopping_criteria.MaxTimeCriteria(settings.max_time))
    if settings.stop_strings is not None:
        if tokenizer is None:
            raise InputError("generate: stop_strings are looked for in text: pass the tokenizer, tokenizer=...")
        criteria.append(stopping_criteria.StopStringCriteria(tokenizer, settings.stop_strings))
    if ends := as_list(settings.eos_token_id):
        criteria.append(stopping_criteria.EosTokenCriteria(ends))
    return criteria


def merged(own: Any, given: Any) -> Any:
    """Return the list `own` with the caller's objects: in the place of one of the same class, else at the end.

    Raises InputError unless these are a list of functions or callable objects.
    """
    if given is not None and not (isinstance(given, list | tuple) and all(callable(each) for each in given)):
        raise InputError(
            f"generate: expected a {type(own).__name__}, or a list of callable objects, got {given!r}; put a single "
            "one into a list"
        )
    result = type(own)()
    for each in own:
        replacement = next((other for other in given or () if type(other) is type(each)), None)
        if replacement is not None:
            logger.warning_once(f"generate: the given {type(each).__name__} takes the place of the settings' own.")
        result.append(each if replacement is None else replacement)
    result.extend(each for each in given or () if not any(each is other for other in result))
    return result
