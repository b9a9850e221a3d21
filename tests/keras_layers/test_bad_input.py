"""What cannot work is refused with a sentence, on every backend the same."""

import re
from typing import Any

import cases
import keras
import numpy as np
import pytest
import references as ref

from modelwright import PretrainedConfig
from modelwright import keras_layers as layers
from modelwright.core.errors import ConfigError, InputError
from modelwright.keras_layers import loss_functions as losses

LOGITS = ref.numbers(2, 3, 5)
LABELS = np.zeros((2, 3), int)


def with_label(value: int, dtype: Any = "int64") -> Any:
    labels = LABELS.astype(dtype)
    labels[1, 2] = value
    return labels


@pytest.mark.parametrize("value", [5, 2**30, -1, -101])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (losses.causal_language_modeling_loss, "causal language modeling"),
        (losses.masked_language_modeling_loss, "masked language modeling"),
    ],
)
def test_a_label_out_of_range_is_named(function: Any, name: str, value: int) -> None:
    message = f"{name} loss: label {value} at position (1, 2) is out of range: expected 0 to 4 or -100 (ignored)"
    for labels in (with_label(value), keras.ops.convert_to_tensor(with_label(value), dtype="int32")):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            function(labels, LOGITS)


def test_small_unsigned_and_wide_labels() -> None:
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(losses.causal_language_modeling_loss(with_label(4, "uint8"), LOGITS)),
        keras.ops.convert_to_numpy(losses.causal_language_modeling_loss(with_label(4), LOGITS)),
    )
    # As 32 bits this would be the label 4.
    with pytest.raises(InputError, match=r"labels: expected integers of 32 bits, got 4294967300"):
        losses.causal_language_modeling_loss(with_label(2**32 + 4), LOGITS)


