"""BERT (Devlin et al. 2019), encoder and decoder.

`embeddings` and `layers` hold the parts, `backbone` assembles them, `lm_heads` and `task_heads` put the heads on.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.bert.backbone import BertModel, BertPreTrainedModel
    from modelwright.models.bert.configuration_bert import BertConfig
    from modelwright.models.bert.layers import BertLayer
    from modelwright.models.bert.lm_heads import (
        BertForMaskedLM,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertLMHeadModel,
    )
    from modelwright.models.bert.task_heads import (
        BertForMultipleChoice,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
    )

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMHeadModel",
    "BertLayer",
    "BertModel",
    "BertPreTrainedModel",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
