"""EncoderDecoderModel against transformers 4.57.1: BERT to BERT and to GPT-2, in training, decoding and checkpoints."""

import json
import warnings

import pytest
import torch

from modelwright import (
    AutoModelForSeq2SeqLM,
    BertConfig,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    T5Config,
    T5ForConditionalGeneration,
)

pytestmark = [
    pytest.mark.parity,
    # Theirs tells at every loss that labels are shifted since 4.12.
    pytest.mark.filterwarnings("ignore:Version v4.12.0:FutureWarning"),
    # Theirs makes the mask of its labels so.
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
]

# Large weights: attention must be far from uniform, or a wrong mask would hardly show.
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
GPT2 = {
    "vocab_size": 44,
    "n_positions": 32,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
DECODERS = {
    "bert": ("BertConfig", BERT),
    "wide-bert": ("BertConfig", {**BERT, "hidden_size": 32}),
    "gpt2": ("GPT2Config", GPT2),
}
PROPHETNET = {
    "vocab_size": 40,
    "hidden_size": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    # As many as of the decoder, or the cache of theirs is too short.
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "max_position_embeddings": 32,
    "init_std": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "num_buckets": 8,
    "relative_max_distance": 16,
}
IDS = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
RANDOM = torch.Generator().manual_seed(0)
SOURCE = torch.randint(3, 40, (2, 9), generator=RANDOM)
TARGET = torch.randint(3, 40, (2, 7), generator=RANDOM)
PADDED = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 9])
LABELS = torch.where(torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1] * 7]).bool(), TARGET, -100)


def pair(tmp_path, decoder="bert", **config):
    """Their model, and ours loaded from the folder that it was saved in."""
    import transformers

    name, values = DECODERS[decoder]
    torch.manual_seed(1)
    parts = (transformers.BertConfig(**BERT), getattr(transformers, name)(**values))
    joint = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts, **{**IDS, **config})
    theirs = transformers.EncoderDecoderModel(config=joint).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    mine, info = EncoderDecoderModel.from_pretrained(tmp_path / "theirs", output_loading_info=True, strict=True)
    assert not any(info.values())
    return theirs, mine


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_losses_and_gradients(tmp_path, decoder):
    theirs, mine = pair(tmp_path, decoder)
    a, b = (model(SOURCE, PADDED, labels=LABELS, output_hidden_states=True) for model in (theirs, mine))
    assert list(a) == list(b)
    assert_close(b.logits, a.logits)
    assert_close(b.loss, a.loss)
    assert_close(b.decoder_hidden_states, a.decoder_hidden_states)
    assert_close(b.encoder_last_hidden_state, a.encoder_last_hidden_state)
    a.loss.backward(), b.loss.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None, name
        else:
            assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


def test_tuples_attentions_and_keywords_of_the_parts(tmp_path):
    theirs, mine = pair(tmp_path, "wide-bert")
    for model in (theirs, mine):
        model.encoder.config._attn_implementation = model.decoder.config._attn_implementation = "eager"
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [0] * 9])
    keywords = {
        "decoder_input_ids": TARGET,
        "decoder_attention_mask": torch.tensor([[1, 0, 1, 1, 1, 1, 0], [1] * 7]),
        "token_type_ids": types,
        "decoder_token_type_ids": types[:, :7],
        "decoder_head_mask": torch.tensor([[1.0, 0, 1, 0.5], [0, 1, 1, 1]]),
        "output_attentions": True,
        "use_cache": False,
        "return_dict": False,
    }
    a, b = (model(SOURCE, PADDED, **keywords) for model in (theirs, mine))
    assert_close(list(b), list(a))


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoding_token_for_token(tmp_path, decoder):
    theirs, mine = pair(tmp_path, decoder)
    for options in (
        {"max_new_tokens": 12},
        {"max_new_tokens": 12, "use_cache": False},
        {"max_new_tokens": 10, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
        {"max_new_tokens": 10, "num_beams": 3, "no_repeat_ngram_size": 2, "early_stopping": True},
        {"max_new_tokens": 5, "decoder_input_ids": TARGET[:, :3]},
    ):
        a, b = (model.generate(SOURCE, attention_mask=PADDED, do_sample=False, **options) for model in (theirs, mine))
        assert torch.equal(a, b), options


@pytest.mark.parametrize("decoder", DECODERS)
def test_cached_is_uncached(tmp_path, decoder):
    _, mine = pair(tmp_path, decoder)
    whole = mine(SOURCE, PADDED, decoder_input_ids=TARGET, use_cache=False)
    cache, states = None, (whole.encoder_last_hidden_state,)
    for at in range(TARGET.shape[1]):
        step = mine(
            attention_mask=PADDED,
            encoder_outputs=states,
            decoder_input_ids=TARGET[:, at : at + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = step.past_key_values
        assert_close(step.logits[:, 0], whole.logits[:, at])


@pytest.mark.parametrize("decoder", DECODERS)
def test_their_library_loads_what_ours_saves(tmp_path, decoder):
    import transformers

    theirs, mine = pair(tmp_path, decoder)
    mine.save_pretrained(tmp_path / "mine")
    back, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "mine", output_loading_info=True)
    assert not any(info.values())
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in back.state_dict().items())
    assert_close(back(SOURCE, PADDED, labels=LABELS).loss, mine(SOURCE, PADDED, labels=LABELS).loss)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "mine")
    assert type(config).__name__ == "EncoderDecoderConfig"
    for part in ("encoder", "decoder"):
        a, b = (getattr(each.config, part).to_dict() for each in (theirs, back))
        assert {**a, "dtype": None, "transformers_version": None}.items() <= {
            **b,
            "dtype": None,
            "transformers_version": None,
        }.items()
    found = type(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "mine"))
    assert found is EncoderDecoderModel


