"""From settings to the lists that the decoding loop applies: processors and stopping criteria."""

from typing import Any

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.generation import logits_process, logits_warpers, stopping_criteria
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.logits_process import LogitsProcessorList
from modelwright.generation.prepare import as_list
from modelwright.generation.stopping_criteria import Decoder, StoppingCriteriaList

logger = get_logger(__name__)


def logits_processors_of(
    settings: GenerationConfig, shortest: int, prompt_length: int, device: Any
) -> LogitsProcessorList:
    """Return the processors for every way of decoding, in the order of 4.x."""
    processors, ends = LogitsProcessorList(), as_list(settings.eos_token_id)
    if (settings.num_beam_groups or 1) > 1 and (settings.num_beams or 1) > 1:
        processors.append(
            logits_process.HammingDiversityLogitsProcessor(
                settings.diversity_penalty, settings.num_beams, settings.num_beam_groups
            )
        )
    if settings.repetition_penalty not in (None, 1.0):
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        processors.append(logits_process.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if ends and settings.min_new_tokens:
        processors.append(
            logits_process.MinNewTokensLengthLogitsProcessor(prompt_length, settings.min_new_tokens, ends, device)
        )
    elif ends and shortest:
        processors.append(logits_process.MinLengthLogitsProcessor(shortest, ends, device))
    return processors


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
    """Return the list `own` with the caller's objects: in the place of one of the same class, else at the end."""
    result = type(own)()
    for each in own:
        replacement = next((other for other in given or () if type(other) is type(each)), None)
        if replacement is not None:
            logger.warning_once(f"generate: the given {type(each).__name__} takes the place of the settings' own.")
        result.append(each if replacement is None else replacement)
    result.extend(each for each in given or () if not any(each is other for other in result))
    return result
