"""The switches of one call of a model: what the caller said, else what its config says."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class Switches:
    """What a call returns beside its result, and whether its layers are recomputed in the backward."""

    recomputes: bool
    use_cache: bool
    output_attentions: bool
    output_hidden_states: bool
    return_dict: bool


def switches_of(
    model: Any,
    *,
    use_cache: bool | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    past_key_values: Any = None,
) -> Switches:
    """Return the switches of a call of `model`; None is what its config says.

    With gradient checkpointing in training there is no cache, which is said once. Raises InputError for a cache with
    tokens in it, which would be ignored.
    """
    config = model.config
    cached = bool(getattr(config, "use_cache", False) if use_cache is None else use_cache)
    recomputes = model.training and torch.is_grad_enabled() and model.is_gradient_checkpointing
    if recomputes:
        name = type(model).__name__
        if past_key_values is not None and past_key_values.get_seq_length():
            raise InputError(
                f"{name}: past_key_values holds {past_key_values.get_seq_length()} tokens, which gradient "
                "checkpointing would leave out; call gradient_checkpointing_disable(), or pass the "
                "whole sequence without a cache"
            )
        if cached:
            logger.warning_once(
                f"Caching is incompatible with gradient checkpointing in {name}: setting use_cache=False."
            )
        cached = False
    return Switches(
        recomputes=recomputes,
        use_cache=cached,
        output_attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        output_hidden_states=bool(
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        ),
        return_dict=wants_dict(model, return_dict),
    )


def embedded(model: Any, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Return `inputs_embeds`, or the embeddings of `input_ids`; raise InputError unless there is exactly one."""
    check_one_input(model, input_ids, inputs_embeds)
    if inputs_embeds is not None:
        return inputs_embeds
    result: Tensor = model.get_input_embeddings()(input_ids)
    return result


def check_one_input(model: Any, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Return the one of `input_ids` and `inputs_embeds` that is given; raise InputError unless there is exactly one."""
    if input_ids is not None and inputs_embeds is None:
        return input_ids
    if inputs_embeds is not None and input_ids is None:
        return inputs_embeds
    raise InputError(
        f"{type(model).__name__}: expected either input_ids or inputs_embeds, got "
        f"{'neither' if input_ids is None else 'both'}"
    )


def wants_dict(model: Any, return_dict: bool | None) -> bool:
    """Tell whether a call returns a ModelOutput: `return_dict`, or what the config says if it is None."""
    return bool(model.config.use_return_dict if return_dict is None else return_dict)
