"""What two models as one must do by themselves: fit or be refused, share what they should, decode one way only."""

import pytest
import torch
from small_bert import BERT

from modelwright import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    BertTokenizer,
    BertTokenizerFast,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    ProphetNetModel,
    T5Config,
    T5EncoderModel,
    T5Model,
)
from modelwright.core import logging
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError

GPT2 = {"vocab_size": 40, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
PROPHETNET = {
    "vocab_size": 40,
    "hidden_size": 24,
    "decoder_ffn_dim": 24,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "max_position_embeddings": 32,
    "init_std": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "is_decoder": True,
}
IDS = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
RANDOM = torch.Generator().manual_seed(0)
SOURCE = torch.randint(3, 40, (2, 9), generator=RANDOM)
LABELS = torch.randint(3, 40, (2, 6), generator=RANDOM)


def make(decoder=None, **config):
    torch.manual_seed(0)
    decoder = BertConfig(**BERT) if decoder is None else decoder
    joint = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**BERT), decoder, **{**IDS, **config})
    return EncoderDecoderModel(joint).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An encoder, and two decoders without cross-attention, as `save_pretrained` leaves them."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    BertModel(BertConfig(**BERT)).save_pretrained(folder / "encoder")
    BertLMHeadModel(BertConfig(**BERT, is_decoder=True)).save_pretrained(folder / "bert")
    GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(folder / "gpt2")
    return folder


# --- parts that fit or do not -----------------------------------------------------------------------------------------


def test_configs_are_not_changed_and_say_what_a_decoder_is():
    encoder, decoder = BertConfig(**BERT), GPT2Config(**GPT2)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, pad_token_id=5)
    assert not decoder.add_cross_attention
    assert not decoder.is_decoder
    assert config.decoder.add_cross_attention
    assert config.decoder.is_decoder
    assert (config.pad_token_id, config.vocab_size, config.is_encoder_decoder) == (5, 40, True)
    model = EncoderDecoderModel(config)
    assert model.encoder.config is config.encoder
    assert model.decoder.config is model.decoder.transformer.config is config.decoder


@pytest.mark.parametrize("part", [None, 3, {"vocab_size": 3}])
def test_a_config_without_its_parts_is_refused(part):
    with pytest.raises(ConfigError, match=r"EncoderDecoderConfig.decoder: expected (the config|a model_type)"):
        EncoderDecoderConfig(encoder=BertConfig(**BERT), decoder=part)


def test_the_vocabulary_is_the_decoders():
    config = make(BertConfig(**{**BERT, "vocab_size": 50})).config
    config.vocab_size = 50
    with pytest.raises(ConfigError, match="that of the decoder, 50; got 40"):
        config.vocab_size = 40


def test_a_decoder_without_cross_attention_says_what_to_set(folders):
    what = r"no cross-attention.*set is_decoder=True and add_cross_attention=True"
    with pytest.raises(InputError, match=what):
        EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**BERT), decoder=GPT2Config(**GPT2)))
    encoder, decoder = BertModel(BertConfig(**BERT)), GPT2LMHeadModel(GPT2Config(**GPT2))
    with pytest.raises(InputError, match=what):
        EncoderDecoderModel(encoder=encoder, decoder=decoder)
    config = GPT2Config.from_pretrained(folders / "gpt2")
    with pytest.raises(InputError, match=what):
        EncoderDecoderModel.from_encoder_decoder_pretrained(
            folders / "encoder", folders / "gpt2", decoder_config=config
        )


def test_a_decoder_that_sees_what_follows_is_refused():
    config = BertConfig(**BERT)
    config.add_cross_attention = True
    decoder = BertLMHeadModel(config)
    with pytest.raises(InputError, match="BertLMHeadModel was made with is_decoder=False"):
        EncoderDecoderModel(encoder=BertModel(BertConfig(**BERT)), decoder=decoder)


