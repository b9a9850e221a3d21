"""Every layer and loss gives the numbers of its closed form, in fp32, within 1e-6."""

from typing import Any

import cases
import keras
import numpy as np
import pytest
import references as ref
from keras import ops

from modelwright import keras_layers as layers
from modelwright.keras_layers import loss_functions as losses
from modelwright.keras_layers.activations import FUNCTIONS
from modelwright.nn.activations import ACT2FN

EXPECTED = ref.expected()


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    return cases.computed()


def near(found: Any, wanted: Any) -> None:
    found, wanted = ops.convert_to_numpy(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.astype("float64"), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_closed_form(name: str, computed: dict[str, Any]) -> None:
    assert computed[name].dtype == "float32"
    near(computed[name], EXPECTED[name])


def test_every_case_has_a_closed_form(computed: dict[str, Any]) -> None:
    assert set(computed) == set(EXPECTED)


def test_configurations_name_the_same_activations_for_torch_and_keras() -> None:
    assert set(FUNCTIONS) == set(ACT2FN) == set(ref.ACTIVATIONS)


TOKEN_LOSSES = [
    losses.causal_language_modeling_loss,
    losses.masked_language_modeling_loss,
    losses.token_classification_loss,
]


@pytest.mark.parametrize("function", TOKEN_LOSSES)
def test_a_batch_of_ignored_labels(function: Any) -> None:
    labels = np.full((2, 3), -100)
    logits = ref.numbers(2, 3, 5)
    near(function(labels, logits), [0.0])
    assert np.isnan(ops.convert_to_numpy(function(labels, logits, all_ignored="nan")))
    assert tuple(function(labels, logits, tf_legacy_loss=True).shape) == (0,)


def test_the_configuration_asks_for_nan_as_upstream() -> None:
    labels, logits = np.full((2, 3), -100), ref.numbers(2, 3, 5)
    mixin = layers.TFCausalLanguageModelingLoss
    assert np.isnan(ops.convert_to_numpy(cases.loss(mixin, labels, logits, loss_when_all_ignored="nan")))
    near(cases.loss(mixin, labels, logits), [0.0])
    near(mixin().hf_compute_loss(ref.TOKEN_LABELS, ref.TOKEN_LOGITS), EXPECTED["causal"])


def test_ignored_logits_may_be_anything_and_get_no_gradient() -> None:
    logits = ref.TOKEN_LOGITS.copy()
    logits[ref.TOKEN_LABELS == -100] = np.nan
    near(losses.causal_language_modeling_loss(ref.TOKEN_LABELS, logits), EXPECTED["causal"])
    counted = (ref.TOKEN_LABELS >= 0)[..., None]
    softmax = np.exp(ref.TOKEN_LOGITS) / np.exp(ref.TOKEN_LOGITS).sum(-1, keepdims=True)
    wanted = np.where(counted, softmax - np.eye(5)[np.maximum(ref.TOKEN_LABELS, 0)], 0.0) / counted.sum()
    near(gradient(lambda x: losses.causal_language_modeling_loss(ref.TOKEN_LABELS, x)[0], logits), wanted)


def gradient(function: Any, at: Any) -> Any:
    """Return the gradient of a scalar function, with the backend's own means."""
    match keras.backend.backend():
        case "torch":
            x = ops.convert_to_tensor(at).detach().requires_grad_()
            function(x).backward()
            return x.grad
        case "jax":
            import jax

            return jax.grad(function)(ops.convert_to_tensor(at))
        case _:
            import tensorflow as tf

            x = tf.convert_to_tensor(at)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_fp32(dtype: str) -> None:
    # 9000 losses of about 11 are more than fp16 can hold, and bf16 stops counting at 256.
    logits = ops.cast(np.tile(np.array([8, 0, -3.25], "float32"), (9000, 1))[None], dtype)
    labels = np.full((1, 9000), 2)
    found = losses.causal_language_modeling_loss(labels, logits)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    near(found, [np.log(np.exp(8) + 1 + np.exp(-3.25)) + 3.25])
    hidden = ops.cast(np.full((1, 3000, 2), 100.0), dtype)
    mean = layers.TFSequenceSummary({"summary_type": "mean"}, dtype=dtype)(hidden)
    assert keras.backend.standardize_dtype(mean.dtype) == dtype
    near(ops.cast(mean, "float32"), [[100.0, 100.0]])


@pytest.mark.parametrize("shape", [(2, 7), (1, 3)])
def test_summaries_of_choices_take_the_axis_of_tokens(shape: tuple[int, int]) -> None:
    hidden = ref.numbers(2, 3, *shape)
    index = np.array([[0, 1, 0], [0, 0, 0]]) % shape[0]
    wanted = np.take_along_axis(hidden, index[..., None, None], 2)[:, :, 0]
    for given in (index, index[..., None]):
        near(cases.summary("cls_index")({"hidden_states": hidden, "cls_index": given}), wanted)
        near(cases.summary("cls_index")(hidden, cls_index=given), wanted)
    near(cases.summary("cls_index")(hidden), hidden[:, :, -1])
    near(cases.summary("mean")(hidden), hidden.astype("float64").mean(2))


def test_both_dropouts_act_in_training_only() -> None:
    rates = {"summary_first_dropout": 0.5, "summary_last_dropout": 0.25}
    hidden = np.ones((50, 2, 100), "float32")
    for name, rate in rates.items():
        layer = layers.TFSequenceSummary({"summary_type": "first", name: rate})
        near(layer(hidden), np.ones((50, 100)))
        found = ops.convert_to_numpy(layer(hidden, training=True))
        assert (found == 0).mean() == pytest.approx(rate, abs=0.05)
        near(found[found != 0], np.full((found != 0).sum(), 1 / (1 - rate)))


def test_the_projection_goes_to_the_labels_or_to_the_hidden_size() -> None:
    hidden = ref.HIDDEN_STATES
    fields = {"summary_use_proj": True, "hidden_size": 8, "num_labels": 3}
    to_labels = layers.TFSequenceSummary({**fields, "summary_proj_to_labels": True})
    assert (tuple(to_labels(hidden).shape), to_labels.summary.name) == ((3, 3), "summary")
    assert tuple(layers.TFSequenceSummary(fields)(hidden).shape) == (3, 8)


def test_the_initializer_is_cut_at_two_deviations() -> None:
    sample = ops.convert_to_numpy(layers.get_initializer(0.02)((400, 400)))
    # Keras on torch tries each number four times, so that about four in a million are not cut.
    assert (np.abs(sample) > 0.04).mean() <= (1e-4 if keras.backend.backend() == "torch" else 0)
    assert sample.std() == pytest.approx(0.0176, rel=0.01)
    layer = layers.TFSharedEmbeddings(400, 100)
    layer.build()
    assert ops.convert_to_numpy(layer.weight).std() == pytest.approx(0.88 * 100**-0.5, rel=0.02)
