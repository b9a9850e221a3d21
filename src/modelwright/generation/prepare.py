"""From the arguments of `generate` to a checked prompt and settings: everything that can fail before decoding."""

import copy
from typing import Any

import torch
from torch import Tensor

from modelwright.attention.caches import Cache, EncoderDecoderCache
from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.fields import DEFAULTS, EXTRA_OUTPUTS, GENERATE_ARGUMENTS, IDLE, OF_BEAMS, SAMPLING
from modelwright.generation.protocol import GenerativeModel, accepted_keywords, is_encoder_decoder
from modelwright.outputs.base import ModelOutput

logger = get_logger(__name__)

# Arguments of 4.x's generate that ours takes only at a value that asks for nothing.
_LATER_ARGUMENTS = (
    "synced_gpus", "assistant_model", "negative_prompt_ids",
    "negative_prompt_attention_mask", "use_model_defaults", "custom_generate", "trust_remote_code",
)  # fmt: skip
_OF_SOURCE = ("encoder_outputs", "attention_mask")


def settings_of_call(
    model: GenerativeModel, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """Return the settings of one call, a copy, and the keywords for the model.

    Fields come from `kwargs`, else from `generation_config`, else from the model; a given `generation_config` takes
    only the special ids that it lacks from the model. Where a text begins may also be said in the model's config later.
    Raises UnknownArgumentError, ConfigError, NotImplementedError.
    """
    if generation_config is not None and not isinstance(generation_config, GenerationConfig):
        raise InputError(
            f"generate: expected generation_config to be a GenerationConfig, got {type(generation_config).__name__}; "
            "single settings are keywords: generate(..., max_new_tokens=20)"
        )
    for name in _LATER_ARGUMENTS:
        if kwargs.pop(name, None):
            raise NotImplementedError(f"generate: {name} is not built; leave it out.")
    own: GenerationConfig = getattr(model, "generation_config", None) or GenerationConfig.from_model_config(
        model.config
    )
    settings = copy.deepcopy(own if generation_config is None else generation_config)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if getattr(settings, name) is None:
            setattr(settings, name, getattr(own, name))
    if settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = getattr(model.config, "decoder_start_token_id", None)
    given = kwargs.keys() & DEFAULTS.keys()
    # Only fields: a keyword of the model stays one, even if a file held it as an unknown setting.
    settings.update(**{name: kwargs.pop(name) for name in given})
    _check_model_keywords(model, kwargs)
    _refuse_not_built(model, settings)
    _say_what_is_idle(settings)
    return settings, kwargs


def _check_model_keywords(model: GenerativeModel, kwargs: dict[str, Any]) -> None:
    known = accepted_keywords(model) | {"input_ids"}
    for name in kwargs:
        if name not in known:
            hint = nearest(name, known | DEFAULTS.keys() | set(GENERATE_ARGUMENTS))
            raise UnknownArgumentError(
                f"generate got an unknown keyword {name!r}: neither a field of GenerationConfig nor an argument of "
                f"{type(model).__name__}.{hint}"
            )


def _refuse_not_built(model: GenerativeModel, settings: GenerationConfig) -> None:
    for name, value in settings.not_built().items():
        raise NotImplementedError(f"generate: {name}={value!r} is not built yet; set it to {DEFAULTS[name]!r}.")
    if settings.use_cache and not model._keeps_a_cache():
        raise NotImplementedError(
            f"generate: use_cache=True, but {type(model).__name__} has no cache for decoding yet. Leave use_cache out: "
            "each step then computes the whole prefix again, with the same result."
        )
    if settings.speculative_ngram:
        model._draft_keywords()


def _say_what_is_idle(settings: GenerationConfig) -> None:
    if not settings.do_sample:
        for name in SAMPLING:
            if getattr(settings, name) not in (DEFAULTS[name], None):
                logger.warning_once(f"generate: {name} does nothing without do_sample=True: decoding is greedy.")
    if (settings.num_beams or 1) == 1:
        for name in OF_BEAMS:
            if getattr(settings, name) not in (DEFAULTS[name], None):
                logger.warning_once(f"generate: {name} does nothing without num_beams above 1.")
    for name in IDLE:
        if getattr(settings, name) != DEFAULTS[name]:
            logger.warning_once(f"generate: {name} does nothing here: it shapes a way of decoding that is not running.")
    for name in EXTRA_OUTPUTS:
        if getattr(settings, name) and not settings.return_dict_in_generate:
            logger.warning_once(f"generate: {name} does nothing without return_dict_in_generate=True.")


def prompt_of_call(
    model: GenerativeModel,
    inputs: Tensor | None,
    settings: GenerationConfig,
    model_kwargs: dict[str, Any],
    *,
    vocabulary: int | None,
) -> Tensor:
    """Return the prompt's ids [batch, tokens], taken out of `inputs` or `model_kwargs["input_ids"]`, else one bos each.

    Raises InputError for anything but a batch of at least one id each, all in the `vocabulary`.
    """
    named = model_kwargs.pop("input_ids", None)
    if inputs is not None and named is not None:
        raise InputError("generate: the prompt was given twice, as inputs and as input_ids; pass one.")
    input_ids = named if inputs is None else inputs
    if input_ids is None:
        if model_kwargs.get("inputs_embeds") is not None:
            raise NotImplementedError("generate: a prompt of inputs_embeds alone is not built yet; pass input_ids.")
        if settings.bos_token_id is None:
            raise InputError(
                "generate: expected input_ids [batch, tokens], or a bos_token_id to begin with; got neither."
            )
        return torch.full((1, 1), settings.bos_token_id, dtype=torch.long, device=model.device)
    input_ids = checked_ids("input_ids", input_ids, vocabulary)
    if input_ids.device.type != model.device.type:
        logger.warning_once(
            f"generate: the prompt is on {input_ids.device} and the model on {model.device}: move it with "
            "input_ids.to(model.device)."
        )
    return input_ids


def checked_ids(name: str, ids: Any, vocabulary: int | None) -> Tensor:
    """Return the ids of the argument `name` as int64 [batch, tokens]; raises InputError for anything else."""
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int64, torch.int32):
        found = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        hint = f" For one row pass {name}[None]." if isinstance(ids, Tensor) and ids.ndim == 1 else ""
        raise InputError(f"generate: expected {name} to be whole numbers [batch, tokens], got {found}.{hint}")
    if 0 in ids.shape:
        raise InputError(f"generate: expected {name} of one token or more, got shape {tuple(ids.shape)}.")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        size = "0 or more" if vocabulary is None else f"from 0 to {vocabulary - 1}"
        raise InputError(
            f"generate: expected ids {size} (the model's vocab_size), got {low if low < 0 else high}. "
            "If the tokenizer has more tokens than the model, call model.resize_token_embeddings(len(tokenizer)) once."
        )
    return ids.long()