def test_other_models_that_do_not_fit_are_refused():
    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    llama = LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=2, add_cross_attention=True))
    encoder = BertModel(BertConfig(**BERT))
    with pytest.raises(InputError, match="LlamaForCausalLM cannot be the decoder: its forward takes no encoder_hid"):
        EncoderDecoderModel(encoder=encoder, decoder=llama)
    decoder = make().decoder
    with pytest.raises(InputError, match="expected an encoder without a language-model head, got BertLMHeadModel"):
        EncoderDecoderModel(encoder=decoder, decoder=decoder)
    t5 = T5Model(T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2))
    with pytest.raises(InputError, match="T5Model has a decoder of its own"):
        EncoderDecoderModel(encoder=t5, decoder=decoder)
    with pytest.raises(
        InputError, match="T5EncoderModel is an encoder only.* that of T5Model.*T5ForConditionalGenerat"
    ):
        EncoderDecoderModel(encoder=T5EncoderModel(t5.config), decoder=decoder)
    prophetnet = ProphetNetModel(ProphetNetConfig(**PROPHETNET, num_encoder_layers=1))
    with pytest.raises(InputError, match="ProphetNetModel has a decoder of its own"):
        EncoderDecoderModel(encoder=prophetnet, decoder=decoder)
    with pytest.raises(InputError, match="ProphetNetEncoder is an encoder only.* could not be loaded"):
        EncoderDecoderModel(encoder=prophetnet.encoder, decoder=decoder)
    with pytest.raises(InputError, match="got no config and no decoder"):
        EncoderDecoderModel(encoder=encoder)
    with pytest.raises(InputError, match="expected an EncoderDecoderConfig, got BertConfig"):
        EncoderDecoderModel(encoder.config)
    with pytest.raises(ConfigError, match="cross_attention_hidden_size is 99, but the encoder's states are 16 wide"):
        make(BertConfig(**BERT, cross_attention_hidden_size=99))
    with pytest.raises(ConfigError, match="AutoModelForCausalLM has no class for model_type 't5'"):
        make(T5Config(d_model=16))


