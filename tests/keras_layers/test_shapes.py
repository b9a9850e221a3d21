"""Shapes that are known late: symbolic inputs, compiled functions, TensorFlow's dynamic axes."""

from typing import Any

import cases
import keras
import numpy as np
import pytest
import references as ref
from keras import ops

from modelwright import shape_list
from modelwright.core.errors import InputError
from modelwright.keras_layers import loss_functions as losses

BACKEND = keras.backend.backend()


def test_symbolic_layers() -> None:
    hidden = keras.Input((None, ref.HIDDEN))
    ids = keras.Input((None,), dtype="int32")
    assert cases.conv1d()(hidden).shape == (None, None, ref.CLASSES)
    assert cases.conv1d().compute_output_shape((2, 3, ref.HIDDEN)) == (2, 3, ref.CLASSES)
    assert cases.shared()(ids).shape == (None, None, ref.HIDDEN)
    assert cases.shared()(hidden, mode="linear").shape == (None, None, ref.CLASSES)
    for kind in ref.SUMMARY_TYPES:
        assert cases.summary(kind)(hidden).shape == (None, ref.HIDDEN)
        assert cases.summary(kind, **ref.SUMMARY)(hidden).shape == (None, ref.CLASSES)
    with pytest.raises(ValueError, match=r"expected inputs of shape \(..., 6\), got \(None, None, 5\)"):
        cases.conv1d()(keras.Input((None, 5)))


@pytest.mark.parametrize("given", ["tuple", "dictionary"])
def test_one_model_for_batches_of_every_size(given: str) -> None:
    hidden, index = keras.Input((None, ref.HIDDEN)), keras.Input((), dtype="int32")
    layer = cases.summary("cls_index", **ref.SUMMARY, summary_activation="tanh")
    inputs = (hidden, index) if given == "tuple" else {"hidden_states": hidden, "cls_index": index}
    model = keras.Model([hidden, index], layer(inputs))
    for batch, tokens in [(1, 1), (3, 4), (2, 7)]:
        states = ref.numbers(batch, tokens, ref.HIDDEN)
        places = np.arange(batch) % tokens
        wanted = np.tanh(states[np.arange(batch), places].astype("float64") @ ref.WEIGHT + ref.BIAS)
        np.testing.assert_allclose(model.predict([states, places], verbose=0), wanted, rtol=1e-5, atol=1e-6)


def test_symbolic_losses() -> None:
    labels, logits = keras.Input((None,), dtype="int32"), keras.Input((None, 5))
    assert losses.causal_language_modeling_loss(labels, logits).shape == (1,)
    assert losses.token_classification_loss(labels, logits, all_ignored="nan").shape == (1,)
    sample = keras.Input((), dtype="int32")
    assert losses.multiple_choice_loss(sample, keras.Input((4,))).shape == (None,)
    model = keras.Model([labels, logits], losses.masked_language_modeling_loss(labels, logits))
    found = model([ref.TOKEN_LABELS, ref.TOKEN_LOGITS])
    np.testing.assert_allclose(ops.convert_to_numpy(found), ref.expected()["masked"], atol=1e-6)
    with pytest.raises(InputError, match=r"expected labels of shape \(None, None\) for logits of .*, got \(None,\)"):
        losses.causal_language_modeling_loss(sample, logits)


def compiled(function: Any) -> Any:
    """Return the function as the backend compiles it, with all sizes open where it can."""
    match BACKEND:
        case "jax":
            import jax

            return jax.jit(function)
        case "tensorflow":
            import tensorflow as tf

            signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None, ref.CLASSES], tf.float32)]
            return tf.function(function, input_signature=signature)
        case _:
            # torch.compile is tried by the tests of training; here, what Keras does for a model's shapes.
            return function


def test_compiled_losses_of_every_size() -> None:
    function = compiled(lambda labels, logits: losses.causal_language_modeling_loss(labels, logits))
    for batch, tokens in [(3, 4), (1, 9)]:
        logits = ref.numbers(batch, tokens, ref.CLASSES)
        labels = np.arange(batch * tokens).reshape(batch, tokens) % ref.CLASSES
        labels[0, 0] = -100
        found = function(ops.cast(labels, "int32"), ops.convert_to_tensor(logits))
        wanted = ref.cross_entropy(labels, logits).sum() / (labels >= 0).sum()
        np.testing.assert_allclose(ops.convert_to_numpy(found), [wanted], rtol=1e-6, atol=1e-6)


def test_floats_with_a_fraction_are_no_labels_in_compiled_functions_either() -> None:
    def halved(labels: Any, logits: Any) -> Any:
        return losses.token_classification_loss(ops.cast(labels, "float32") - 0.5, logits)

    given = ops.cast(np.maximum(ref.TOKEN_LABELS, 0), "int32"), ops.convert_to_tensor(ref.TOKEN_LOGITS)
    if BACKEND == "torch":
        with pytest.raises(InputError, match="labels: expected integers, got -0.5"):
            compiled(halved)(*given)
    else:
        assert np.isnan(ops.convert_to_numpy(compiled(halved)(*given)))


def test_shape_list() -> None:
    assert shape_list(np.zeros((2, 3))) == [2, 3]
    assert shape_list(ops.zeros((2, 3))) == [2, 3]
    assert shape_list(keras.Input((None, 4))) == [None, None, 4]


def test_shape_list_of_a_graph() -> None:
    if BACKEND != "tensorflow":
        assert compiled(lambda x, _: ops.zeros(shape_list(x)))(ops.ones((2, 3)), ops.ones((1, 1, 5))).shape == (2, 3)
        return
    import tensorflow as tf

    seen: list[Any] = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def flat(x: Any) -> Any:
        seen.extend(shape_list(x))
        return ops.reshape(x, [seen[0] * seen[1]])

    assert flat(tf.ones((4, 3))).shape == (12,)
    assert (tf.is_tensor(seen[0]), seen[1]) == (True, 3)
    with pytest.raises(InputError, match="shape_list: expected a tensor with a known number of axes"):
        tf.function(shape_list, input_signature=[tf.TensorSpec(None, tf.float32)], autograph=False)(tf.ones(3))
