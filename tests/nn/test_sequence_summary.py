from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modelwright.core.errors import ConfigError, InputError
from modelwright.nn.sequence_summary import SequenceSummary

HIDDEN = torch.randn(2, 5, 3)


def make(**config):
    return SequenceSummary(SimpleNamespace(hidden_size=3, num_labels=4, **config))


@pytest.mark.parametrize(
    ("kind", "expected"), [("last", HIDDEN[:, -1]), ("first", HIDDEN[:, 0]), ("mean", HIDDEN.mean(1))]
)
def test_kinds(kind, expected):
    assert torch.equal(make(summary_type=kind)(HIDDEN), expected)


def test_the_position_of_the_class_token():
    summary = make(summary_type="cls_index")
    assert torch.equal(summary(HIDDEN), HIDDEN[:, -1])
    assert torch.equal(summary(HIDDEN, torch.tensor([1, 3])), torch.stack([HIDDEN[0, 1], HIDDEN[1, 3]]))
    choices = torch.stack([HIDDEN, HIDDEN + 1], dim=1)
    index = torch.tensor([[0, 1], [2, 4]])
    assert torch.equal(summary(choices, index)[1, 1], choices[1, 1, 4])
    with pytest.raises(InputError, match=r"cls_index: expected the shape \(2, 2\).*got \(2,\)"):
        summary(choices, torch.tensor([1, 3]))


def test_projection_activation_and_dropout():
    assert make(summary_use_proj=True)(HIDDEN).shape == (2, 3)
    summary = make(summary_use_proj=True, summary_proj_to_labels=True, summary_activation="tanh")
    assert torch.equal(summary(HIDDEN), torch.tanh(summary.summary(HIDDEN[:, -1])))
    assert summary(HIDDEN).shape == (2, 4)
    dropped = make(summary_first_dropout=0.5, summary_last_dropout=0.25)
    assert (dropped.first_dropout.p, dropped.last_dropout.p) == (0.5, 0.25)
    assert isinstance(summary.first_dropout, nn.Identity)


def test_bad_types():
    with pytest.raises(NotImplementedError, match="'attn' does not exist yet"):
        make(summary_type="attn")
    with pytest.raises(ConfigError, match="one of last, first, mean, cls_index, got 'middle'"):
        make(summary_type="middle")
