"""The losses as functions of labels and logits, computed in fp32 with `keras.ops`.

Letters: B batch, T tokens, V vocabulary or classes, N choices. A label of -100 is ignored together with its logits,
which may even be NaN. A label out of range raises InputError; in a compiled function, which cannot raise, it makes the
loss NaN. Source: the losses of transformers 4.x for TensorFlow.
"""

from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import InputError, check_choice
from modelwright.keras_layers.keras_api import keras, ops
from modelwright.keras_layers.tensors import as_floats, as_integers, check_range, concrete, inside

IGNORED = -100
ALL_IGNORED = ("nan", "zero")


def causal_language_modeling_loss(
    labels: Any, logits: Any, *, tf_legacy_loss: bool = False, all_ignored: str = "zero"
) -> Any:
    """Return the mean cross-entropy of the counted tokens, in nats: (B, T), (B, T, V) -> (1,).

    The caller shifts: label t belongs to logits t. A batch whose labels are all ignored gives 0, or NaN, as in
    transformers 4.x, with `all_ignored="nan"`. With `tf_legacy_loss` the result is the vector of the counted tokens'
    losses, whose length depends on the labels, so that JAX cannot compile it.
    """
    labels, logits = _pair("causal language modeling", labels, logits)
    ignored = ops.equal(labels, IGNORED)
    return _token_loss("causal language modeling", labels, logits, ignored, tf_legacy_loss, all_ignored)


def masked_language_modeling_loss(
    labels: Any, logits: Any, *, tf_legacy_loss: bool = False, all_ignored: str = "zero"
) -> Any:
    """Return the mean cross-entropy of the counted tokens, in nats, as `causal_language_modeling_loss` does."""
    labels, logits = _pair("masked language modeling", labels, logits)
    ignored = ops.equal(labels, IGNORED)
    return _token_loss("masked language modeling", labels, logits, ignored, tf_legacy_loss, all_ignored)


def token_classification_loss(
    labels: Any, logits: Any, *, tf_legacy_loss: bool = False, all_ignored: str = "zero"
) -> Any:
    """Return the mean cross-entropy of the counted tokens, in nats: (B, T), (B, T, V) -> (1,).

    Every negative label is ignored. With `tf_legacy_loss` the result is a vector, as for
    `causal_language_modeling_loss`, and what is ignored is -1 if any label is -1, otherwise -100.
    """
    labels, logits = _pair("token classification", labels, logits)
    if tf_legacy_loss:
        ignored = ops.equal(labels, ops.where(ops.any(ops.equal(labels, -1)), -1, IGNORED))
    else:
        ignored = ops.less(labels, 0)
    return _token_loss("token classification", labels, logits, ignored, tf_legacy_loss, all_ignored)


def multiple_choice_loss(labels: Any, logits: Any) -> Any:
    """Return each sample's cross-entropy over its choices, in nats: (B,), (B, N) -> (B,). No label is ignored."""
    labels, logits = _pair("multiple choice", labels, logits, axes=2)
    return _cross_entropy("multiple choice", labels, logits)


def sequence_classification_loss(labels: Any, logits: Any) -> Any:
    """Return each sample's cross-entropy, in nats: (B,), (B, V) -> (B,). No label is ignored.

    With logits of shape (B,) or (B, 1) it is a regression: the squared error, labels being numbers of shape (B,) or
    (B, 1).
    """
    logits = as_floats(logits)
    if len(logits.shape) == 1 or (len(logits.shape) == 2 and logits.shape[-1] == 1):
        return _squared_error(labels, logits)
    labels, logits = _pair("sequence classification", labels, logits, axes=2)
    return _cross_entropy("sequence classification", labels, logits)


def next_sentence_prediction_loss(labels: Any, logits: Any, *, tf_legacy_loss: bool = False) -> Any:
    """Return each sample's cross-entropy, in nats, 0 for those whose label is -100: (B,), (B, 2) -> (B,).

    With `tf_legacy_loss` the ignored samples are left out of the result.
    """
    where = "next sentence prediction"
    labels, logits = _pair(where, labels, logits, axes=2)
    ignored = ops.equal(labels, IGNORED)
    losses = _cross_entropy(where, labels, logits, ignored, f" or {IGNORED} (ignored)")
    return _counted(where, losses, ignored) if tf_legacy_loss else losses


