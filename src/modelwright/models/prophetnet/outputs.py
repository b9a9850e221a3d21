"""What ProphetNet's models return: of the main stream, as other models do, and of the streams that predict.

Legend: B batch, T decoder tokens, S encoder tokens, G predict streams that were computed, E hidden size, V vocabulary,
H heads. Attentions are probabilities.
"""

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modelwright.outputs.base import ModelOutput

Layers = tuple[Tensor, ...] | None


class _OldNameOfCrossAttentions:
    cross_attentions: Layers

    @property
    def decoder_cross_attentions(self) -> Layers:
        """`cross_attentions` under its old name."""
        warnings.warn("decoder_cross_attentions is deprecated: use cross_attentions", FutureWarning, stacklevel=2)
        return self.cross_attentions


class _DocumentedNameOfStates:
    hidden_states_ngram: Layers

    @property
    def ngram_hidden_states(self) -> Layers:
        """`hidden_states_ngram` under the name that the document gives it."""
        return self.hidden_states_ngram


@dataclass
class ProphetNetSeq2SeqModelOutput(_OldNameOfCrossAttentions, ModelOutput):
    """The decoder's states (B, T, E) and (B, G * T, E), stream after stream, its cache, and the encoder's states.

    `decoder_attentions` are (B, H, T, keys), `decoder_ngram_attentions` (B, G, H, T, keys + T) with the streams' own
    keys last, `cross_attentions` (B, H, (1 + G) * T, S).
    """

    last_hidden_state: Tensor | None = None
    last_hidden_state_ngram: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: Layers = None
    decoder_ngram_hidden_states: Layers = None
    decoder_attentions: Layers = None
    decoder_ngram_attentions: Layers = None
    cross_attentions: Layers = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Layers = None
    encoder_attentions: Layers = None


@dataclass
class ProphetNetSeq2SeqLMOutput(_OldNameOfCrossAttentions, ModelOutput):
    """The loss, `logits` (B, T, V) of the next token, `logits_ngram` (B, G - 1, T, V) of those behind it, and states.

    The rest is as in `ProphetNetSeq2SeqModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    logits_ngram: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: Layers = None
    decoder_ngram_hidden_states: Layers = None
    decoder_attentions: Layers = None
    decoder_ngram_attentions: Layers = None
    cross_attentions: Layers = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: Layers = None
    encoder_attentions: Layers = None


@dataclass
class ProphetNetDecoderModelOutput(_DocumentedNameOfStates, ModelOutput):
    """States (B, T, E) and (B, G * T, E), the cache, and states and attentions of each layer.

    Shapes are those of `ProphetNetSeq2SeqModelOutput`.
    """

    last_hidden_state: Tensor | None = None
    last_hidden_state_ngram: Tensor | None = None
    past_key_values: Any = None
    hidden_states: Layers = None
    hidden_states_ngram: Layers = None
    attentions: Layers = None
    ngram_attentions: Layers = None
    cross_attentions: Layers = None


@dataclass
class ProphetNetDecoderLMOutput(_DocumentedNameOfStates, ModelOutput):
    """The loss, `logits` (B, T, V) of the next token, `logits_ngram` (B, G - 1, T, V), and what the decoder returns."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    logits_ngram: Tensor | None = None
    past_key_values: Any = None
    hidden_states: Layers = None
    hidden_states_ngram: Layers = None
    attentions: Layers = None
    ngram_attentions: Layers = None
    cross_attentions: Layers = None
