"""The losses of 4.x as mixins for models: `class Model(keras.Model, TFCausalLanguageModelingLoss)`.

Each gives the model `hf_compute_loss(labels, logits)` and reads two fields of `self.config`, if the model has one:
`tf_legacy_loss` (False), and `loss_when_all_ignored`: "zero" (the default), or "nan" as in transformers 4.x.
They have no constructor and no state, so an instance on its own works too. For `model.compile(loss=...)` use
`TaskLoss`. Shapes, options and errors are those of `loss_functions`.
"""

from typing import Any

from modelwright.keras_layers import loss_functions as functions


def _legacy(model: object) -> bool:
    return bool(getattr(getattr(model, "config", None), "tf_legacy_loss", False))


def _options(model: object) -> dict[str, Any]:
    all_ignored = getattr(getattr(model, "config", None), "loss_when_all_ignored", "zero")
    return {"tf_legacy_loss": _legacy(model), "all_ignored": all_ignored}


class TFCausalLanguageModelingLoss:
    """The loss of predicting each next token; the model shifts logits and labels. Labels of -100 are ignored."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over the counted tokens, of shape (1,): see `causal_language_modeling_loss`."""
        return functions.causal_language_modeling_loss(labels, logits, **_options(self))


class TFMaskedLanguageModelingLoss(TFCausalLanguageModelingLoss):
    """The loss of predicting masked tokens. Labels of -100 are ignored."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over the counted tokens, of shape (1,): see `masked_language_modeling_loss`."""
        return functions.masked_language_modeling_loss(labels, logits, **_options(self))


class TFTokenClassificationLoss:
    """The loss of naming each token's class. Negative labels are ignored."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over the counted tokens, of shape (1,): see `token_classification_loss`."""
        return functions.token_classification_loss(labels, logits, **_options(self))


class TFMultipleChoiceLoss:
    """The loss of choosing one of several."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return one loss for each sample: see `multiple_choice_loss`."""
        return functions.multiple_choice_loss(labels, logits)


class TFQuestionAnsweringLoss:
    """The loss of finding an answer's first and last token."""

    def hf_compute_loss(self, labels: Any, logits: Any, ignored_index: int | None = None) -> Any:
        """Return one loss for each sample: see `question_answering_loss`."""
        return functions.question_answering_loss(labels, logits, ignored_index=ignored_index)


class TFSequenceClassificationLoss:
    """The loss of naming a sequence's class, or, with one logit, of a regression."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return one loss for each sample: see `sequence_classification_loss`."""
        return functions.sequence_classification_loss(labels, logits)


class TFNextSentencePredictionLoss:
    """The loss of telling whether one sentence follows another. Samples labelled -100 cost 0."""

    def hf_compute_loss(self, labels: Any, logits: Any) -> Any:
        """Return one loss for each sample: see `next_sentence_prediction_loss`."""
        return functions.next_sentence_prediction_loss(labels, logits, tf_legacy_loss=_legacy(self))