def mask_of_padding(ids: Tensor, settings: GenerationConfig, what: str) -> Tensor | None:
    """Return the mask [batch, tokens] that the pad ids in `ids` stand for, None without any; say it once.

    A pad id that also ends a text is taken for text, as in 4.x. `what` names the ids in the message.
    """
    pad = settings.pad_token_id
    if pad is None or not bool((ids == pad).any()):
        return None
    if pad in as_list(settings.eos_token_id):
        logger.warning_once(
            f"generate: the {what} holds pad_token_id, which is also an end of text, and there is no "
            "attention_mask: every token is read as text. Pass the tokenizer's attention_mask."
        )
        return None
    logger.warning_once(
        f"generate: the {what} holds pad_token_id and there is no attention_mask: those tokens are taken for "
        "padding. Pass the tokenizer's attention_mask to be sure."
    )
    return (ids != pad).long()


def checked_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Tensor:
    """Return the mask of the argument `name`; raises InputError for another shape, and for a row without any token."""
    if not isinstance(mask, Tensor) or tuple(mask.shape) != shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"generate: expected {name} of shape {shape}, got {found}.")
    if not bool(mask.bool().any(dim=1).all()):
        raise InputError(f"generate: a row of {name} is all 0: that prompt has no token to go on from.")
    return mask


