"""Drafts by the second predict stream: the same tokens as plain decoding, in fewer calls, or a refusal."""

import pytest
import torch

from modelwright import (
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GenerationConfig,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    ProphetNetForConditionalGeneration,
)
from modelwright.core.errors import ConfigError, InputError

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "max_position_embeddings": 40,
    "num_buckets": 8,
    "relative_max_distance": 12,
    "ngram": 2,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
IDS = torch.randint(3, 40, (3, 8), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 5 + [0] * 3, [1] * 8, [1] * 2 + [0] * 6])
DRAFT = {"speculative_ngram": True}


def large_weights(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return model.eval()


def seq2seq(**config):
    return large_weights(ProphetNetForConditionalGeneration(ProphetNetConfig(**{**SIZES, **config})))


def decoder_only(**config):
    return large_weights(ProphetNetForCausalLM(ProphetNetConfig(**{**SIZES, "add_cross_attention": False, **config})))


def pair():
    decoder = ProphetNetConfig(**{**SIZES, "hidden_size": 24, "is_decoder": True})
    ids = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    joint = EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**BERT), decoder, **ids)
    return large_weights(EncoderDecoderModel(joint))


def count_calls(model, **keywords):
    """What `generate` returns, and how often it called the decoder."""
    calls = []
    layer = next(module for name, module in model.named_modules() if name.endswith("decoder.layers.0"))
    handle = layer.register_forward_hook(lambda _layer, _inputs, _output: calls.append(1), always_call=True)
    try:
        return model.generate(**keywords), len(calls)
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def counting():
    """A seq2seq model that has learned to count on from the first id of its source: 3, 4, ..., 39, 3, ..."""
    torch.manual_seed(0)
    model = ProphetNetForConditionalGeneration(ProphetNetConfig(**{**SIZES, "hidden_size": 32}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        source = torch.randint(3, 40, (32, 1))
        labels = 3 + (source - 3 + torch.arange(1, 13)) % 37
        model(input_ids=source, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("make", [seq2seq, decoder_only, pair])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_ids_and_scores_are_those_of_greedy_search(make, rows, cached):
    model = make()
    call = {"input_ids": IDS[:rows], "max_new_tokens": 12, "use_cache": cached}
    call["attention_mask"] = MASK[:rows].flip(1) if make is decoder_only else MASK[:rows]
    call |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    plain, drafted = model.generate(**call), model.generate(**call, **DRAFT)
    assert drafted.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(drafted.scores, plain.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(drafted.logits, plain.logits, rtol=1e-4, atol=1e-4)
    if cached:
        held = plain.past_key_values.get_seq_length()
        assert drafted.past_key_values.get_seq_length() == held == plain.sequences.shape[1] - 1


def test_right_drafts_halve_the_calls(counting):
    call = {"input_ids": torch.tensor([[7]]), "max_new_tokens": 12, "min_new_tokens": 12}
    plain, calls = count_calls(counting, **call)
    drafted, fewer = count_calls(counting, **call, **DRAFT)
    assert plain.tolist()[0][1:] == list(range(8, 20)) == drafted.tolist()[0][1:]
    assert calls == 12
    assert fewer <= 8
    rows = torch.tensor([[7], [20], [33]])
    plain, _ = count_calls(counting, input_ids=rows, max_new_tokens=12, min_new_tokens=12)
    drafted, fewer = count_calls(counting, input_ids=rows, max_new_tokens=12, min_new_tokens=12, **DRAFT)
    assert torch.equal(drafted, plain)
    assert fewer <= 10


@pytest.mark.parametrize("cache", [None, "static", "dynamic_full"])
@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": 11},
        {"eos_token_id": 11, "min_new_tokens": 7},
        {"repetition_penalty": 3.0},
        {"no_repeat_ngram_size": 1, "forced_eos_token_id": 2},
        {"do_sample": True, "top_k": 3},
    ],
    ids=lambda settings: next(iter(settings)) + str(len(settings)),
)
def test_settings_that_look_at_the_past(counting, settings, cache):
    call = {"input_ids": torch.tensor([[7], [5], [30]]), "max_new_tokens": 11, "pad_token_id": 0, **settings}
    results = [
        counting.generate(**call, **drafts, cache_implementation=cache, generator=torch.Generator().manual_seed(3))
        for drafts in ({}, DRAFT)
    ]
    assert results[0].tolist() == results[1].tolist()


def test_processors_criteria_and_streamers_see_each_token_once(counting, collect):
    def run(**drafts):
        seen, asked, streamer = [], [], collect()

        def processor(ids, scores):
            seen.append(ids.tolist())
            return scores

        def criterion(ids, scores):
            asked.append((ids.tolist(), scores is not None))
            return ids.shape[1] >= 8

        lists = {"logits_processor": [processor], "stopping_criteria": [criterion], "streamer": streamer}
        ids = counting.generate(torch.tensor([[7]]), max_new_tokens=12, **lists, **drafts)
        return ids.tolist(), seen, asked, streamer.got, streamer.ended

    assert run() == run(**DRAFT)


def test_a_cache_of_the_callers_goes_on():
    model = decoder_only()
    prompt = IDS[:1]
    for drafts in ({}, DRAFT):
        cache = model(prompt[:, :-1], use_cache=True).past_key_values
        ids = model.generate(prompt, past_key_values=cache, max_new_tokens=12, **drafts)
        assert torch.equal(ids, model.generate(prompt, max_new_tokens=12))


def test_no_more_positions_are_read_than_by_plain_decoding():
    for model in (seq2seq(max_position_embeddings=12), decoder_only(max_position_embeddings=18)):
        most = 12 if model.config.is_encoder_decoder else 11
        plain = model.generate(IDS[:1], max_new_tokens=most, min_new_tokens=most)
        assert torch.equal(model.generate(IDS[:1], max_new_tokens=most, min_new_tokens=most, **DRAFT), plain)


def test_padding_aware_positions_of_a_padded_prompt():
    model = decoder_only(padding_aware_positions=True)
    call = {"input_ids": IDS, "attention_mask": MASK.flip(1), "max_new_tokens": 12}
    assert torch.equal(model.generate(**call, **DRAFT), model.generate(**call))


def test_refusals_name_what_to_leave_out(fake_model):
    with pytest.raises(NotImplementedError, match="FakeModel has no stream that predicts the token after the next one"):
        fake_model().generate(torch.tensor([[1, 2]]), **DRAFT)
    bert = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**BERT), BertConfig(**BERT), decoder_start_token_id=1, pad_token_id=0
    )
    with pytest.raises(NotImplementedError, match="BertLMHeadModel has no stream"):
        EncoderDecoderModel(bert).generate(IDS, **DRAFT)
    with pytest.raises(InputError, match="needs a second predict stream, .* config.ngram=1"):
        seq2seq(ngram=1).generate(IDS, **DRAFT)
    with pytest.raises(InputError, match="relative_bias_layout is 'transformers'"):
        seq2seq(relative_bias_layout="transformers").generate(IDS, **DRAFT)
    with pytest.raises(ConfigError, match="speculative_ngram drafts tokens of one row, not of beams, got num_beams=4"):
        GenerationConfig(num_beams=4, **DRAFT)
    with pytest.raises(ConfigError, match="there is no output_attentions or output_hidden_states"):
        GenerationConfig(output_attentions=True, output_hidden_states=True, return_dict_in_generate=True, **DRAFT)
    with pytest.raises(ConfigError, match="expected speculative_ngram to be True or False"):
        GenerationConfig(speculative_ngram=2)