def question_answering_loss(labels: Any, logits: Any, *, ignored_index: int | None = None) -> Any:
    """Return each sample's mean cross-entropy of its answer's start and end, in nats: (B,) each -> (B,).

    `labels` is a dictionary of start_position and end_position, (B,); `logits` is (start, end), (B, T) each. A position
    that equals `ignored_index` costs 0; without it, none is ignored.
    """
    where = "question answering"
    names = ("start_position", "end_position")
    if not isinstance(labels, Mapping) or set(labels) != set(names):
        got = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else type(labels).__name__
        raise InputError(f"{where} loss: expected labels to be a dictionary of {' and '.join(names)}, got {got}")
    if not isinstance(logits, tuple | list) or len(logits) != 2:
        raise InputError(f"{where} loss: expected logits to be the pair (start, end), got {type(logits).__name__}")
    losses = []
    for name, scores in zip(names, logits, strict=True):
        positions, scores = _pair(f"{where} {name}", labels[name], scores, axes=2)
        ignored = None if ignored_index is None else ops.equal(positions, ignored_index)
        also = "" if ignored_index is None else f" or {ignored_index} (ignored)"
        losses.append(_cross_entropy(f"{where} {name}", positions, scores, ignored, also))
    return (losses[0] + losses[1]) / 2


# --- parts ----------------------------------------------------------------------------------------------------------


def _pair(where: str, labels: Any, logits: Any, *, axes: int | None = None) -> tuple[Any, Any]:
    """Return integer labels and float logits whose shapes go together; `axes` is the number of the logits' axes."""
    labels, logits = as_integers(f"{where} loss: labels", labels), as_floats(logits)
    labels_shape, logits_shape = tuple(labels.shape), tuple(logits.shape)
    if len(logits_shape) < 2 or axes not in (None, len(logits_shape)):
        wanted = "(batch, classes)" if axes else "(batch, tokens, vocabulary)"
        raise InputError(f"{where} loss: expected logits of shape {wanted}, got {logits_shape}")
    sizes = zip(labels_shape, logits_shape, strict=False)
    if len(labels_shape) != len(logits_shape) - 1 or any(a != b and None not in (a, b) for a, b in sizes):
        raise InputError(
            f"{where} loss: expected labels of shape {logits_shape[:-1]} for logits of shape {logits_shape}, "
            f"got {labels_shape}"
        )
    return labels, logits


def _cross_entropy(where: str, labels: Any, logits: Any, ignored: Any = None, also: str = "") -> Any:
    """Return -log softmax(logits)[labels], 0 where ignored; raise InputError, or return NaN, where out of range."""
    classes = logits.shape[-1]
    check_range(f"{where} loss", "label", labels, classes, ignored, also)
    sound = inside(labels, classes)
    if ignored is not None:
        # Zeroed before the softmax as well: the gradient of a NaN that is dropped afterwards would still be NaN.
        logits = ops.where(ops.expand_dims(ignored, -1), ops.zeros_like(logits), logits)
    index = ops.expand_dims(ops.where(sound, labels, 0), -1)
    losses = -ops.take_along_axis(ops.log_softmax(logits, axis=-1), index, axis=-1)[..., 0]
    losses = ops.where(sound, losses, ops.cast(float("nan"), losses.dtype))
    return losses if ignored is None else ops.where(ignored, ops.zeros_like(losses), losses)


def _token_loss(where: str, labels: Any, logits: Any, ignored: Any, tf_legacy_loss: bool, all_ignored: str) -> Any:
    check_choice(f"{where} loss: all_ignored", all_ignored, ALL_IGNORED)
    losses = _cross_entropy(where, labels, logits, ignored, f" or {IGNORED} (ignored)")
    if tf_legacy_loss:
        return _counted(where, losses, ignored)
    count = ops.sum(ops.cast(ops.logical_not(ignored), losses.dtype))
    if all_ignored == "zero":
        count = ops.maximum(count, ops.ones_like(count))
    return ops.reshape(ops.sum(losses) / count, (1,))


def _counted(where: str, losses: Any, ignored: Any) -> Any:
    """Return the vector of the losses that are not ignored."""
    if keras.backend.backend() == "jax" and concrete(ignored) is None:
        raise InputError(
            f"{where} loss: tf_legacy_loss=True returns one loss for each counted label, a number that JAX cannot know "
            "while it compiles; use tf_legacy_loss=False, or compile the model with run_eagerly=True"
        )
    counted = ops.logical_not(ops.reshape(ignored, (-1,)))
    return ops.take(ops.reshape(losses, (-1,)), ops.nonzero(counted)[0], axis=0)


def _squared_error(labels: Any, logits: Any) -> Any:
    labels = as_floats(labels)
    for what, values in (("labels", labels), ("logits", logits)):
        if len(values.shape) != 1 and (len(values.shape) != 2 or values.shape[-1] not in (1, None)):
            raise InputError(
                f"sequence classification loss: one logit means a regression: expected {what} of shape (batch,) or "
                f"(batch, 1), got {tuple(values.shape)}"
            )
    if None not in (labels.shape[0], logits.shape[0]) and labels.shape[0] != logits.shape[0]:
        raise InputError(
            f"sequence classification loss: expected {logits.shape[0]} labels, one for each sample, got "
            f"{labels.shape[0]}"
        )
    return ops.square(ops.reshape(logits, (-1,)) - ops.reshape(labels, (-1,)))
