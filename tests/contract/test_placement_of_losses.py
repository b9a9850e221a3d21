"""The weight of a head in the loss is found where it is; and pairs of models follow their parts."""

import torch

from modelwright import EncoderDecoderConfig, EncoderDecoderModel, ProphetNetConfig, ProphetNetForConditionalGeneration

SMALL = {"hidden_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1, "vocab_size": 11}
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
DECODER = {**BERT, "is_decoder": True, "add_cross_attention": True}


def test_the_fused_loss_reads_an_offloaded_head(tmp_path):
    heads = {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}
    config = ProphetNetConfig(**SMALL, **heads, tie_word_embeddings=False)
    model = ProphetNetForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    placed = type(model).from_pretrained(tmp_path, device_map={"": "disk"})
    ids = torch.tensor([[2, 3, 4, 1]])
    with torch.no_grad():
        assert torch.equal(placed(ids, labels=ids).loss, model(ids, labels=ids).loss)
    assert placed.lm_head.weight.is_meta


def test_a_pair_is_placed_as_its_parts_are(monkeypatch):
    pair = EncoderDecoderModel(EncoderDecoderConfig(encoder=BERT, decoder=DECODER))
    assert pair._no_split_modules == ["BertLayer", "BertLayer"]
    assert pair._placement_refusal is None
    monkeypatch.setattr(type(pair.encoder), "_placement_refusal", "it is one piece")
    assert pair._placement_refusal == "it is one piece"
