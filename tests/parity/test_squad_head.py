"""SQuADHead and SequenceSummary against transformers 4.57.1's copies for XLM."""

import pytest
import torch

from modelwright.nn.sequence_summary import SequenceSummary
from modelwright.pretrained.squad_head import SQuADHead

pytestmark = pytest.mark.parity

HIDDEN = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))


def pair():
    from transformers import XLMConfig
    from transformers.models.xlm.modeling_xlm import XLMSQuADHead

    config = XLMConfig(emb_dim=8, start_n_top=3, end_n_top=2)
    torch.manual_seed(1)
    theirs = XLMSQuADHead(config)
    mine = SQuADHead(config)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


@pytest.mark.parametrize("mask", [None, torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1, 1]])])
def test_search(mask):
    theirs, mine = pair()
    a, b = (head(HIDDEN, p_mask=mask, cls_index=torch.tensor([0, 6]), return_dict=True) for head in (theirs, mine))
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(b[name], a[name])
    assert isinstance(mine(HIDDEN), tuple)


@pytest.mark.parametrize("answerable", [False, True])
def test_loss(answerable):
    theirs, mine = pair()
    labels = {"start_positions": torch.tensor([[1], [3]]), "end_positions": torch.tensor([2, 5])}
    if answerable:
        labels |= {"cls_index": torch.tensor([0, 1]), "is_impossible": torch.tensor([1.0, 0.0])}
    expected = theirs(HIDDEN, **{name: value.clone() for name, value in labels.items()})[0]
    torch.testing.assert_close(mine(HIDDEN, **labels)[0], expected)


@pytest.mark.parametrize("kind", ["last", "first", "mean", "cls_index"])
def test_summary(kind):
    from transformers import XLMConfig
    from transformers.models.xlm.modeling_xlm import XLMSequenceSummary

    config = XLMConfig(emb_dim=8, summary_type=kind, summary_use_proj=True, summary_activation="tanh", num_labels=3)
    theirs, mine = XLMSequenceSummary(config), SequenceSummary(config)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    index = torch.tensor([2, 4]) if kind == "cls_index" else None
    torch.testing.assert_close(mine.eval()(HIDDEN, index), theirs.eval()(HIDDEN, index))
