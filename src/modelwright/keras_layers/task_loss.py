"""TaskLoss: the losses as an object for `model.compile(loss=...)` that is saved with the model."""

from collections.abc import Callable
from typing import Any

from modelwright.core.errors import InputError, check_choice
from modelwright.keras_layers import loss_functions as functions
from modelwright.keras_layers.keras_api import keras, ops

# Those that average over tokens and take options, and those that give one loss for each sample.
_TOKENS: dict[str, Callable[..., Any]] = {
    "causal_language_modeling": functions.causal_language_modeling_loss,
    "masked_language_modeling": functions.masked_language_modeling_loss,
    "token_classification": functions.token_classification_loss,
}
_SAMPLES: dict[str, Callable[..., Any]] = {
    "multiple_choice": functions.multiple_choice_loss,
    "next_sentence_prediction": functions.next_sentence_prediction_loss,
    "sequence_classification": functions.sequence_classification_loss,
}


@keras.saving.register_keras_serializable(package="modelwright")
class TaskLoss(keras.losses.Loss):
    """One of the losses for `model.compile`: `TaskLoss("causal_language_modeling")`.

    `task` is causal_language_modeling, masked_language_modeling, token_classification, multiple_choice,
    next_sentence_prediction or sequence_classification. `all_ignored` ("zero" or "nan") is what the first three give
    for a batch without counted labels. Labels keep their integers, and logits are taken to fp32. Where the model
    carries a Keras mask for tokens, masked tokens are ignored. `reduction` ("sum_over_batch_size", "sum" or "none")
    applies to losses per sample; those of tokens are a mean already.
    Raises InputError for unknown names, and for `sample_weight` where the loss is a mean over tokens.
    """

    def __init__(
        self,
        task: str,
        all_ignored: str = "zero",
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        check_choice("TaskLoss task", task, {**_TOKENS, **_SAMPLES})
        check_choice("TaskLoss all_ignored", all_ignored, functions.ALL_IGNORED)
        check_choice("TaskLoss reduction", reduction or "none", ("none", "sum", "sum_over_batch_size"))
        super().__init__(name=name or task, reduction=reduction or "none", dtype=dtype)
        self.task = task
        self.all_ignored = all_ignored

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss, reduced."""
        # Keras's own would first turn the labels into floats.
        if sample_weight is not None and self.task in _TOKENS:
            raise InputError(
                f"TaskLoss({self.task!r}) is a mean over tokens and takes no sample_weight; give the labels of tokens "
                f"that should not count the value {functions.IGNORED}"
            )
        losses = self.call(y_true, y_pred)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        if self.reduction == "sum":
            return ops.sum(losses)
        return ops.mean(losses) if self.reduction == "sum_over_batch_size" else losses

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss before reduction: of shape (1,), or one for each sample."""
        if self.task in _SAMPLES:
            return _SAMPLES[self.task](y_true, y_pred)
        mask = getattr(y_pred, "_keras_mask", None)
        if mask is not None:
            y_true = ops.where(ops.cast(mask, "bool"), y_true, functions.IGNORED)
        return _TOKENS[self.task](y_true, y_pred, all_ignored=self.all_ignored)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same loss again."""
        return {**super().get_config(), "task": self.task, "all_ignored": self.all_ignored}
