"""What `generate` returns when asked for more than ids."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modelwright.outputs.base import ModelOutput


@dataclass
class GenerateDecoderOnlyOutput(ModelOutput):
    """The result of decoding with a decoder.

    sequences: prompt and new ids, [batch, tokens], finished rows padded. scores, logits: for each new token a tensor
    [batch, vocabulary], after and before the processors. attentions, hidden_states: for each new token what the model
    returned. past_key_values: the cache, of a model that has one.
    """

    sequences: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    attentions: tuple[Any, ...] | None = None
    hidden_states: tuple[Any, ...] | None = None
    past_key_values: Any = None