@pytest.mark.parametrize(
    ("function", "labels", "logits", "message"),
    [
        (losses.token_classification_loss, with_label(5), LOGITS, r"token classification loss: label 5 at .*\(1, 2\)"),
        (losses.multiple_choice_loss, np.array([0, -100]), LOGITS[0, :2], r"label -100 at .* expected 0 to 4$"),
        (losses.sequence_classification_loss, np.array([0, 9]), LOGITS[0, :2], "label 9 at position .1,."),
        (losses.next_sentence_prediction_loss, np.array([0, 2]), LOGITS[0, :2, :2], r"expected 0 to 1 or -100"),
        (losses.causal_language_modeling_loss, LABELS[0], LOGITS,
         r"modeling loss: expected labels of shape \(2, 3\) for logits of shape \(2, 3, 5\), got \(3,\)$"),
        (losses.causal_language_modeling_loss, LABELS[..., None], LOGITS, r"got \(2, 3, 1\)$"),
        (losses.causal_language_modeling_loss, LABELS[:, :2], LOGITS, r"got \(2, 2\)$"),
        (losses.causal_language_modeling_loss, LABELS + 0.5, LOGITS, "loss: labels: expected integers, got 0.5"),
        (losses.causal_language_modeling_loss, LABELS > 0, LOGITS, "loss: labels: expected integers, got bool"),
        (losses.causal_language_modeling_loss, LABELS[0, 0], LOGITS[0, 0],
         r"expected logits of shape \(batch, tokens, vocabulary\), got \(5,\)"),
        (losses.multiple_choice_loss, LABELS, LOGITS, r"expected logits of shape \(batch, classes\), got \(2, 3, 5\)"),
        (losses.sequence_classification_loss, np.zeros((2, 2), "float32"), LOGITS[0, :2, :1],
         r"one logit means a regression: expected labels of shape \(batch,\) or \(batch, 1\), got \(2, 2\)"),
        (losses.sequence_classification_loss, np.zeros(3, "float32"), LOGITS[0, :2, :1],
         "expected 2 labels, one for each sample, got 3"),
        (losses.question_answering_loss, LABELS, (LOGITS[0], LOGITS[0]),
         "expected labels to be a dictionary of start_position and end_position, got ndarray"),
        (losses.question_answering_loss, {"start_position": LABELS[0]}, (LOGITS[0], LOGITS[0]), "got start_position$"),
        (losses.question_answering_loss, {"start_position": LABELS[0], "end_position": LABELS[0]}, LOGITS[0],
         r"expected logits to be the pair \(start, end\), got ndarray"),
        (losses.question_answering_loss, {"start_position": LABELS[0], "end_position": np.array([0, 1, 5])},
         (LOGITS[0], LOGITS[0]), r"question answering end_position loss: label 5 at position \(2,\) .* 0 to 4$"),
    ],
)  # fmt: skip
def test_labels_and_logits_that_cannot_go_together(function: Any, labels: Any, logits: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function(labels, logits)


def test_an_unknown_option_of_a_loss() -> None:
    with pytest.raises(InputError, match=r"all_ignored: expected one of nan, zero, got 'zeros'. Did you mean 'zero'\?"):
        losses.causal_language_modeling_loss(LABELS, LOGITS, all_ignored="zeros")
    with pytest.raises(InputError, match="TaskLoss task: expected one of causal_language_modeling, .* got 'causal'"):
        layers.TaskLoss("causal")
    with pytest.raises(InputError, match=r"takes no sample_weight; give the labels .* the value -100"):
        layers.TaskLoss("causal_language_modeling")(LABELS, LOGITS, sample_weight=np.ones(2))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((ref.HIDDEN_STATES, ref.CLS_INDEX, ref.CLS_INDEX), "too many inputs: expected hidden .*, got 3"),
        ([], "expected hidden states, got an empty list"),
        ({"hidden": ref.HIDDEN_STATES}, "expected inputs hidden_states and cls_index, got hidden$"),
        (ref.LOGITS, r"expected hidden states of shape \(batch, tokens, hidden_size\), got \(3, 5\)"),
        ((ref.HIDDEN_STATES, ref.CLS_INDEX + 1), r"cls_index 4 at position \(2,\) is out of range: expected 0 to 3"),
        ((ref.HIDDEN_STATES, -ref.CLS_INDEX), r"cls_index -2 at position \(0,\) is out of range"),
        ((ref.HIDDEN_STATES, ref.CLS_INDEX + 0.5), "cls_index: expected integers, got 2.5"),
        ((ref.HIDDEN_STATES, np.zeros((3, 2), int)), r"expected cls_index of 1 axes, or one more .* \(3, 2\)"),
    ],
)  # fmt: skip
def test_inputs_of_a_summary(inputs: Any, message: str) -> None:
    layer = layers.TFSequenceSummary({"summary_type": "cls_index"})
    with pytest.raises((InputError, ValueError), match=message):
        layer.call(inputs)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"summary_type": "attn"}, NotImplementedError, r"summary_type 'attn' .* is implemented by no library"),
        ({"summary_type": "lst"}, ValueError, r"one of cls_index, first, last, mean, got 'lst'. Did you mean"),
        ({"summary_activation": "tahn"}, ValueError, r"config.summary_activation: .* Did you mean 'tanh'\?"),
        ({"summary_first_dropout": 1.0}, ConfigError, "expected a probability from 0 to below 1, got 1.0"),
        ({"summary_use_proj": True}, ConfigError, "config.summary_use_proj needs config.hidden_size"),
    ],
)  # fmt: skip
def test_configurations_of_a_summary(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    for config in (fields, PretrainedConfig(**fields)):
        with pytest.raises(error, match=message):
            layers.TFSequenceSummary(config)


def test_a_configuration_of_the_wrong_type() -> None:
    for error in (TypeError, ValueError):
        with pytest.raises(error, match="expected config to be a PretrainedConfig or a dictionary, got str"):
            layers.TFSequenceSummary("gpt2")


def test_sizes_and_shapes_of_layers() -> None:
    with pytest.raises(InputError, match="TFConv1D nf: expected an integer above 0, got 0"):
        layers.TFConv1D(0, 4)
    with pytest.raises(InputError, match="TFSharedEmbeddings hidden_size: expected an integer above 0, got '8'"):
        layers.TFSharedEmbeddings(4, "8")
    with pytest.raises(InputError, match="expected initializer_range to be a number above 0, got -0.02"):
        layers.get_initializer(-0.02)
    with pytest.raises(ValueError, match=r"expected inputs of shape \(..., 6\), got \(3, 5\)"):
        cases.conv1d()(ref.LOGITS)
    with pytest.raises(ValueError, match=r"expected inputs of shape \(..., 6\) in mode linear, got \(3, 5\)"):
        cases.shared()(ref.LOGITS, mode="linear")
    with pytest.raises(
        ValueError, match=r"mode: expected one of embedding, linear, got 'linar'. Did you mean 'linear'\?"
    ):
        cases.shared()(ref.LOGITS, mode="linar")
    with pytest.raises(ValueError, match=r"id 5 at position \(0, 1\) is out of range: expected 0 to 4"):
        cases.shared()(np.array([[0, 5]]))
    with pytest.raises(InputError, match=r"activation: expected one of gelu, .* Did you mean 'gelu_new'\?"):
        layers.get_tf_activation("gelu_nw")