def test_given_models_are_taken_as_they_are(caplog):
    torch.manual_seed(0)
    encoder = BertModel(BertConfig(**BERT))
    decoder = GPT2LMHeadModel(GPT2Config(**GPT2, add_cross_attention=True))
    before = {name: value.clone() for name, value in [*encoder.state_dict().items(), *decoder.state_dict().items()]}
    other = make(GPT2Config(**{**GPT2, "n_layer": 3})).config
    logging.get_logger().addHandler(caplog.handler)
    try:
        model = EncoderDecoderModel(other, encoder=encoder, decoder=decoder)
    finally:
        logging.get_logger().removeHandler(caplog.handler)
    assert "config.decoder differs from the config of the given decoder" in caplog.text
    assert model.encoder is encoder
    assert model.decoder is decoder
    assert model.config.decoder is decoder.config
    assert (other.decoder.n_layer, model.config.decoder.n_layer) == (3, 2)
    after = {**encoder.state_dict(), **decoder.state_dict()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# --- two checkpoints --------------------------------------------------------------------------------------------------


def test_keywords_reach_their_part(folders):
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        folders / "encoder",
        folders / "bert",
        dtype=torch.bfloat16,
        decoder_dtype=torch.float32,
        encoder_attn_implementation="eager",
        decoder_start_token_id=7,
        decoder_ngram_loss=False,
        decoder_layer_norm_eps=1e-3,
    )
    assert (model.encoder.dtype, model.decoder.dtype) == (torch.bfloat16, torch.float32)
    assert model.encoder.config._attn_implementation == "eager"
    assert model.decoder.config._attn_implementation == "sdpa"
    assert (model.config.decoder_start_token_id, model.config.decoder_ngram_loss) == (7, False)
    assert model.config.decoder.layer_norm_eps == 1e-3
    with pytest.raises(UnknownArgumentError, match=r"unknown keyword 'pad_token'.*Did you mean 'pad_token_id'"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(folders / "encoder", folders / "bert", pad_token=1)
    with pytest.raises(UnknownArgumentError, match="decoder_frobnicate|frobnicate"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(folders / "encoder", folders / "bert", decoder_frobnicate=1)
    with pytest.raises(InputError, match=r"expected the folder or repository of the decoder.*decoder_model"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(folders / "encoder")


def test_models_instead_of_checkpoints_and_a_decoder_as_encoder(folders):
    decoder = AutoModelForCausalLM.from_pretrained(folders / "gpt2", add_cross_attention=True)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(folders / "bert", decoder_model=decoder)
    assert model.decoder is decoder
    assert not model.encoder.is_decoder
    assert AutoConfig.from_pretrained(folders / "bert").is_decoder
    source = model(SOURCE, decoder_input_ids=LABELS).encoder_last_hidden_state
    changed = SOURCE.clone()
    changed[:, -1] = 3
    assert not torch.equal(model(changed, decoder_input_ids=LABELS).encoder_last_hidden_state[:, 0], source[:, 0])


def test_the_examples_of_the_document(tmp_path, folders):
    """Training, saving and decoding with one tokenizer, whose ids are set on the config after the model is made."""
    (tmp_path / "vocab.txt").write_text(
        "\n".join(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "a", "long", "text", "of", "the", "summary"]
        )
    )
    tokenizer = BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(folders / "encoder", folders / "encoder")
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.vocab_size = model.config.decoder.vocab_size
    input_ids = tokenizer("This is a long text", return_tensors="pt").input_ids
    labels = tokenizer("the summary of this", return_tensors="pt").input_ids
    outputs = model(input_ids=input_ids, labels=labels)
    loss, logits = outputs.loss, outputs.logits
    assert logits.shape == (1, labels.shape[1], 40)
    expected = torch.nn.functional.cross_entropy(logits[0], labels[0])
    torch.testing.assert_close(loss, expected)
    for reloaded in (False, True):
        if reloaded:
            model.save_pretrained(tmp_path / "bert2bert")
            config = EncoderDecoderConfig.from_pretrained(tmp_path / "bert2bert")
            model = EncoderDecoderModel.from_pretrained(tmp_path / "bert2bert", config=config)
        generated = model.generate(input_ids, max_new_tokens=5)
        assert generated[0, 0] == tokenizer.cls_token_id
        assert generated.shape == (1, 6)


def test_the_example_of_bert_and_prophetnet(tmp_path, folders):
    """The document's, on checkpoints of this machine: labels and inputs given, each a token apart."""
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += ["us", "rejects", "charges", "against", "its", "ambassador"]
    for folder, name in ((tmp_path / "bert", "vocab.txt"), (tmp_path / "prophetnet", "prophetnet.tokenizer")):
        folder.mkdir()
        (folder / name).write_text("\n".join(words))
    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "bert")
    ProphetNetForCausalLM(ProphetNetConfig(**PROPHETNET)).save_pretrained(tmp_path / "prophetnet")
    tokenizer_enc = BertTokenizer.from_pretrained(tmp_path / "bert")
    tokenizer_dec = AutoTokenizer.from_pretrained(tmp_path / "prophetnet")
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "bert", tmp_path / "prophetnet")
    input_ids = tokenizer_enc("charges against its ambassador rejects us", return_tensors="pt").input_ids
    labels = tokenizer_dec("us rejects charges against its ambassador", return_tensors="pt").input_ids
    outputs = model(input_ids=input_ids, decoder_input_ids=labels[:, :-1], labels=labels[:, 1:])
    assert outputs.loss.isfinite()
    assert outputs.logits.shape == (1, labels.shape[1] - 1, 40)
    model.config.decoder_ngram_loss = False
    next_token = model(input_ids=input_ids, decoder_input_ids=labels[:, :-1], labels=labels[:, 1:])
    torch.testing.assert_close(next_token.loss, torch.nn.functional.cross_entropy(outputs.logits[0], labels[0, 1:]))
    assert (next_token.loss - outputs.loss).abs() > 1e-3


@pytest.mark.parametrize("decoder", ["prophetnet", "bert", "gpt2"])
def test_beams_share_the_source(decoder):
    configs = {"prophetnet": ProphetNetConfig(**PROPHETNET), "bert": BertConfig(**BERT), "gpt2": GPT2Config(**GPT2)}
    model = make(configs[decoder])
    assert model._shares_source
    assert model.decoder.config is model.config.decoder
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0], [1] * 9])
    call = {"max_new_tokens": 6, "num_beams": 3, "eos_token_id": None}
    together = model.generate(SOURCE, attention_mask=mask, **call, return_dict_in_generate=True)
    keys, _ = together.past_key_values.cross_attention_cache[0]
    assert keys.shape[0] == 2
    together = together.sequences
    assert torch.equal(together[:1], model.generate(SOURCE[:1, :4], **call))
    assert torch.equal(model.generate(SOURCE, attention_mask=mask, **call, use_cache=False), together)
    type(model.decoder)._shares_source = False
    try:
        assert torch.equal(model.generate(SOURCE, attention_mask=mask, **call), together)
    finally:
        type(model.decoder)._shares_source = True


# --- a call -----------------------------------------------------------------------------------------------------------


