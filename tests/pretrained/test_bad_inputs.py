"""Inputs that do not fit a model: one sentence of InputError, which is also what torch raises."""

import pytest
import torch

from modelwright import (
    BertConfig,
    BertForTokenClassification,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2Model,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)
from modelwright.core.errors import InputError, UnknownArgumentError

IDS = torch.arange(1, 7).view(2, 3)
BERT = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
}
T5 = {"vocab_size": 11, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}


def bert():
    return BertModel(BertConfig(**BERT))


def t5():
    return T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0))


def prophetnet():
    sizes = {"hidden_size": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 8}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    heads = {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}
    return ProphetNetForConditionalGeneration(ProphetNetConfig(vocab_size=11, **sizes, **layers, **heads))


def bert_to_bert():
    parts = BertConfig(**BERT), BertConfig(**{**BERT, "vocab_size": 10})
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*parts, decoder_start_token_id=1, pad_token_id=0)
    return EncoderDecoderModel(config)


@pytest.mark.parametrize(
    ("keywords", "also", "text"),
    [
        ({"input_ids": [[1, 2]]}, TypeError, "BertModel: expected input_ids to be a tensor, got list; pass torch.t"),
        ({"input_ids": IDS, "attention_mask": [[1] * 3] * 2}, TypeError, "expected attention_mask to be a tensor"),
        ({"input_ids": IDS.float()}, TypeError, r"expected input_ids to be whole numbers .*, got torch.float32"),
        ({"input_ids": IDS[:0]}, ValueError, r"at least one row and one token in input_ids, got shape \(0, 3\)"),
        ({"input_ids": IDS[:, :0]}, ValueError, r"at least one row and one token in input_ids, got shape \(2, 0\)"),
        ({"input_ids": IDS[0]}, ValueError, r"of shape \(rows, tokens\), got \(3,\); for one text, pass ids\[None\]"),
        ({"input_ids": IDS + 9}, IndexError, "expected ids from 0 to 10 in input_ids"),
        ({"inputs_embeds": torch.ones(2, 3, 7)}, ValueError, r"of shape \(rows, tokens, 8\), got \(2, 3, 7\)"),
        ({"input_ids": IDS, "token_type_ids": IDS}, IndexError, "expected token_type_ids from 0 to 1, .* got 2"),
        ({"input_ids": IDS, "position_ids": IDS + 5}, IndexError, "expected position_ids from 0 to 7, .* got 8"),
        ({"input_ids": IDS, "token_type_ids": 0 * IDS[:, :2]}, ValueError, r"token_type_ids of the shape of the t"),
        ({"input_ids": IDS, "atention_mask": None}, TypeError, "unknown keyword 'atention_mask'. Did you mean 'atten"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named(keywords, also, text):
    with pytest.raises((InputError, UnknownArgumentError), match=text) as caught:
        bert()(**keywords)
    assert isinstance(caught.value, also)


def test_positions_of_gpt2():
    model = GPT2Model(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=4))
    with pytest.raises(InputError, match="expected position_ids from 0 to 3, the rows of wpe, got 4"):
        model(IDS, position_ids=IDS)


def test_an_error_that_no_input_explains_stays_what_it_is():
    model = bert()
    model.encoder.layer[0].forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(IDS)
    model.encoder.layer[0].forward = lambda *_, **__: {}["x"]
    with pytest.raises(KeyError):
        model(IDS)


def test_labels_that_are_no_class():
    model = BertForTokenClassification(BertConfig(**BERT, num_labels=3))
    with pytest.raises(InputError, match="labels: expected classes from 0 to 2, or -100 .*, got 3") as caught:
        model(IDS, labels=torch.full_like(IDS, 3))
    assert isinstance(caught.value, IndexError)
    with pytest.raises(InputError, match="labels: expected 6 whole numbers, one for each row of scores, got 4 of"):
        model(IDS, labels=IDS[:, :2])
    with pytest.raises(InputError, match="labels: expected 6 whole numbers, .* got 6 of torch.float32"):
        model(IDS, labels=torch.ones(2, 3))


@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("make", [t5, prophetnet, bert_to_bert])
def test_labels_that_are_no_token(make, column):
    model, labels = make(), torch.tensor([[3, 4, -100]]).repeat(2, 1)
    model(IDS, labels=labels)
    for wrong in (model.config.vocab_size, -1):
        labels[1, column] = wrong
        with pytest.raises(
            InputError, match=rf"labels.* from 0 to {model.config.vocab_size - 1}.* got {wrong}"
        ) as caught:
            model(IDS, labels=labels)
        assert isinstance(caught.value, IndexError)
    with pytest.raises(InputError, match=r"in input_ids, .* got 99"):
        model(IDS, decoder_input_ids=torch.full_like(IDS, 99), labels=IDS)


def test_what_a_decoder_does_not_take():
    model = T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0))
    with pytest.raises(InputError, match="expected encoder_outputs to be what the encoder returns, .* got Tensor"):
        model(encoder_outputs=torch.ones(2, 3, 8), decoder_input_ids=IDS)
    with pytest.raises(InputError, match=r"encoder_outputs to have the shape \(rows, tokens, 8\), .* got \(2, 3, 9\)"):
        model(encoder_outputs=(torch.ones(2, 3, 9),), decoder_input_ids=IDS)
    classifier = T5ForSequenceClassification(T5Config(**T5, decoder_start_token_id=0))
    with pytest.raises(InputError, match=r"must have the same shape \(1, 3\), got \(1, 2\)"):
        classifier(torch.tensor([[3, 4, 1]]), decoder_input_ids=IDS[:1, :2])
