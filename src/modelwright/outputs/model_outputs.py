"""The ModelOutput of each kind of model, with the fields and the order of fields that upstream has.

Shapes: B sequences (or B choices x sequences), T tokens, S source tokens, D hidden size, V vocabulary, N labels,
H heads. What every class may hold:

- `hidden_states`: the embeddings and each layer's output, [B, T, D] each, with `output_hidden_states=True`;
- `attentions`: each layer's attention probabilities, [B, H, T, T] each, with `output_attentions=True`;
- `cross_attentions`: the same towards the encoder, [B, H, T, S] each;
- `past_key_values`: the cache, to be passed to the next call, with `use_cache=True`;
- `loss`: a scalar, when labels were given.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from modelwright.outputs.base import ModelOutput

if TYPE_CHECKING:
    from torch import Tensor

    Tensors: TypeAlias = tuple[Tensor, ...]


@dataclass
class BaseModelOutput(ModelOutput):
    """Hidden states without a head: `last_hidden_state` [B, T, D]."""

    last_hidden_state: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class BaseModelOutputWithNoAttention(ModelOutput):
    """Hidden states of a model that has no attention: `last_hidden_state` [B, T, D]."""

    last_hidden_state: "Tensor | None" = None
    hidden_states: "Tensors | None" = None


@dataclass
class BaseModelOutputWithPast(ModelOutput):
    """Hidden states and a cache: `last_hidden_state` [B, T, D]."""

    last_hidden_state: "Tensor | None" = None
    past_key_values: Any = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class BaseModelOutputWithCrossAttentions(ModelOutput):
    """Hidden states of a decoder: `last_hidden_state` [B, T, D]."""

    last_hidden_state: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None


@dataclass
class BaseModelOutputWithPastAndCrossAttentions(ModelOutput):
    """Hidden states of a decoder and a cache: `last_hidden_state` [B, T, D]."""

    last_hidden_state: "Tensor | None" = None
    past_key_values: Any = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None


@dataclass
class BaseModelOutputWithPooling(ModelOutput):
    """Hidden states [B, T, D] and `pooler_output` [B, D], one vector for each sequence."""

    last_hidden_state: "Tensor | None" = None
    pooler_output: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Hidden states [B, T, D], `pooler_output` [B, D], a cache and cross-attentions."""

    last_hidden_state: "Tensor | None" = None
    pooler_output: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    past_key_values: Any = None
    attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None


@dataclass
class CausalLMOutput(ModelOutput):
    """Scores of the next token: `logits` [B, T, V]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class CausalLMOutputWithPast(ModelOutput):
    """Scores of the next token and a cache: `logits` [B, T, V]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    past_key_values: Any = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Scores of the next token, a cache and cross-attentions: `logits` [B, T, V]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    past_key_values: Any = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None


@dataclass
class MaskedLMOutput(ModelOutput):
    """Scores of the token at each place: `logits` [B, T, V]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class NextSentencePredictorOutput(ModelOutput):
    """Scores for "the second sentence follows" and "it does not": `logits` [B, 2]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class SequenceClassifierOutput(ModelOutput):
    """Scores of each sequence's labels: `logits` [B, N]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class SequenceClassifierOutputWithPast(ModelOutput):
    """Scores of each sequence's labels and a cache: `logits` [B, N]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    past_key_values: Any = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class TokenClassifierOutput(ModelOutput):
    """Scores of each token's labels: `logits` [B, T, N]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class MultipleChoiceModelOutput(ModelOutput):
    """Scores of the choices: `logits` [B, choices]."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """Scores of where the answer begins and ends: `start_logits` and `end_logits` [B, T]."""

    loss: "Tensor | None" = None
    start_logits: "Tensor | None" = None
    end_logits: "Tensor | None" = None
    hidden_states: "Tensors | None" = None
    attentions: "Tensors | None" = None


@dataclass
class Seq2SeqModelOutput(ModelOutput):
    """Decoder and encoder states: `last_hidden_state` [B, T, D], `encoder_last_hidden_state` [B, S, D]."""

    last_hidden_state: "Tensor | None" = None
    past_key_values: Any = None
    decoder_hidden_states: "Tensors | None" = None
    decoder_attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None
    encoder_last_hidden_state: "Tensor | None" = None
    encoder_hidden_states: "Tensors | None" = None
    encoder_attentions: "Tensors | None" = None


@dataclass
class Seq2SeqLMOutput(ModelOutput):
    """Scores of the next target token, `logits` [B, T, V], with the states of encoder and decoder."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    past_key_values: Any = None
    decoder_hidden_states: "Tensors | None" = None
    decoder_attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None
    encoder_last_hidden_state: "Tensor | None" = None
    encoder_hidden_states: "Tensors | None" = None
    encoder_attentions: "Tensors | None" = None


@dataclass
class Seq2SeqSequenceClassifierOutput(ModelOutput):
    """Scores of each sequence's labels, `logits` [B, N], with the states of encoder and decoder."""

    loss: "Tensor | None" = None
    logits: "Tensor | None" = None
    past_key_values: Any = None
    decoder_hidden_states: "Tensors | None" = None
    decoder_attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None
    encoder_last_hidden_state: "Tensor | None" = None
    encoder_hidden_states: "Tensors | None" = None
    encoder_attentions: "Tensors | None" = None


@dataclass
class Seq2SeqQuestionAnsweringModelOutput(ModelOutput):
    """Scores of where the answer begins and ends, [B, T] each, with the states of encoder and decoder."""

    loss: "Tensor | None" = None
    start_logits: "Tensor | None" = None
    end_logits: "Tensor | None" = None
    past_key_values: Any = None
    decoder_hidden_states: "Tensors | None" = None
    decoder_attentions: "Tensors | None" = None
    cross_attentions: "Tensors | None" = None
    encoder_last_hidden_state: "Tensor | None" = None
    encoder_hidden_states: "Tensors | None" = None
    encoder_attentions: "Tensors | None" = None
