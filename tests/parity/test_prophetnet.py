"""ProphetNet against transformers 4.57.1: all streams, losses, gradients, caches, generation, checkpoints of either side.

With `relative_bias_layout="transformers"`, and with the paper's layout where one token is decoded after the other.
"""

import inspect

import pytest
import torch

from modelwright.attention.caches import EncoderDecoderCache
from modelwright.core import logging
from modelwright.models.prophetnet import modeling_prophetnet as ours
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    # 4.57.1 makes the decoder's cache with as many layers as the encoder has.
    "num_encoder_layers": 3,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 2,
    "max_position_embeddings": 30,
    "num_buckets": 8,
    "relative_max_distance": 12,
    "ngram": 3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
SEQ2SEQ, CAUSAL = "ProphetNetForConditionalGeneration", "ProphetNetForCausalLM"
RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(3, 50, (2, 9), generator=RANDOM)
TARGET = torch.randint(3, 50, (2, 7), generator=RANDOM)
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
TARGET_MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
LABELS = torch.where(TARGET_MASK.bool(), TARGET, -100)


def pair(name=SEQ2SEQ, layout="transformers", **config):
    """Their model and ours with its weights, large enough for a wrong mask or bias to show."""
    import transformers

    config = {**SMALL, **config}
    torch.manual_seed(1)
    theirs = getattr(transformers, name)(transformers.ProphetNetConfig(**config))
    with torch.no_grad():
        for parameter_name, parameter in theirs.named_parameters():
            if parameter.dim() > 1:
                # Places that differ more than words make a text that does not repeat itself.
                parameter.normal_(std=2.0 if "position_embeddings" in parameter_name else 0.4)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    mine = getattr(ours, name)(ProphetNetConfig(**config, relative_bias_layout=layout))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 2e-5, **tolerance})


def assert_same_gradients(theirs, mine):
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", [each for each in ours.__all__ if each.endswith("Output")])
def test_fields_of_outputs(name):
    from transformers.models.prophetnet import modeling_prophetnet as theirs

    assert list(getattr(ours, name).__dataclass_fields__) == list(getattr(theirs, name).__dataclass_fields__)


def test_config_has_the_same_arguments():
    import transformers

    wanted, found = (inspect.signature(each).parameters for each in (transformers.ProphetNetConfig, ProphetNetConfig))
    assert list(found)[: len(wanted) - 1] == list(wanted)[:-1]
    assert all(found[key].default == wanted[key].default for key in list(wanted)[:-1])


