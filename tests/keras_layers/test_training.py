"""Models with these layers and losses train: compiled or not, in half precision, and as the example does it."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import references as ref
from keras import ops

from modelwright import PretrainedConfig
from modelwright import keras_layers as layers
from modelwright.core.errors import InputError

BACKEND = keras.backend.backend()
IDS = np.array([[1, 4, 2, 0], [3, 3, 1, 2], [0, 2, 4, 1]])
LEARNING_RATE = 0.5


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "keras_gpt_block.py"
    spec = importlib.util.spec_from_file_location("keras_gpt_block", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_learns_and_is_the_same_after_reloading(example: ModuleType, tmp_path: Path) -> None:
    model, losses = example.train(jit_compile=False if BACKEND == "torch" else "auto", verbose=0)
    assert losses[0] == pytest.approx(np.log(11), abs=0.3)
    assert losses[-1] < 0.5
    ids, labels = example.data(8)
    model.save(tmp_path / "block.keras")
    again = keras.models.load_model(tmp_path / "block.keras")
    assert again.config == model.config
    np.testing.assert_allclose(again.predict(ids, verbose=0), model.predict(ids, verbose=0), atol=1e-6)
    assert again.evaluate(ids, labels, verbose=0) == pytest.approx(model.evaluate(ids, labels, verbose=0), abs=1e-6)


def model_of_two_layers(task: str = "causal_language_modeling", dtype: Any = None, **options: Any) -> Any:
    """Return embeddings and a Conv1D, (batch, tokens) -> (batch, tokens, classes), with the weights of `references`."""
    ids = keras.Input((None,), dtype="int32")
    embeddings = layers.TFSharedEmbeddings(ref.CLASSES, ref.HIDDEN, dtype=dtype)
    conv1d = layers.TFConv1D(ref.CLASSES, ref.HIDDEN, dtype=dtype)
    model = keras.Model(ids, conv1d(embeddings(ids)))
    embeddings.set_weights([ref.TABLE])
    conv1d.set_weights([ref.WEIGHT, ref.BIAS[None]])
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss=layers.TaskLoss(task), **options)
    return model


def closed_form(steps: int) -> list[float]:
    """Return the losses of gradient descent on `model_of_two_layers`, in NumPy and fp64."""
    table, weight, bias = (value.astype("float64") for value in (ref.TABLE, ref.WEIGHT, ref.BIAS))
    counted = ref.TOKEN_LABELS >= 0
    losses = []
    for _ in range(steps):
        hidden = table[IDS]
        logits = hidden @ weight + bias
        losses.append(ref.cross_entropy(ref.TOKEN_LABELS, logits).sum() / counted.sum())
        softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        slope = (softmax - np.eye(ref.CLASSES)[np.maximum(ref.TOKEN_LABELS, 0)]) * counted[..., None] / counted.sum()
        of_table = np.zeros_like(table)
        np.add.at(of_table, IDS, slope @ weight.T)
        weight = weight - LEARNING_RATE * np.einsum("bth,btc->hc", hidden, slope)
        bias = bias - LEARNING_RATE * slope.sum((0, 1))
        table = table - LEARNING_RATE * of_table
    return losses


@pytest.mark.parametrize("options", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_gradient_descent_compiled_or_not(options: dict[str, Any]) -> None:
    model = model_of_two_layers(**options)
    found = [float(model.train_on_batch(IDS, ref.TOKEN_LABELS)) for _ in range(4)]
    wanted = closed_form(4)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
    assert wanted[-1] < wanted[0]


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype: str) -> None:
    model = model_of_two_layers(dtype=dtype, jit_compile=BACKEND != "torch")
    logits = model(IDS)
    assert keras.backend.standardize_dtype(logits.dtype) == dtype.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    loss = layers.TaskLoss("causal_language_modeling")(ref.TOKEN_LABELS, logits)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    # The logits are rounded, the loss of them is not.
    rounded = ops.convert_to_numpy(ops.cast(logits, "float32"))
    wanted = ref.cross_entropy(ref.TOKEN_LABELS, rounded).sum() / (ref.TOKEN_LABELS >= 0).sum()
    assert ops.convert_to_numpy(loss) == pytest.approx(wanted, abs=1e-6)
    first = float(model.train_on_batch(IDS, ref.TOKEN_LABELS))
    assert first == pytest.approx(closed_form(1)[0], abs=0.05)
    for _ in range(10):
        last = float(model.train_on_batch(IDS, ref.TOKEN_LABELS))
    assert last < first


def refused(message: str, ids: Any, labels: Any) -> None:
    """Check that a wrong number raises while values are known, and otherwise makes the loss NaN."""
    with pytest.raises(InputError, match=message):
        model_of_two_layers(run_eagerly=True).train_on_batch(ids, labels)
    if BACKEND != "torch":  # What torch compiles is interrupted by our checks, so it raises there too.
        assert np.isnan(model_of_two_layers(jit_compile=True).train_on_batch(ids, labels))


def test_a_wrong_label_stops_training_or_makes_its_loss_nan() -> None:
    labels = ref.TOKEN_LABELS.copy()
    labels[1, 2] = ref.CLASSES
    refused(r"label 5 at position \(1, 2\) is out of range", IDS, labels)


def test_a_wrong_id_stops_the_call_or_makes_its_loss_nan() -> None:
    refused(r"id 7 at position \(0, 2\) is out of range", np.where(IDS == 2, 7, IDS), ref.TOKEN_LABELS)


def test_the_vector_of_losses_cannot_be_compiled_by_jax() -> None:
    class Legacy(layers.TFCausalLanguageModelingLoss):
        config = PretrainedConfig(tf_legacy_loss=True)

    model = model_of_two_layers()
    model.compile("sgd", loss=Legacy().hf_compute_loss, jit_compile=BACKEND == "jax")
    if BACKEND == "jax":
        with pytest.raises(
            InputError, match=r"a number that JAX cannot know while it compiles; use tf_legacy_loss=False"
        ):
            model.train_on_batch(IDS, ref.TOKEN_LABELS)
    else:
        assert float(model.train_on_batch(IDS, ref.TOKEN_LABELS)) == pytest.approx(closed_form(1)[0], abs=1e-6)


def test_losses_of_samples_take_weights_and_reductions() -> None:
    per_sample = ref.cross_entropy(ref.LABELS, ref.LOGITS)
    weights = np.array([1.0, 0.0, 2.0])
    for reduction, wanted in {
        "sum": per_sample.sum(),
        "sum_over_batch_size": per_sample.mean(),
        None: per_sample,
    }.items():
        loss = layers.TaskLoss("sequence_classification", reduction=reduction)
        np.testing.assert_allclose(ops.convert_to_numpy(loss(ref.LABELS, ref.LOGITS)), wanted, rtol=1e-6)
    loss = layers.TaskLoss("multiple_choice", reduction="sum")
    found = loss(ref.LABELS, ref.LOGITS, sample_weight=weights)
    assert float(found) == pytest.approx((per_sample * weights).sum(), rel=1e-6)


def test_tokens_that_keras_masks_are_ignored() -> None:
    ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(5, ref.HIDDEN, mask_zero=True)(ids)
    model = keras.Model(ids, layers.TFConv1D(ref.CLASSES, ref.HIDDEN)(embedded))
    logits = model(IDS)
    labels = np.maximum(ref.TOKEN_LABELS, 0)
    found = ops.convert_to_numpy(layers.TaskLoss("causal_language_modeling")(labels, logits))
    counted = IDS != 0
    wanted = (ref.cross_entropy(labels, ops.convert_to_numpy(logits)) * counted).sum() / counted.sum()
    assert found == pytest.approx(wanted, abs=1e-6)
