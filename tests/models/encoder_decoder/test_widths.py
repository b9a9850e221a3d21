"""How wide an encoder's states are: what the encoder says of itself, and what a call may bring instead of a source."""

import pytest
import torch
from small_bert import BERT

from modelwright import BertConfig, EncoderDecoderConfig, EncoderDecoderModel, ReformerConfig, ReformerModel
from modelwright.core.errors import InputError

IDS = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
RANDOM = torch.Generator().manual_seed(0)
SOURCE = torch.randint(3, 40, (2, 9), generator=RANDOM)
LABELS = torch.randint(3, 40, (2, 6), generator=RANDOM)


@pytest.mark.parametrize("narrow", [16, 32])
def test_a_reformer_is_an_encoder_whose_states_are_twice_as_wide(tmp_path, narrow):
    sizes = {"hidden_size": 16, "attention_head_size": 8, "num_attention_heads": 2, "feed_forward_size": 16}
    chunks = {"attn_layers": ["local", "lsh"], "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4}
    encoder = ReformerConfig(
        vocab_size=40, axial_pos_embds=False, max_position_embeddings=32, num_buckets=2, hash_seed=0, **sizes, **chunks
    )
    decoder = BertConfig(**{**BERT, "hidden_size": narrow})
    torch.manual_seed(0)
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **IDS))
    # With states as wide as the decoder nothing is projected.
    assert (model.enc_to_dec_proj is None) == (narrow == 32)
    model(SOURCE, labels=LABELS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())
    model.eval().save_pretrained(tmp_path)
    loaded = EncoderDecoderModel.from_pretrained(tmp_path, strict=True)
    with torch.no_grad():
        expected = model(SOURCE, labels=LABELS).logits
        assert torch.equal(loaded(SOURCE, labels=LABELS).logits, expected)
        states = ReformerModel.forward(model.encoder, SOURCE).last_hidden_state
        assert torch.equal(model(encoder_outputs=(states,), labels=LABELS).logits, expected)
    assert torch.equal(
        model.generate(SOURCE, max_new_tokens=5, num_beams=2),
        model.generate(SOURCE, max_new_tokens=5, num_beams=2, use_cache=False),
    )


@pytest.mark.parametrize("wide", [16, 24])
def test_encoder_outputs_of_another_width_are_refused(wide):
    encoder, decoder = BertConfig(**BERT), BertConfig(**{**BERT, "hidden_size": wide})
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **IDS))
    with pytest.raises(InputError, match=r"states in encoder_outputs .* \(rows, tokens, 16\), .* got \(2, 9, 17\)"):
        model(encoder_outputs=(torch.ones(2, 9, 17),), labels=LABELS)
