"""The inputs of a decoder: of one decoding step of a model with a cache of keys and values, and for labels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.attention.caches import as_cache
from modelwright.core.errors import InputError
from modelwright.generation.mixin import positions_of_mask
from modelwright.nn.losses import IGNORED
from modelwright.outputs.model_outputs import BaseModelOutput


def decoding_inputs(
    input_ids: Tensor,
    *,
    past_key_values: Any = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return the keywords of one call: of the ids so far [B, T] those that the cache lacks, and where they stand.

    `attention_mask` [B, T] gives each row its own positions, so that padding on the left changes nothing. Positions
    that the caller gives, [B or 1, T or fewer], go on from their last. What is None is left out.
    Raises InputError for a cache that holds all of the ids.
    """
    past_key_values = as_cache(past_key_values)
    length = input_ids.shape[1]
    past = 0 if past_key_values is None else past_key_values.get_seq_length()
    if past >= length:
        raise InputError(
            f"generate: past_key_values holds {past} tokens and the prompt has {length}: expected the whole text as "
            "the prompt, with at least one token that the cache lacks; past_key_values.crop() takes tokens away"
        )
    if position_ids is not None:
        missing = length - position_ids.shape[-1]
        following = position_ids[:, -1:] + 1 + torch.arange(missing, device=position_ids.device)
        position_ids = torch.cat([position_ids, following], dim=-1)
    elif attention_mask is not None:
        position_ids = positions_of_mask(attention_mask)
    inputs = {
        "input_ids": input_ids[:, past:],
        "past_key_values": past_key_values,
        "attention_mask": attention_mask,
        "position_ids": None if position_ids is None else position_ids[:, past:],
        "token_type_ids": None if token_type_ids is None else token_type_ids[:, past:],
        **others,
    }
    return {name: value for name, value in inputs.items() if value is not None}


def source_outputs(model: Any, encoder_outputs: Any, width: int) -> Any:
    """Return the `encoder_outputs` of a call of `model` as an output; a tuple holds states and what else there is.

    Raises InputError if they are none, or if their states are not (B, S, width).
    """
    if isinstance(encoder_outputs, tuple | list):
        encoder_outputs = BaseModelOutput(*encoder_outputs)
    elif not hasattr(encoder_outputs, "last_hidden_state"):
        raise InputError(
            f"{type(model).__name__}: expected encoder_outputs to be what the encoder returns, or a tuple that begins "
            f"with its states (rows, tokens, {width}), got {type(encoder_outputs).__name__}"
        )
    states = encoder_outputs.last_hidden_state
    if not isinstance(states, Tensor) or states.dim() != 3 or states.shape[-1] != width:
        found = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        raise InputError(
            f"{type(model).__name__}: expected the states in encoder_outputs to have the shape (rows, tokens, "
            f"{width}), {width} being the width of the encoder's, got {found}"
        )
    return encoder_outputs


def shifted_right(model: Any, labels: Tensor) -> Tensor:
    """Return a decoder's inputs for `labels` (B, T): the start id before them, the last one left out.

    Raises InputError if the model's config has no `decoder_start_token_id` or no `pad_token_id`, which takes the place
    of -100.
    """
    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
    if start is None or pad is None:
        name = "decoder_start_token_id" if start is None else "pad_token_id"
        raise InputError(
            f"{type(model).__name__}: the inputs of the decoder are made of labels by means of config.{name}, which "
            "is None; set it, or pass decoder_input_ids"
        )
    shifted = F.pad(labels[..., :-1], (1, 0), value=start)
    return shifted.masked_fill(shifted == IGNORED, pad)
