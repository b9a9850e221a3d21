"""What an encoder-decoder needs before decoding: its encoder run once on the source, and the decoder's first ids."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.packing import leaving_out_padding, works_token_by_token
from modelwright.core.errors import InputError
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.prepare import checked_ids, checked_mask, mask_of_padding, prompt_of_call
from modelwright.generation.protocol import GenerativeModel, call_parameters, encoder_of, takes_any_keyword
from modelwright.outputs.base import ModelOutput
from modelwright.outputs.model_outputs import BaseModelOutput

# Keywords that are about the decoder or its cache, whatever the encoder's signature says.
_NOT_FOR_THE_ENCODER = ("decoder_", "cross_attn", "encoder_outputs", "past_key_values", "use_cache")


def encode_source(
    model: GenerativeModel, inputs: Tensor | None, settings: GenerationConfig, model_kwargs: dict[str, Any]
) -> Tensor | None:
    """Run the encoder once; put `encoder_outputs` and the source's mask in `model_kwargs`; return the source's ids.

    The source is `inputs` or the encoder's main input by its name, `inputs_embeds`, or `encoder_outputs`, which spare
    the run. The ids [batch, tokens] are None where there are none. Without an `attention_mask`, padding in the ids
    makes one, unless the pad id also ends a text. Raises InputError for a source given twice or of a wrong kind.
    """
    encoder = encoder_of(model)
    name = getattr(encoder, "main_input_name", "input_ids")
    given = model_kwargs.get("encoder_outputs") is not None
    source = _source(model, encoder, name, inputs, settings, model_kwargs)
    ids = source if name == "input_ids" else None
    if model_kwargs.get("attention_mask") is None and not given:
        mask = None if ids is None else mask_of_padding(ids, settings, "source")
        model_kwargs.pop("attention_mask", None)
        if mask is not None:
            model_kwargs["attention_mask"] = mask
    elif ids is not None and model_kwargs.get("attention_mask") is not None:
        checked_mask("attention_mask", model_kwargs["attention_mask"], tuple(ids.shape))
    if given:
        outputs = model_kwargs["encoder_outputs"]
    else:
        keywords = _encoder_keywords(encoder, settings, model_kwargs)
        with _without_padding(encoder, keywords):
            outputs = encoder(**({} if source is None else {name: source}), **keywords)
    model_kwargs["encoder_outputs"] = _as_output(outputs, ids)
    _drop_what_only_the_encoder_takes(model, encoder, name, model_kwargs)
    return ids


def decoder_start(model: GenerativeModel, settings: GenerationConfig, model_kwargs: dict[str, Any]) -> Tensor:
    """Return the ids that the decoder goes on from, [batch, tokens], out of `decoder_input_ids` or the start id.

    The start id is `decoder_start_token_id`, one or one per row, else `bos_token_id`. As in 4.x it is put before
    `decoder_input_ids` of which no row begins with it, and their mask grows with them.
    Raises InputError for a batch other than that of the source, and where there is nothing to start from.
    """
    rows = model_kwargs["encoder_outputs"][0].shape[0]
    ids = model_kwargs.pop("decoder_input_ids", None)
    start_B1 = _start_ids(model, settings, rows)
    if ids is None:
        if start_B1 is None:
            raise InputError(
                f"generate: {type(model).__name__} needs decoder_start_token_id (or bos_token_id) to begin its answer; "
                "set it in the generation config, or pass decoder_input_ids."
            )
        ids = start_B1
    else:
        vocabulary = getattr(model.config, "vocab_size", None)
        ids = checked_ids("decoder_input_ids", ids, vocabulary)
        if ids.shape[0] != rows:
            raise InputError(
                f"generate: decoder_input_ids have {ids.shape[0]} rows, the source has {rows}; pass one for each."
            )
        mask = model_kwargs.get("decoder_attention_mask")
        if mask is not None:
            checked_mask("decoder_attention_mask", mask, tuple(ids.shape))
        if start_B1 is not None and bool((ids[:, :1] != start_B1).all()):
            ids = torch.cat([start_B1.to(ids.device), ids], dim=1)
            if mask is not None:
                model_kwargs["decoder_attention_mask"] = torch.cat([mask.new_ones(rows, 1), mask], dim=1)
    return ids


def _source(
    model: GenerativeModel,
    encoder: Any,
    name: str,
    inputs: Tensor | None,
    settings: GenerationConfig,
    model_kwargs: dict[str, Any],
) -> Tensor | None:
    """Take the encoder's main input out of the arguments; None if the source comes as embeddings or outputs only."""
    elsewhere = any(model_kwargs.get(other) is not None for other in ("encoder_outputs", "inputs_embeds"))
    if inputs is None and model_kwargs.get(name) is None and elsewhere:
        model_kwargs.pop(name, None)
        return None
    if model_kwargs.get("inputs_embeds") is not None:
        raise InputError(f"generate: the source was given twice, as {name} and as inputs_embeds; pass one.")
    if name == "input_ids":
        vocabulary = getattr(getattr(encoder, "config", model.config), "vocab_size", None)
        return prompt_of_call(model, inputs, settings, model_kwargs, vocabulary=vocabulary)
    features = model_kwargs.pop(name, None)
    if (inputs is None) == (features is None):
        raise InputError(
            f"generate: expected one source, as inputs or as {name}; got {2 if features is not None else 0}."
        )
    return inputs if features is None else features


