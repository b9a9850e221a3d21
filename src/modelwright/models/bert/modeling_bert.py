"""The import path transformers.models.bert.modeling_bert of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.models.bert.backbone import BertEncoder, BertModel, BertPooler, BertPreTrainedModel
    from modelwright.models.bert.configuration_bert import BertConfig
    from modelwright.models.bert.embeddings import BertEmbeddings
    from modelwright.models.bert.layers import (
        BertAttention,
        BertIntermediate,
        BertLayer,
        BertOutput,
        BertSelfAttention,
        BertSelfOutput,
    )
    from modelwright.models.bert.lm_heads import (
        BertForMaskedLM,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertForPreTrainingOutput,
        BertLMHeadModel,
        BertLMPredictionHead,
        BertOnlyMLMHead,
        BertOnlyNSPHead,
        BertPredictionHeadTransform,
        BertPreTrainingHeads,
    )
    from modelwright.models.bert.task_heads import (
        BertForMultipleChoice,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
    )

__all__ = [
    "BertAttention",
    "BertConfig",
    "BertEmbeddings",
    "BertEncoder",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForPreTrainingOutput",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertIntermediate",
    "BertLMHeadModel",
    "BertLMPredictionHead",
    "BertLayer",
    "BertModel",
    "BertOnlyMLMHead",
    "BertOnlyNSPHead",
    "BertOutput",
    "BertPooler",
    "BertPreTrainedModel",
    "BertPreTrainingHeads",
    "BertPredictionHeadTransform",
    "BertSelfAttention",
    "BertSelfOutput",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
