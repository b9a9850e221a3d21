"""The import path transformers.modeling_outputs of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.outputs.model_outputs import (
        BaseModelOutput,
        BaseModelOutputWithCrossAttentions,
        BaseModelOutputWithNoAttention,
        BaseModelOutputWithPast,
        BaseModelOutputWithPastAndCrossAttentions,
        BaseModelOutputWithPooling,
        BaseModelOutputWithPoolingAndCrossAttentions,
        CausalLMOutput,
        CausalLMOutputWithCrossAttentions,
        CausalLMOutputWithPast,
        MaskedLMOutput,
        MultipleChoiceModelOutput,
        NextSentencePredictorOutput,
        QuestionAnsweringModelOutput,
        Seq2SeqLMOutput,
        Seq2SeqModelOutput,
        Seq2SeqQuestionAnsweringModelOutput,
        Seq2SeqSequenceClassifierOutput,
        SequenceClassifierOutput,
        SequenceClassifierOutputWithPast,
        TokenClassifierOutput,
    )

__all__ = [
    "BaseModelOutput",
    "BaseModelOutputWithCrossAttentions",
    "BaseModelOutputWithNoAttention",
    "BaseModelOutputWithPast",
    "BaseModelOutputWithPastAndCrossAttentions",
    "BaseModelOutputWithPooling",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "CausalLMOutput",
    "CausalLMOutputWithCrossAttentions",
    "CausalLMOutputWithPast",
    "MaskedLMOutput",
    "MultipleChoiceModelOutput",
    "NextSentencePredictorOutput",
    "QuestionAnsweringModelOutput",
    "Seq2SeqLMOutput",
    "Seq2SeqModelOutput",
    "Seq2SeqQuestionAnsweringModelOutput",
    "Seq2SeqSequenceClassifierOutput",
    "SequenceClassifierOutput",
    "SequenceClassifierOutputWithPast",
    "TokenClassifierOutput",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
