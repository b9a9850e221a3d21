"""The cases of `references`, computed by the layers and losses on one backend of Keras.

KERAS_BACKEND=jax python cases.py FILE.npz    computes them all and writes them
"""

import sys
from typing import Any

import numpy as np
import references as ref
from keras import ops

from modelwright import PretrainedConfig
from modelwright import keras_layers as layers
from modelwright.keras_layers import loss_functions as losses


class _Model:
    """What a mixin of a loss asks of a model."""

    def __init__(self, **fields: Any) -> None:
        self.config = PretrainedConfig(**fields)


def loss(mixin: type, labels: Any, logits: Any, **fields: Any) -> Any:
    return type("Model", (_Model, mixin), {})(**fields).hf_compute_loss(labels, logits)


def conv1d(**kwargs: Any) -> Any:
    layer = layers.TFConv1D(ref.CLASSES, ref.HIDDEN, **kwargs)
    layer.build()
    layer.set_weights([ref.WEIGHT, ref.BIAS[None]])
    return layer


def shared(**kwargs: Any) -> Any:
    layer = layers.TFSharedEmbeddings(ref.CLASSES, ref.HIDDEN, **kwargs)
    layer.build()
    layer.set_weights([ref.TABLE])
    return layer


def summary(kind: str, **fields: Any) -> Any:
    layer = layers.TFSequenceSummary(PretrainedConfig(summary_type=kind, **fields))
    layer.build((None, None, ref.HIDDEN))
    if layer.summary is not None:
        layer.set_weights([ref.WEIGHT, ref.BIAS])
    return layer


def _losses() -> dict[str, Any]:
    some = np.array([4, -100, 2])
    position = {"start_position": ref.LABELS, "end_position": ref.CLS_INDEX}
    tokens = (ref.TOKEN_LABELS, ref.TOKEN_LOGITS)
    old = (ref.OLD_TOKEN_LABELS, ref.TOKEN_LOGITS)
    legacy = {"tf_legacy_loss": True}
    regression = np.full(ref.BATCH, 0.5, "float32")
    return {
        "causal": loss(layers.TFCausalLanguageModelingLoss, *tokens),
        "causal_legacy": loss(layers.TFCausalLanguageModelingLoss, *tokens, **legacy),
        "masked": loss(layers.TFMaskedLanguageModelingLoss, *tokens),
        "masked_legacy": loss(layers.TFMaskedLanguageModelingLoss, *tokens, **legacy),
        "token_classification": loss(layers.TFTokenClassificationLoss, *tokens),
        "token_classification_minus_one": loss(layers.TFTokenClassificationLoss, *old),
        "token_classification_legacy": loss(layers.TFTokenClassificationLoss, *tokens, **legacy),
        "token_classification_legacy_minus_one": loss(layers.TFTokenClassificationLoss, *old, **legacy),
        "multiple_choice": loss(layers.TFMultipleChoiceLoss, ref.LABELS, ref.LOGITS),
        "sequence_classification": loss(layers.TFSequenceClassificationLoss, ref.LABELS, ref.LOGITS),
        "regression": loss(layers.TFSequenceClassificationLoss, regression, ref.LOGITS[:, :1]),
        "regression_one_axis": loss(layers.TFSequenceClassificationLoss, regression[:, None], ref.LOGITS[:, 0]),
        "next_sentence": loss(layers.TFNextSentencePredictionLoss, some, ref.LOGITS),
        "next_sentence_legacy": loss(layers.TFNextSentencePredictionLoss, some, ref.LOGITS, **legacy),
        "question_answering": loss(
            layers.TFQuestionAnsweringLoss, position, (ref.LOGITS, ref.TOKEN_LOGITS[0, :3])
        ),
        "question_answering_ignored": losses.question_answering_loss(
            {"start_position": some, "end_position": some}, (ref.LOGITS, ref.LOGITS), ignored_index=-100
        ),
    }  # fmt: skip


def computed() -> dict[str, np.ndarray[Any, Any]]:
    """Return every case's result by its name."""
    results = _losses() | {
        "conv1d": conv1d()(ref.HIDDEN_STATES),
        "conv1d_two_axes": conv1d()(ref.HIDDEN_STATES[0]),
        "shared_embedding": shared()(np.maximum(ref.TOKEN_LABELS, 0)),
        "shared_linear": shared()(ref.HIDDEN_STATES, mode="linear"),
    }
    for kind in ref.SUMMARY_TYPES:
        inputs = (ref.HIDDEN_STATES, ref.CLS_INDEX) if kind == "cls_index" else ref.HIDDEN_STATES
        results[f"summary_{kind}"] = summary(kind)(inputs)
        results[f"summary_{kind}_projected"] = summary(kind, **ref.SUMMARY, summary_activation="tanh")(inputs)
    for name in ref.ACTIVATIONS:
        results[f"activation_{name}"] = layers.get_tf_activation(name)(ops.convert_to_tensor(ref.X))
    return {name: ops.convert_to_numpy(value) for name, value in results.items()}


if __name__ == "__main__":
    np.savez(sys.argv[1], **computed())