def test_configs_round_trip(tmp_path):
    theirs, mine = pair(tmp_path)
    mine.config.save_pretrained(tmp_path / "config")
    again = EncoderDecoderConfig.from_pretrained(tmp_path / "config")
    assert json.loads(again.to_json_string()) == json.loads(mine.config.to_json_string())
    for name, value in theirs.config.decoder.to_dict().items():
        if name not in ("transformers_version", "dtype"):
            assert getattr(again.decoder, name) == value, name


def test_tied_encoder(tmp_path):
    import transformers

    theirs, mine = pair(tmp_path, tie_encoder_decoder=True)
    assert theirs.num_parameters() == mine.num_parameters()
    words = mine.encoder.embeddings.word_embeddings.weight
    assert words is mine.decoder.bert.embeddings.word_embeddings.weight is mine.get_output_embeddings().weight
    a, b = (model(SOURCE, PADDED, labels=LABELS) for model in (theirs, mine))
    assert_close(b.loss, a.loss)
    a.loss.backward(), b.loss.backward()
    assert_close(words.grad, theirs.encoder.embeddings.word_embeddings.weight.grad)
    mine.save_pretrained(tmp_path / "mine")
    back = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "mine")
    assert_close(back(SOURCE, PADDED, labels=LABELS).loss, b.loss)


def test_tied_encoder_of_t5(tmp_path):
    import transformers

    small = {
        "vocab_size": 40,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
    }
    values = {**small, "decoder_start_token_id": 0, "tie_encoder_decoder": True}
    torch.manual_seed(1)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**values)).eval()
    mine = T5ForConditionalGeneration(T5Config(**values)).eval()
    mine.load_state_dict(theirs.state_dict(), strict=True)
    assert theirs.num_parameters() == mine.num_parameters()
    a, b = (model(SOURCE, PADDED, labels=LABELS) for model in (theirs, mine))
    assert_close(b.loss, a.loss)


def test_from_two_checkpoints(tmp_path):
    """Both make the same model of two folders, but for the cross-attention, which is new."""
    import transformers

    torch.manual_seed(1)
    transformers.BertModel(transformers.BertConfig(**BERT)).save_pretrained(tmp_path / "encoder")
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)).save_pretrained(tmp_path / "decoder")
    folders = (tmp_path / "encoder", tmp_path / "decoder")
    options = {"encoder_hidden_dropout_prob": 0.25, "decoder_attn_pdrop": 0.5}
    theirs = transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(*folders, **options)
    mine = EncoderDecoderModel.from_encoder_decoder_pretrained(*folders, **options)
    a, b = theirs.state_dict(), mine.state_dict()
    assert a.keys() == b.keys()
    for name, value in b.items():
        assert "cross" in name or "enc_to_dec" in name or torch.equal(value, a[name]), name
    assert mine.config.encoder.hidden_dropout_prob == theirs.config.encoder.hidden_dropout_prob == 0.25
    assert mine.config.decoder.attn_pdrop == theirs.config.decoder.attn_pdrop == 0.5
    assert not any(module.training for module in mine.modules())


# --- where theirs is wrong --------------------------------------------------------------------------------------------


def test_a_start_token_that_is_the_padding_token_is_seen(tmp_path):
    theirs, mine = pair(tmp_path, decoder_start_token_id=0)
    a, b = (model(SOURCE, PADDED, labels=TARGET).logits for model in (theirs, mine))
    shifted = torch.cat([torch.zeros_like(TARGET[:, :1]), TARGET[:, :-1]], dim=1)
    right = theirs(SOURCE, PADDED, decoder_input_ids=shifted, decoder_attention_mask=torch.ones_like(shifted)).logits
    assert_close(b, right)
    assert (a - right).abs().max() > 0.1


