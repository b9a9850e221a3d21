"""The import path transformers.modeling_tf_utils of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.keras_layers.conv1d import TFConv1D
    from modelwright.keras_layers.initializers import get_initializer
    from modelwright.keras_layers.losses import (
        TFCausalLanguageModelingLoss,
        TFMaskedLanguageModelingLoss,
        TFMultipleChoiceLoss,
        TFNextSentencePredictionLoss,
        TFQuestionAnsweringLoss,
        TFSequenceClassificationLoss,
        TFTokenClassificationLoss,
    )
    from modelwright.keras_layers.sequence_summary import TFSequenceSummary
    from modelwright.keras_layers.serialization import keras_serializable
    from modelwright.keras_layers.shared_embeddings import TFSharedEmbeddings
    from modelwright.keras_layers.tensors import shape_list

__all__ = [
    "TFCausalLanguageModelingLoss",
    "TFConv1D",
    "TFMaskedLanguageModelingLoss",
    "TFMultipleChoiceLoss",
    "TFNextSentencePredictionLoss",
    "TFQuestionAnsweringLoss",
    "TFSequenceClassificationLoss",
    "TFSequenceSummary",
    "TFSharedEmbeddings",
    "TFTokenClassificationLoss",
    "get_initializer",
    "keras_serializable",
    "shape_list",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