VARIANTS = {
    "plain": {},
    "smoothed": {"eps": 0.1},
    "first stream's loss": {"disable_ngram_loss": True},
    "one stream, untied": {"ngram": 1, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_seq2seq(variant, kernel):
    theirs, mine = pair(**VARIANTS[variant])
    mine.set_attn_implementation(kernel)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": TARGET, "labels": LABELS}
    for mask in (None, TARGET_MASK):
        theirs.zero_grad()
        mine.zero_grad()
        a = theirs(**inputs, decoder_attention_mask=mask)
        b = mine(**inputs, decoder_attention_mask=mask)
        assert_close(b.logits, a.logits)
        if theirs.config.ngram == 1:
            assert b.logits_ngram is None
        else:
            assert_close(b.logits_ngram, a.logits_ngram)
        assert_close(b.loss, a.loss)
        assert_close(b.encoder_last_hidden_state, a.encoder_last_hidden_state)
        a.loss.backward()
        b.loss.backward()
        assert_same_gradients(theirs, mine)


def test_labels_alone():
    theirs, mine = pair()
    assert_close(mine(IDS, MASK, labels=LABELS).loss, theirs(IDS, MASK, labels=LABELS).loss)


def test_decoder_alone():
    theirs, mine = pair(CAUSAL)
    a = theirs(TARGET, attention_mask=TARGET_MASK, labels=LABELS)
    b = mine(TARGET, attention_mask=TARGET_MASK, labels=LABELS)
    for name in ("loss", "logits", "logits_ngram"):
        assert_close(b[name], a[name])
    states = torch.randn(2, 9, 16, generator=RANDOM)
    crossed = {"encoder_hidden_states": states, "encoder_attention_mask": MASK}
    assert_close(mine(TARGET, **crossed).logits, theirs(TARGET, **crossed).logits)


def test_hidden_states_attentions_and_head_masks():
    theirs, mine = pair()
    heads = {
        "head_mask": torch.tensor([[1.0, 0, 1, 1], [0.5, 1, 1, 1], [1, 1, 1, 1]]),
        "decoder_head_mask": torch.tensor([[1.0, 0], [1, 0.5]]),
        "cross_attn_head_mask": torch.tensor([[0.0, 1], [1, 1]]),
    }
    options = {"output_hidden_states": True, "output_attentions": True}
    for masks in ({}, heads):
        a, b = (model(IDS, MASK, decoder_input_ids=TARGET, **options, **masks) for model in (theirs, mine))
        for name in ("logits", "logits_ngram"):
            assert_close(b[name], a[name])
        for name in ("encoder_hidden_states", "decoder_hidden_states", "decoder_ngram_hidden_states"):
            for left, right in zip(b[name], a[name], strict=True):
                assert_close(left, right)
        for name in ("decoder_attentions", "decoder_ngram_attentions"):
            for left, right in zip(b[name], a[name], strict=True):
                assert_close(left, right)
    # Theirs are scores before the softmax there; ours are what the document says.
    plain = mine(IDS, MASK, decoder_input_ids=TARGET, **options)
    scores = theirs(IDS, MASK, decoder_input_ids=TARGET, **options)
    for name in ("encoder_attentions", "cross_attentions"):
        for left, right in zip(plain[name], scores[name], strict=True):
            assert_close(left, right.softmax(dim=-1))
    assert_close(mine(IDS, MASK, decoder_input_ids=TARGET, **heads).logits, b.logits)


@pytest.mark.parametrize("layout", ["transformers", "paper"])
def test_caches_step_by_step(layout):
    theirs, mine = pair(layout=layout)
    a_cache = b_cache = None
    for step in range(5):
        ids = TARGET[:, step : step + 1]
        a = theirs(IDS, MASK, decoder_input_ids=ids, past_key_values=a_cache)
        b = mine(IDS, MASK, decoder_input_ids=ids, past_key_values=b_cache)
        a_cache, b_cache = a.past_key_values, b.past_key_values
        assert_close(b.logits, a.logits)
        if layout == "transformers":
            assert_close(b.logits_ngram, a.logits_ngram)
        # As 4.x's tuples from now on.
        assert isinstance(b_cache, EncoderDecoderCache)
        b_cache = b_cache.to_legacy_cache()
        for mine_layer, theirs_layer in zip(b_cache, a_cache.to_legacy_cache(), strict=False):
            for left, right in zip(mine_layer, theirs_layer, strict=True):
                assert_close(left, right)


# Random weights would write one word again and again.
PLAIN = {"do_sample": False, "no_repeat_ngram_size": 2}
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "long beams": {"num_beams": 4, "length_penalty": 2.0},
    "sampled": {"do_sample": True, "top_k": 10},
}


@pytest.mark.parametrize("layout", ["transformers", "paper"])
@pytest.mark.parametrize("way", WAYS)
def test_generation(way, layout):
    theirs, mine = pair(layout=layout)
    texts = []
    for model in (theirs, mine):
        torch.manual_seed(3)
        texts.append(model.generate(IDS, attention_mask=MASK, max_new_tokens=12, **{**PLAIN, **WAYS[way]}))
    assert texts[0].tolist() == texts[1].tolist()
    assert len(set(texts[1].flatten().tolist())) > 4


def test_generation_of_the_decoder_alone():
    theirs, mine = pair(CAUSAL)
    a, b = (model.generate(TARGET[:, :1], max_new_tokens=10, do_sample=False) for model in (theirs, mine))
    assert a.tolist() == b.tolist()


def test_checkpoints_of_either_side(tmp_path):
    import transformers

    theirs, mine = pair()
    expected = theirs(IDS, MASK, decoder_input_ids=TARGET).logits
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = ours.ProphetNetForConditionalGeneration.from_pretrained(
        tmp_path / "theirs", relative_bias_layout="transformers", strict=True
    )
    assert_close(loaded(IDS, MASK, decoder_input_ids=TARGET).logits, expected)
    loaded.save_pretrained(tmp_path / "ours")
    again, info = transformers.ProphetNetForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_close(again(IDS, MASK, decoder_input_ids=TARGET).logits, expected)


def test_decoder_from_a_seq2seq_checkpoint(tmp_path):
    import transformers

    theirs, _ = pair()
    theirs.save_pretrained(tmp_path)
    logging.set_verbosity_error()
    try:
        expected = transformers.ProphetNetForCausalLM.from_pretrained(tmp_path).eval()
        loaded = ours.ProphetNetForCausalLM.from_pretrained(
            tmp_path, relative_bias_layout="transformers", strict={"missing": "error"}
        )
        decoder = ours.ProphetNetDecoder.from_pretrained(
            tmp_path, relative_bias_layout="transformers", add_cross_attention=False, strict={"missing": "error"}
        )
        encoder = ours.ProphetNetEncoder.from_pretrained(tmp_path, strict={"missing": "error"})
    finally:
        logging.set_verbosity_warning()
    assert_close(loaded(TARGET).logits, expected(TARGET).logits)
    assert_close(decoder(TARGET).last_hidden_state, expected.prophetnet.decoder(TARGET).last_hidden_state)
    assert_close(encoder(IDS, attention_mask=MASK)[0], theirs.prophetnet.encoder(IDS, attention_mask=MASK)[0])