def _encoder_keywords(encoder: Any, settings: GenerationConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    known, anything = call_parameters(encoder), takes_any_keyword(encoder)
    keywords = {
        name: value
        for name, value in model_kwargs.items()
        if (anything or name in known) and not name.startswith(_NOT_FOR_THE_ENCODER)
    }
    for name in ("output_attentions", "output_hidden_states"):
        if settings.return_dict_in_generate and getattr(settings, name) and (anything or name in known):
            keywords[name] = True
    if anything or "return_dict" in known:
        keywords["return_dict"] = True
    return keywords


def _without_padding(encoder: Any, keywords: dict[str, Any]) -> AbstractContextManager[None]:
    """Return a context in which the encoder may leave padding out, unless somebody may look at the states of padding.

    The decoder does not; a caller who asked for all states does.
    """
    looked_at = keywords.get("output_hidden_states") or keywords.get("output_attentions")
    if looked_at or not isinstance(encoder, nn.Module) or not works_token_by_token(encoder):
        return nullcontext()
    return leaving_out_padding()


def _as_output(outputs: Any, ids: Tensor | None) -> ModelOutput:
    """Return what an encoder gave as a ModelOutput; raises InputError if its first item is no tensor of states."""
    if isinstance(outputs, (tuple, list)) and outputs:
        outputs = BaseModelOutput(*outputs[:3])
    elif not isinstance(outputs, ModelOutput) and hasattr(outputs, "last_hidden_state"):
        names = ("last_hidden_state", "hidden_states", "attentions")
        outputs = BaseModelOutput(**{name: getattr(outputs, name, None) for name in names})
    if not isinstance(outputs, ModelOutput) or not isinstance(outputs[0], Tensor) or outputs[0].ndim < 2:
        raise InputError(
            "generate: expected encoder_outputs to begin with the encoder's states [batch, tokens, width], got "
            f"{type(outputs).__name__}; pass what model.get_encoder() returned."
        )
    if ids is not None and ids.shape[0] != outputs[0].shape[0]:
        raise InputError(
            f"generate: the source has {ids.shape[0]} rows and encoder_outputs have {outputs[0].shape[0]}; pass "
            "the outputs of this source, or leave the ids out."
        )
    return outputs


def _drop_what_only_the_encoder_takes(
    model: GenerativeModel, encoder: Any, name: str, model_kwargs: dict[str, Any]
) -> None:
    # What the encoder has read must not be read again as the decoder's.
    model_kwargs.pop("inputs_embeds", None)
    model_kwargs.pop(name, None)
    if not takes_any_keyword(model, "prepare_inputs_for_generation"):
        own = inspect.signature(model.prepare_inputs_for_generation).parameters
        for other in call_parameters(encoder):
            if other not in own:
                model_kwargs.pop(other, None)


def _start_ids(model: GenerativeModel, settings: GenerationConfig, rows: int) -> Tensor | None:
    start = settings.bos_token_id if settings.decoder_start_token_id is None else settings.decoder_start_token_id
    if start is None:
        return None
    ids = torch.as_tensor(start, dtype=torch.long, device=model.device).reshape(-1, 1)
    if ids.shape[0] not in (1, rows):
        raise InputError(
            f"generate: decoder_start_token_id has {ids.shape[0]} ids and the source {rows} rows; give one id, or one "
            "for each row."
        )
    return ids.expand(rows, 1)
