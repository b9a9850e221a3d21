"""Padding without a mask is said once."""

import warnings

import pytest
import torch

from modelwright.models.bert.backbone import BertModel
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.gpt2.backbone import GPT2Model
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModel

RIGHT, LEFT, MIDDLE = torch.tensor([[1, 2], [1, 0]]), torch.tensor([[0, 2], [1, 2]]), torch.tensor([[1, 0, 1]])


@pytest.fixture
def make(toys):
    return lambda **config: toys.ToyModel(toys.ToyConfig(**config))


@pytest.mark.parametrize("ids", [LEFT, RIGHT], ids=["left", "right"])
def test_padding_at_either_end_is_said_once(make, said, ids):
    model = make(pad_token_id=0)
    for each in (model, model, make(pad_token_id=0)):
        each.warn_if_padding_and_no_attention_mask(ids, None)
    (message,) = said()
    assert message.startswith("ToyModel: a row begins or ends with the pad token 0, and there is no attention_mask")


def test_models_look_where_4x_does(said):
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(**settings, vocab_size=5, pad_token_id=0))(LEFT)
    gpt2 = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=5, pad_token_id=0))
    gpt2(RIGHT)
    config = ReformerConfig(
        attn_layers=["local"], axial_pos_embds=False, hidden_size=8, num_attention_heads=2, attention_head_size=4,
        feed_forward_size=8, max_position_embeddings=64, vocab_size=5, pad_token_id=0,
    )  # fmt: skip
    ReformerModel(config).eval()(LEFT)
    assert [message.partition(":")[0] for message in said()] == ["BertModel", "GPT2Model", "ReformerModel"]


def test_what_is_no_padding(make, said):
    make(pad_token_id=0).warn_if_padding_and_no_attention_mask(MIDDLE, None)
    make(pad_token_id=0).warn_if_padding_and_no_attention_mask(LEFT, torch.ones_like(LEFT))
    make().warn_if_padding_and_no_attention_mask(LEFT, None)
    assert said() == []


def test_an_id_with_two_meanings_is_named(make, said):
    make(pad_token_id=0, eos_token_id=0, bos_token_id=3).warn_if_padding_and_no_attention_mask(RIGHT, None)
    assert "If these are no padding but eos_token_id, which is the same id" in said()[0]


def test_nothing_is_looked_at_while_tracing(make, said):
    model = make(pad_token_id=0)

    def look(ids):
        model.warn_if_padding_and_no_attention_mask(ids, None)
        return ids + 1

    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(look, (LEFT,), check_trace=False)
    assert said() == []
