"""QDQBERT: BERT with quantizers in its layers; the only family besides encoder-decoders that imports another one."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.qdqbert.configuration_qdqbert import QDQBertConfig
    from modelwright.models.qdqbert.modeling_qdqbert import (
        QDQBertForMaskedLM,
        QDQBertForMultipleChoice,
        QDQBertForNextSentencePrediction,
        QDQBertForQuestionAnswering,
        QDQBertForSequenceClassification,
        QDQBertForTokenClassification,
        QDQBertLayer,
        QDQBertLMHeadModel,
        QDQBertModel,
        QDQBertPreTrainedModel,
    )

__all__ = [
    "QDQBertConfig",
    "QDQBertForMaskedLM",
    "QDQBertForMultipleChoice",
    "QDQBertForNextSentencePrediction",
    "QDQBertForQuestionAnswering",
    "QDQBertForSequenceClassification",
    "QDQBertForTokenClassification",
    "QDQBertLMHeadModel",
    "QDQBertLayer",
    "QDQBertModel",
    "QDQBertPreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
