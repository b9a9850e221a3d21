"""Layers, losses and helpers for Keras 3, on each of its backends: TensorFlow, JAX and torch (extra `keras`).

`keras_api.py` is the one module that imports Keras, and `keras.ops` the only maths. The losses are functions
(`loss_functions.py`), which the mixins of 4.x (`losses.py`) and the object for `compile(loss=)` (`task_loss.py`) call.
"""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.keras_layers.activations import get_tf_activation
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
    from modelwright.keras_layers.task_loss import TaskLoss
    from modelwright.keras_layers.tensors import shape_list
    from modelwright.keras_layers.torch_bridge import from_torch

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
    "TaskLoss",
    "from_torch",
    "get_initializer",
    "get_tf_activation",
    "keras_serializable",
    "shape_list",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