def test_missing_special_ids_say_what_to_set():
    model = make(GPT2Config(**GPT2, bos_token_id=None, eos_token_id=None), pad_token_id=None)
    with pytest.raises(InputError, match=r"config.pad_token_id, which is None.*set model.config.pad_token_id, such as"):
        model(SOURCE, labels=LABELS)
    model.config.pad_token_id, model.config.decoder_start_token_id = 0, None
    with pytest.raises(InputError, match=r"config.decoder_start_token_id, which is None.*tokenizer.cls_token_id"):
        model(SOURCE, labels=LABELS)
    model.config.decoder.bos_token_id = 4
    assert model.prepare_decoder_input_ids_from_labels(LABELS)[:, 0].tolist() == [4, 4]


def test_labels_and_inputs_of_the_decoder_must_agree():
    with pytest.raises(InputError, match=r"labels of the shape of the decoder's inputs, \(2, 5\), got \(2, 6\)"):
        make()(SOURCE, decoder_input_ids=LABELS[:, :5], labels=LABELS)


def test_a_target_that_is_too_long_is_refused():
    with pytest.raises(InputError, match="32"):
        make()(SOURCE, decoder_input_ids=torch.ones(1, 33, dtype=torch.long))
    with pytest.raises(InputError, match="32 positions"):
        make().generate(SOURCE, max_new_tokens=40)


def test_a_keyword_that_no_part_takes_is_refused():
    with pytest.raises(
        UnknownArgumentError, match=r"'token_types_ids': BertModel takes no.*Did you mean 'token_type_ids'"
    ):
        make()(SOURCE, labels=LABELS, token_types_ids=SOURCE)
    with pytest.raises(UnknownArgumentError, match="'decoder_heads': BertLMHeadModel takes no 'heads'"):
        make()(SOURCE, labels=LABELS, decoder_heads=SOURCE)


class OfTwoTokens(BertLMHeadModel):
    """A decoder whose loss scores labels as they stand, and with more than the next token, as ProphetNet's does."""

    _scores_unshifted_labels = True

    def forward(self, input_ids=None, labels=None, encoder_hidden_states=None, **kwargs):
        output = super().forward(input_ids, encoder_hidden_states=encoder_hidden_states, **kwargs)
        if labels is not None:
            second = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            output.loss = second + torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
        return output


def test_the_decoders_own_loss_counts_if_it_scores_unshifted_labels():
    torch.manual_seed(0)
    decoder = OfTwoTokens(BertConfig(**BERT, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=BertModel(BertConfig(**BERT)), decoder=decoder).eval()
    model.config.update(IDS)
    both = model(SOURCE, labels=LABELS)
    model.config.decoder_ngram_loss = False
    first = model(SOURCE, labels=LABELS)
    assert torch.equal(both.logits, first.logits)
    torch.testing.assert_close(
        first.loss, torch.nn.functional.cross_entropy(first.logits.flatten(0, 1), LABELS.flatten())
    )
    second = torch.nn.functional.cross_entropy(first.logits[:, :-1].flatten(0, 1), LABELS[:, 1:].flatten())
    torch.testing.assert_close(both.loss, first.loss + second)
    model.config.decoder_ngram_loss = True
    assert torch.equal(model(SOURCE, labels=LABELS, return_dict=False)[0], both.loss)


def test_tuples_have_their_logits_in_training_too():
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**BERT), ProphetNetConfig(**PROPHETNET, decoder_start_token_id=1)
    )
    torch.manual_seed(0)
    model = EncoderDecoderModel(config).train()
    trained = model(SOURCE, labels=LABELS, return_dict=False)
    evaluated = model.eval()(SOURCE, labels=LABELS, return_dict=False)
    assert model.train()(SOURCE, labels=LABELS).logits is None
    torch.testing.assert_close(trained[:3], evaluated[:3])


def test_switches_of_the_whole_reach_the_parts():
    model = make(output_hidden_states=True)
    output = model(SOURCE, labels=LABELS)
    assert len(output.encoder_hidden_states) == len(output.decoder_hidden_states) == 3
    assert model(SOURCE, labels=LABELS, output_hidden_states=False).encoder_hidden_states is None


def test_kernels_of_each_part():
    model = make()
    expected = model(SOURCE, labels=LABELS).logits
    model.set_attn_implementation({"encoder": "eager"})
    assert (model.encoder.config._attn_implementation, model.decoder.config._attn_implementation) == ("eager", "sdpa")
    torch.testing.assert_close(model(SOURCE, labels=LABELS).logits, expected)
    assert model(SOURCE, labels=LABELS, output_attentions=True).encoder_attentions is not None