def test_special_ids_of_the_decoder_hold_for_the_whole(tmp_path):
    theirs, mine = pair(tmp_path)
    for model in (theirs, mine):
        config = model.config
        config.decoder_start_token_id = config.pad_token_id = None
        config.decoder.decoder_start_token_id, config.decoder.pad_token_id = 1, 0
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        theirs(SOURCE, labels=LABELS)
    expected = mine(SOURCE, labels=LABELS).loss
    theirs.config.decoder_start_token_id, theirs.config.pad_token_id = 1, 0
    with warnings.catch_warnings(action="ignore"):
        assert_close(expected, theirs(SOURCE, labels=LABELS).loss)


def test_vocabularies_grow_together(tmp_path):
    theirs, mine = pair(tmp_path)
    with pytest.raises(NotImplementedError):
        theirs.resize_token_embeddings(50)
    before = mine(SOURCE, PADDED, decoder_input_ids=TARGET).logits
    mine.resize_token_embeddings(50)
    after = mine(SOURCE, PADDED, decoder_input_ids=TARGET).logits
    assert after.shape[-1] == mine.config.vocab_size == mine.config.encoder.vocab_size == 50
    assert_close(after[..., :40], before)
    loss = mine(SOURCE + 9, PADDED, labels=torch.where(LABELS > 0, LABELS + 9, LABELS)).loss
    assert loss.isfinite()


def test_config_class_of_the_parts():
    config = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**BERT), GPT2Config(**GPT2))
    assert (type(config.encoder), type(config.decoder)) == (BertConfig, GPT2Config)
    model = EncoderDecoderModel(config)
    assert type(model.encoder) is BertModel


# --- BERT to ProphetNet -----------------------------------------------------------------------------------------------


def prophet_pair(tmp_path):
    """Their BERT to ProphetNet, and ours with its bias of relative positions, loaded from its folder."""
    import transformers

    torch.manual_seed(1)
    parts = (transformers.BertConfig(**BERT), transformers.ProphetNetConfig(**PROPHETNET))
    joint = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts, **IDS)
    theirs = transformers.EncoderDecoderModel(config=joint).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    config = EncoderDecoderConfig.from_pretrained(tmp_path / "theirs")
    config.decoder.relative_bias_layout = "transformers"
    mine, info = EncoderDecoderModel.from_pretrained(
        tmp_path / "theirs", config=config, output_loading_info=True, strict=True
    )
    assert not any(info.values())
    return theirs, mine


def test_prophetnet_logits_losses_and_gradients(tmp_path):
    theirs, mine = prophet_pair(tmp_path)
    mine.config.decoder_ngram_loss = False
    a, b = (model(SOURCE, PADDED, labels=TARGET) for model in (theirs, mine))
    assert_close(b.logits, a.logits)
    assert_close(b.loss, a.loss)
    a.loss.backward(), b.loss.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if expected[name].grad is not None and parameter.grad is not None:
            assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


def test_prophetnet_learns_the_token_after_the_next_one_too(tmp_path):
    """Theirs scores the next token only; ours as their decoder itself does, given its inputs and unshifted labels."""
    theirs, mine = prophet_pair(tmp_path)
    inputs = torch.cat([torch.ones_like(TARGET[:, :1]), TARGET[:, :-1]], dim=1)
    states = theirs.encoder(SOURCE, PADDED).last_hidden_state
    expected = theirs.decoder(
        inputs, encoder_hidden_states=states, encoder_attention_mask=PADDED, labels=TARGET, use_cache=False
    ).loss
    assert_close(mine(SOURCE, PADDED, labels=TARGET).loss, expected)
    assert (expected - theirs(SOURCE, PADDED, labels=TARGET).loss).abs() > 0.01
    mine.train()
    mine.zero_grad()
    mine(SOURCE, PADDED, labels=TARGET).loss.backward()
    second = mine.decoder.prophetnet.decoder.ngram_embeddings.weight.grad
    assert (second.abs().sum(dim=1) > 0).all(), "every stream learns"


def test_prophetnet_decoding_token_for_token(tmp_path):
    theirs, mine = prophet_pair(tmp_path)
    for options in ({"max_new_tokens": 12}, {"max_new_tokens": 8, "num_beams": 4, "num_return_sequences": 2}):
        a, b = (model.generate(SOURCE, attention_mask=PADDED, do_sample=False, **options) for model in (theirs, mine))
        # Their beam search takes a padding id of 0 for none, and fills up with the end token.
        ended = (a == 2).cumsum(dim=1) - (a == 2).long() > 0
        assert torch.equal(a.masked_fill(ended, 0), b), options


def test_their_library_loads_our_bert_to_prophetnet(tmp_path):
    import transformers

    theirs, mine = prophet_pair(tmp_path)
    mine.save_pretrained(tmp_path / "mine")
    back, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "mine", output_loading_info=True)
    assert not any(info.values())
    assert_close(back(SOURCE, PADDED, labels=LABELS).loss, theirs(SOURCE, PADDED, labels=LABELS).loss)
