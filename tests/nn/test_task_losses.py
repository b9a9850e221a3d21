import pytest
import torch
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.nn.task_losses import (
    last_token_index,
    sequence_classification_loss,
    span_loss,
    token_classification_loss,
)

LOGITS = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -2.0]])


def test_the_labels_decide_the_loss():
    classes, numbers = torch.tensor([2, 0]), torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert sequence_classification_loss(LOGITS, classes, None) == F.cross_entropy(LOGITS, classes)
    assert sequence_classification_loss(LOGITS, numbers, None) == F.binary_cross_entropy_with_logits(LOGITS, numbers)
    assert sequence_classification_loss(LOGITS, numbers, "regression") == F.mse_loss(LOGITS, numbers)
    one = LOGITS[:, :1]
    assert sequence_classification_loss(one, torch.tensor([1, 2]), None) == F.mse_loss(
        one[:, 0], torch.tensor([1.0, 2])
    )


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match=r"one class number for each of 2 sequences, got shape \(3,\)"):
        sequence_classification_loss(LOGITS, torch.tensor([1, 2, 0]), None)
    with pytest.raises(InputError, match=r"expected the shape \(2, 3\) \(regression\), got \(2,\)"):
        sequence_classification_loss(LOGITS, torch.tensor([1.0, 2.0]), "regression")


def test_tokens_and_spans():
    labels = torch.tensor([2, -100])
    assert token_classification_loss(LOGITS[None], labels[None]) == F.cross_entropy(LOGITS[:1], labels[:1])
    start = torch.tensor([0, 2])
    for outside in (7, -1):
        end = torch.tensor([[1], [outside]])
        expected = (F.cross_entropy(LOGITS, start) + F.cross_entropy(LOGITS[:1], end[:1, 0])) / 2
        torch.testing.assert_close(span_loss(LOGITS, LOGITS, start, end), expected)


def test_the_last_token_is_found_on_both_sides():
    ids = torch.tensor([[0, 5, 6, 0], [7, 0, 8, 9], [0, 0, 0, 0]])
    assert last_token_index(ids, 3, 4, 0).tolist() == [2, 3, 0]
    assert last_token_index(ids[:1], 1, 4, None).tolist() == [3]
    with pytest.raises(InputError, match="pad_token_id is None, so the last token of each of 3 rows"):
        last_token_index(ids, 3, 4, None)