def test_a_row_is_the_same_alone_and_in_a_padded_batch():
    model = make(GPT2Config(**GPT2))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0], [1] * 9])
    together = model.generate(SOURCE, attention_mask=mask, max_new_tokens=6, eos_token_id=None)
    alone = model.generate(SOURCE[:1, :4], max_new_tokens=6, eos_token_id=None)
    assert torch.equal(together[:1], alone)


def test_a_static_cache_changes_nothing():
    model = make(GPT2Config(**GPT2))
    expected = model.generate(SOURCE, max_new_tokens=6, num_beams=3)
    assert torch.equal(model.generate(SOURCE, max_new_tokens=6, num_beams=3, cache_implementation="static"), expected)


def test_encoder_outputs_spare_the_encoder():
    model = make()
    states = model.get_encoder()(SOURCE)
    expected = model.generate(SOURCE, max_new_tokens=5)
    model.encoder.embeddings.forward = None
    assert torch.equal(model.generate(encoder_outputs=states, max_new_tokens=5), expected)


@pytest.mark.parametrize(("version", "said"), [("4.26.1", False), ("4.57.1", True), (None, False)])
def test_a_prophetnet_decoder_is_told_the_version_of_the_whole_file(version, said, monkeypatch):
    notes = []
    logger = "modelwright.models.prophetnet.configuration_prophetnet.logger.warning_once"
    monkeypatch.setattr(logger, notes.append)
    parts = {"encoder": {**BERT, "model_type": "bert"}, "decoder": {**PROPHETNET, "model_type": "prophetnet"}}
    whole = {} if version is None else {"transformers_version": version}
    config = EncoderDecoderConfig.from_dict({**parts, **whole})
    assert [f"saved by transformers {version}" in note for note in notes] == [True] * said
    EncoderDecoderConfig.from_dict(config.to_diff_dict())
    assert len(notes) == int(said)  # the layout is kept


# --- weights ----------------------------------------------------------------------------------------------------------


def test_heads_of_both_parts_are_pruned(tmp_path):
    model = make()
    with pytest.raises(InputError, match="expected layers from 0 to 1, got 5"):
        model.prune_heads({0: [1], 7: [0]})
    assert model.config.encoder.pruned_heads == {}
    model.prune_heads({0: [1], 3: [0, 2]})
    assert (model.config.encoder.pruned_heads, model.config.decoder.pruned_heads) == ({0: [1]}, {1: [0, 2]})
    model.save_pretrained(tmp_path)
    loaded = EncoderDecoderModel.from_pretrained(tmp_path, strict=True)
    assert torch.equal(loaded(SOURCE, labels=LABELS).logits, model(SOURCE, labels=LABELS).logits)


def test_tied_encoders_need_the_same_family_and_sizes():
    with pytest.raises(ConfigError, match="of one family, got BertModel and GPT2Model"):
        make(GPT2Config(**GPT2), tie_encoder_decoder=True)
    with pytest.raises(ConfigError, match=r"same sizes, but .* is \(40, 16\) in the encoder and \(50, 16\)"):
        make(BertConfig(**{**BERT, "vocab_size": 50}), tie_encoder_decoder=True)


def test_parts_grow_alone_too(tmp_path):
    model = make(GPT2Config(**GPT2))
    model.decoder.resize_token_embeddings(60)
    assert (model.config.vocab_size, model.config.encoder.vocab_size) == (60, 40)
    model.save_pretrained(tmp_path)
    loaded = EncoderDecoderModel.from_pretrained(tmp_path, strict=True)
    assert loaded(SOURCE, labels=LABELS).logits.shape[-1] == 60


def test_auto_tokenizer_of_a_pair_is_the_encoders(tmp_path, caplog):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    alike = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**BERT), BertConfig(**BERT))
    alike.save_pretrained(tmp_path)
    logging.forget_once()
    logging.get_logger().addHandler(caplog.handler)
    for found in (AutoTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path, config=alike)):
        assert isinstance(found, BertTokenizerFast)
        assert found("a b").input_ids == [2, 5, 6, 3]
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=False)) is BertTokenizer
    assert "cannot both read" not in caplog.text
    EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**BERT), GPT2Config(**GPT2)).save_pretrained(tmp_path)
    try:
        assert isinstance(AutoTokenizer.from_pretrained(tmp_path), BertTokenizerFast)
    finally:
        logging.get_logger().removeHandler(caplog.handler)
    assert "the encoder is a bert and the decoder a gpt2" in caplog.text
