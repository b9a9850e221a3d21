"""From the arguments of `generate` to a checked prompt and settings: everything that can fail before decoding."""

import copy
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.fields import DEFAULTS, EXTRA_OUTPUTS, GENERATE_ARGUMENTS, IDLE, SAMPLING
from modelwright.generation.protocol import GenerativeModel, accepted_keywords

logger = get_logger(__name__)

# Arguments of 4.x's generate that ours takes only at a value that asks for nothing.
_LATER_ARGUMENTS = (
    "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "negative_prompt_ids",
    "negative_prompt_attention_mask", "use_model_defaults", "custom_generate", "trust_remote_code",
)  # fmt: skip


def settings_of_call(
    model: GenerativeModel, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
) -> tuple[GenerationConfig, dict[str, Any]]:
    """Return the settings of one call, a copy, and the keywords for the model.

    Fields come from `kwargs`, else from `generation_config`, else from the model; a given `generation_config` takes
    only the special ids that it lacks from the model.
    Raises UnknownArgumentError, ConfigError, NotImplementedError.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise NotImplementedError(
            f"generate: {type(model).__name__} is an encoder-decoder; only decoders can generate yet."
        )
    for name in _LATER_ARGUMENTS:
        if kwargs.pop(name, None):
            raise NotImplementedError(f"generate: {name} is not built; leave it out.")
    own: GenerationConfig = getattr(model, "generation_config", None) or GenerationConfig.from_model_config(
        model.config
    )
    settings = copy.deepcopy(own if generation_config is None else generation_config)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(settings, name) is None:
            setattr(settings, name, getattr(own, name))
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
    if (settings.num_beams or 1) > 1:
        raise NotImplementedError(
            f"generate: num_beams={settings.num_beams}: beam search is not built yet. Use num_beams=1."
        )
    for name, value in settings.not_built().items():
        raise NotImplementedError(f"generate: {name}={value!r} is not built yet; set it to {DEFAULTS[name]!r}.")
    if settings.use_cache and not model._supports_generation_cache:
        raise NotImplementedError(
            f"generate: use_cache=True, but {type(model).__name__} has no cache for decoding yet. Leave use_cache out: "
            "each step then computes the whole prefix again, with the same result."
        )


def _say_what_is_idle(settings: GenerationConfig) -> None:
    if not settings.do_sample:
        for name in SAMPLING:
            if getattr(settings, name) not in (DEFAULTS[name], None):
                logger.warning_once(f"generate: {name} does nothing without do_sample=True: decoding is greedy.")
    for name in IDLE:
        if getattr(settings, name) != DEFAULTS[name] and name != "decoder_start_token_id":
            logger.warning_once(f"generate: {name} does nothing here: it shapes a way of decoding that is not running.")
    for name in EXTRA_OUTPUTS:
        if getattr(settings, name) and not settings.return_dict_in_generate:
            logger.warning_once(f"generate: {name} does nothing without return_dict_in_generate=True.")


def prompt_of_call(
    model: GenerativeModel, inputs: Tensor | None, settings: GenerationConfig, model_kwargs: dict[str, Any]
) -> Tensor:
    """Return the prompt's ids [batch, tokens], taken out of `inputs` or `model_kwargs["input_ids"]`, else one bos each.

    Raises InputError for anything but a batch of at least one id each, all in the vocabulary.
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
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        found = (
            f"{input_ids.dtype} {tuple(input_ids.shape)}" if isinstance(input_ids, Tensor) else type(input_ids).__name__
        )
        hint = " For one row pass input_ids[None]." if isinstance(input_ids, Tensor) and input_ids.ndim == 1 else ""
        raise InputError(f"generate: expected input_ids to be whole numbers [batch, tokens], got {found}.{hint}")
    if 0 in input_ids.shape:
        raise InputError(f"generate: expected a prompt of one token or more, got shape {tuple(input_ids.shape)}.")
    if input_ids.device.type != model.device.type:
        logger.warning_once(
            f"generate: the prompt is on {input_ids.device} and the model on {model.device}: move it with "
            "input_ids.to(model.device)."
        )
    low, high = int(input_ids.min()), int(input_ids.max())
    vocabulary = getattr(model.config, "vocab_size", None)
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        size = "0 or more" if vocabulary is None else f"from 0 to {vocabulary - 1}"
        raise InputError(f"generate: expected ids {size} (the model's vocab_size), got {low if low < 0 else high}.")
    return input_ids.long()


def check_attention_mask(input_ids: Tensor, settings: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    """Check the mask [batch, tokens] in `model_kwargs`; without one, make it if the prompt holds padding.

    Raises InputError for another shape. Padding without a mask, and padding on the right, are said once.
    """
    mask = model_kwargs.get("attention_mask")
    pad, ends = settings.pad_token_id, as_list(settings.eos_token_id)
    if mask is None:
        if pad is None or not bool((input_ids == pad).any()):
            model_kwargs.pop("attention_mask", None)
            return
        if pad in ends:
            logger.warning_once(
                "generate: the prompt holds pad_token_id, which is also an end of text, and there is no "
                "attention_mask: every token is read as text. Pass the tokenizer's attention_mask."
            )
            return
        logger.warning_once(
            "generate: the prompt holds pad_token_id and there is no attention_mask: those tokens are taken for "
            "padding. Pass the tokenizer's attention_mask to be sure."
        )
        mask = (input_ids != pad).long()
    if not isinstance(mask, Tensor) or mask.shape != input_ids.shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"generate: expected an attention_mask of shape {tuple(input_ids.shape)}, got {found}.")
    if not bool(mask.bool().any(dim=1).all()):
        raise InputError("generate: a row of attention_mask is all 0: that prompt has no token to go on from.")
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


def repeat_rows(input_ids: Tensor, model_kwargs: dict[str, Any], times: int) -> tuple[Tensor, dict[str, Any]]:
    """Return the prompt and the model's keywords with each row `times` times in a row; tensors of other sizes stay."""
    if times == 1:
        return input_ids, model_kwargs
    rows = input_ids.shape[0]
    repeated = {
        name: value.repeat_interleave(times, dim=0)
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == rows
        else value
        for name, value in model_kwargs.items()
    }
    return input_ids.repeat_interleave(times, dim=0), repeated