def check_attention_mask(input_ids: Tensor, settings: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Check the mask [batch, tokens] in `model_kwargs`; without one, make it if the prompt holds padding.

    Raises InputError for another shape. Padding without a mask, and padding on the right, are said once.
    """
    mask = model_kwargs.pop("attention_mask", None)
    if mask is None:
        mask = mask_of_padding(input_ids, settings, "prompt")
        if mask is None:
            return
    checked_mask("attention_mask", mask, tuple(input_ids.shape))
    if bool((mask[:, -1] == 0).any()):
        logger.warning_once(
            "generate: the prompt is padded on the right, so new tokens follow padding: make it with "
            "padding_side='left'."
        )
    model_kwargs["attention_mask"] = mask


def resolve_lengths(
    model: GenerativeModel, settings: GenerationConfig, *, prompt_length: int, given: set[str]
) -> tuple[int, int]:
    """Return the fewest and the most tokens of a row, prompt included; `given` are the fields named in this call.

    Without any length, 20 new tokens, as in 4.x. Raises InputError for lengths that contradict each other or the
    number of positions that the model can see.
    """
    limit = model._position_limit()
    if settings.max_new_tokens is not None:
        if "max_length" in given:
            logger.warning_once("generate: max_new_tokens and max_length were both given; max_new_tokens is used.")
        longest = prompt_length + settings.max_new_tokens
    elif settings.max_length is None or ("max_length" not in given and settings.max_length == DEFAULTS["max_length"]):
        # Room for one new token in any case: a prompt that fills the model is then refused only if it is too long.
        longest = prompt_length + DEFAULTS["max_length"]
        longest = longest if limit is None else max(min(longest, limit), prompt_length + 1)
    else:
        longest = settings.max_length
    if longest <= prompt_length:
        raise InputError(
            f"generate: the prompt has {prompt_length} tokens and max_length is {longest}, which counts the prompt: no "
            "token can be added. Set max_new_tokens."
        )
    # The last token is chosen, never fed.
    if limit is not None and longest - 1 > limit:
        raise InputError(
            f"generate: {type(model).__name__} sees at most {limit} positions, but a prompt of {prompt_length} tokens "
            f"and {longest - prompt_length} new ones need {longest - 1}: shorten the prompt, or set max_new_tokens to "
            f"at most {max(0, limit + 1 - prompt_length)}."
        )
    shortest = settings.min_length or 0
    if settings.min_new_tokens is not None:
        shortest = prompt_length + settings.min_new_tokens
    if shortest > longest:
        raise InputError(
            f"generate: at least {shortest} tokens were asked for (min_length or min_new_tokens, prompt included), but "
            f"at most {longest} (max_length or max_new_tokens)."
        )
    return shortest, longest


def pad_id_of(settings: GenerationConfig, rows: int, *, rows_may_finish_early: bool) -> int:
    """Return the id that finished rows are filled with: pad_token_id, else the first end of text.

    Raises InputError when rows can finish at different times and there is neither.
    """
    ends = as_list(settings.eos_token_id)
    if settings.pad_token_id is not None and settings.pad_token_id >= 0:
        return settings.pad_token_id
    if ends:
        return ends[0]
    if rows > 1 and rows_may_finish_early:
        raise InputError("generate: rows of a batch can finish early, so pad_token_id is needed; got None.")
    return 0


def as_list(ids: int | list[int] | None) -> list[int]:
    """Return `ids` as a list; None and -1 (old files' "none") give an empty one."""
    ids = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
    return [each for each in ids if each >= 0]


def repeat_rows(
    model: GenerativeModel, input_ids: Tensor, model_kwargs: dict[str, Any], times: int
) -> tuple[Tensor, dict[str, Any]]:
    """Return the prompt and the model's keywords with each row `times` times in a row; tensors of other sizes stay.

    Of `encoder_outputs` the tensors are repeated; tuples (the states and attentions of each layer) stay as they are. A
    cache that holds as many rows as the prompt is repeated in place. A source that a model shares stays one.
    """
    if times == 1:
        return input_ids, model_kwargs
    rows = input_ids.shape[0]
    shared = _OF_SOURCE if is_encoder_decoder(model) and model._shares_source else ()

    def repeated(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == rows:
            return value.repeat_interleave(times, dim=0)
        if isinstance(value, ModelOutput):
            return type(value)(**{name: repeated(each) for name, each in value.items()})
        if isinstance(value, Cache) and value.max_batch_size == rows:
            own = value.self_attention_cache if shared and isinstance(value, EncoderDecoderCache) else value
            own.batch_repeat_interleave(times)
        return value

    kept = {name: value if name in shared else repeated(value) for name, value in model_kwargs.items()}
    return repeated(input_ids), kept
