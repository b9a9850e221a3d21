"""T5 against transformers 4.57.1: logits, gradients, heads, caches, generation and checkpoints of either side."""

import inspect

import pytest
import torch

from modelwright.attention.caches import EncoderDecoderCache, StaticCache
from modelwright.models.t5 import modeling_t5 as ours
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.relative_bias import relative_bias, relative_position_bucket

pytestmark = pytest.mark.parity

SMALL = {
    "vocab_size": 50,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 7,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
VARIANTS = {
    "v1.0": {},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "gated-silu": {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3},
}
LM = "T5ForConditionalGeneration"
RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(3, 50, (2, 9), generator=RANDOM)
TARGET = torch.randint(3, 50, (2, 7), generator=RANDOM)
PADDED = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 9])
LABELS = torch.where(torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1] * 7]).bool(), TARGET, -100)
CLASSES = [name for name in ours.__all__ if name.startswith(("T5For", "T5Model", "T5EncoderModel"))]
BLOCKS = ["T5Stack", "T5Block", "T5LayerSelfAttention", "T5LayerCrossAttention", "T5LayerFF", "T5Attention"]


def pair(name=LM, **config):
    """Their model and ours with its weights."""
    import transformers

    config = {**SMALL, **config}
    torch.manual_seed(1)
    theirs = getattr(transformers, name)(transformers.T5Config(**config))
    with torch.no_grad():
        for parameter_name, parameter in theirs.named_parameters():
            # Large enough for attention to be far from uniform, or a wrong mask or bias would hardly show.
            if ".q." in parameter_name or "relative" in parameter_name:
                parameter.normal_(std=0.5)
            elif parameter.dim() == 1:
                parameter.normal_(1.0, 0.2)
    mine = getattr(ours, name)(T5Config(**config))
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.eval(), mine.eval()


def assert_close(left, right, **tolerance):
    torch.testing.assert_close(left, right, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def assert_same_gradients(theirs, mine):
    expected = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert_close(parameter.grad, expected[name].grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", [*CLASSES, *BLOCKS])
def test_signatures(name):
    from transformers.models.t5 import modeling_t5 as theirs

    wanted, found = (inspect.signature(getattr(module, name).forward).parameters for module in (theirs, ours))
    # Ours may have more, by keyword only.
    named = [each for each in found.values() if each.kind is not each.KEYWORD_ONLY]
    assert [(each.name, each.default) for each in named] == [(each.name, each.default) for each in wanted.values()]


def test_config_fields():
    import transformers

    theirs = transformers.T5Config(feed_forward_proj="gated-gelu", num_decoder_layers=2)
    mine = T5Config(feed_forward_proj="gated-gelu", num_decoder_layers=2)
    assert list(inspect.signature(T5Config).parameters) == list(inspect.signature(transformers.T5Config).parameters)
    own = set(theirs.to_dict()) - set(transformers.PretrainedConfig().to_dict())
    assert {"dense_act_fn", "is_gated_act"} < own
    for name in own:
        assert getattr(mine, name) == getattr(theirs, name), name


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 7), (16, 1000)])
def test_buckets_and_bias(bidirectional, buckets, distance):
    import transformers
    from transformers.models.t5.modeling_t5 import T5Attention

    positions = torch.arange(-2100, 2100)
    theirs = T5Attention._relative_position_bucket(positions, bidirectional, buckets, distance)
    assert torch.equal(relative_position_bucket(positions, bidirectional, buckets, distance), theirs)
    config = transformers.T5Config(
        **{**SMALL, "relative_attention_num_buckets": buckets, "relative_attention_max_distance": distance},
        is_decoder=not bidirectional,
    )
    attention = T5Attention(config, has_relative_attention_bias=True)
    table, options = (
        attention.relative_attention_bias.weight,
        {"bidirectional": bidirectional, "max_distance": distance},
    )
    assert torch.equal(relative_bias(table, 11, 11, **options), attention.compute_bias(11, 11))
    later = attention.compute_bias(11, 11)[:, :, 6:9, :9]
    assert torch.equal(relative_bias(table, 3, 9, 6, **options), later)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_losses_and_gradients(variant, kernel):
    theirs, mine = pair(**VARIANTS[variant])
    mine.set_attn_implementation(kernel)
    a, b = (model(IDS, PADDED, labels=LABELS) for model in (theirs, mine))
    assert list(a) == list(b)
    assert_close(b.logits, a.logits)
    assert_close(b.loss, a.loss)
    assert_close(b.encoder_last_hidden_state, a.encoder_last_hidden_state)
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


def test_masks_head_masks_and_all_outputs():
    theirs, mine = pair("T5Model")
    keywords = {
        "attention_mask": PADDED,
        "decoder_attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]),
        "head_mask": torch.tensor([[1.0, 0, 1, 0.5], [0, 1, 1, 1], [1, 1, 1, 1]]),
        "decoder_head_mask": torch.tensor([[1.0, 1, 0, 1], [0.5, 1, 1, 0]]),
        "cross_attn_head_mask": torch.tensor([[0.0, 1, 1, 1], [1, 0.3, 1, 0]]),
        "output_attentions": True,
        "output_hidden_states": True,
    }
    mine.set_attn_implementation("eager")
    a, b = (model(IDS, decoder_input_ids=TARGET, **keywords) for model in (theirs, mine))
    assert list(a) == list(b)
    seen, source_seen = keywords["decoder_attention_mask"].bool(), PADDED.bool()
    for name in ("decoder_hidden_states", "encoder_hidden_states"):
        assert len(b[name] or ()) == len(a[name] or ())
        rows = seen if name.startswith("decoder") else source_seen
        for left, right in zip(b[name] or (), a[name] or (), strict=True):
            assert_close(left[rows], right[rows])
    for name in ("decoder_attentions", "cross_attentions", "encoder_attentions"):
        rows = source_seen if name.startswith("encoder") else seen
        for left, right in zip(b[name], a[name], strict=True):
            assert_close(left.transpose(1, 2)[rows], right.transpose(1, 2)[rows])


@pytest.mark.parametrize("kind", ["object", "tuple", "static"])
def test_caches(kind):
    theirs, mine = pair()
    expected = theirs(IDS, PADDED, decoder_input_ids=TARGET, use_cache=False).logits
    keywords = {"attention_mask": PADDED, "encoder_outputs": mine.encoder(IDS, PADDED)}
    cache = None
    if kind == "static":
        cache = EncoderDecoderCache(
            StaticCache(mine.config, max_cache_len=12), StaticCache(mine.config, max_cache_len=11)
        )
    logits = []
    for first, last in ((0, 3), (3, 4), (4, 7)):
        output = mine(decoder_input_ids=TARGET[:, first:last], past_key_values=cache, **keywords)
        logits.append(output.logits)
        cache = output.past_key_values
        assert cache.get_seq_length() == last
        if kind == "tuple":
            cache = cache.to_legacy_cache()
        # What the cache holds of the encoder is not computed again.
        keywords["encoder_outputs"] = (torch.full_like(keywords["encoder_outputs"][0], float("nan")),)
    assert_close(torch.cat(logits, dim=1), expected)


HEADS = {
    "T5ForSequenceClassification": {"labels": torch.tensor([2, 0]), "num_labels": 3},
    "T5ForTokenClassification": {"labels": IDS % 3, "num_labels": 3},
    "T5ForQuestionAnswering": {"start_positions": torch.tensor([1, 4]), "end_positions": torch.tensor([3, 30])},
}


@pytest.mark.parametrize("variant", ["v1.0", "v1.1"])
@pytest.mark.parametrize("name", HEADS)
def test_heads(name, variant):
    keywords = dict(HEADS[name])
    labels = {"num_labels": keywords.pop("num_labels", 2)}
    theirs, mine = pair(name, **VARIANTS[variant], **labels)
    ids = IDS.clone()
    ids[0, 3], ids[0, 5:], ids[1, 4], ids[1, 8] = 1, 0, 1, 1
    ids[0, 4] = 1
    a = theirs(ids, PADDED, **{key: value.clone() for key, value in keywords.items()})
    b = mine(ids, PADDED, **keywords)
    assert list(a) == list(b)
    assert_close(b.loss, a.loss)
    rows = PADDED.bool() if "Token" in name else ...
    assert_close(b[1][rows], a[1][rows])
    a.loss.backward(), b.loss.backward()
    assert_same_gradients(theirs, mine)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_sequence_regression_and_multi_label(num_labels):
    theirs, mine = pair("T5ForSequenceClassification", num_labels=num_labels)
    ids = IDS.clone()
    ids[:, -1] = 1
    labels = torch.rand(2, num_labels).squeeze(-1)
    assert_close(mine(ids, labels=labels).loss, theirs(ids, labels=labels).loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_generation_token_for_token(variant):
    theirs, mine = pair(**VARIANTS[variant])
    keywords = {"attention_mask": PADDED, "max_new_tokens": 12, "do_sample": False}
    expected = theirs.generate(IDS, **keywords)
    assert torch.equal(mine.generate(IDS, **keywords), expected)
    assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_beam_search_token_for_token(variant):
    theirs, mine = pair(**VARIANTS[variant])
    for options in ({}, {"num_return_sequences": 3, "length_penalty": 0.4}, {"early_stopping": True}):
        keywords = {"attention_mask": PADDED, "max_new_tokens": 10, "num_beams": 4, "do_sample": False, **options}
        expected = theirs.generate(IDS, **keywords)
        # Theirs takes the pad id 0 for none, and fills up with the end id.
        expected = torch.where((expected == 1).cumsum(1) > 1, 0, expected)
        assert torch.equal(mine.generate(IDS, **keywords), expected)
        assert torch.equal(mine.generate(IDS, **keywords, use_cache=False), expected)


@pytest.mark.parametrize("variant", ["v1.0", "v1.1"])
def test_checkpoints_cross_both_ways(tmp_path, variant):
    import transformers

    theirs, mine = pair(**VARIANTS[variant])
    expected = theirs(IDS, labels=TARGET).logits
    theirs.save_pretrained(tmp_path / "theirs")
    mine.save_pretrained(tmp_path / "mine")
    for module, folder in ((ours, "theirs"), (transformers, "mine")):
        loaded, info = module.T5ForConditionalGeneration.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not info["missing_keys"], folder
        assert not info["unexpected_keys"], folder
        assert_close(loaded(IDS, labels=TARGET).logits, expected)
    encoder, info = ours.T5EncoderModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert info["unexpected_keys"] == ([] if variant == "v1.0" else ["lm_head.weight"])
    assert_close(encoder(IDS)[0], theirs.encoder(IDS)[0])


def test_float16_keeps_the_same_modules_in_fp32(tmp_path):
    import transformers

    theirs, _ = pair()
    theirs.save_pretrained(tmp_path)
    for dtype in (torch.float16, torch.bfloat16):
        a, b = (
            module.T5ForConditionalGeneration.from_pretrained(tmp_path, torch_dtype=dtype).state_dict()
            for module in (transformers, ours)
        )
        assert {name: tensor.dtype for name, tensor in b.items()} == {name: tensor.dtype for name, tensor in a.items()}
        kept = {name for name, tensor in b.items() if tensor.dtype == torch.float32}
        assert kept == ({name for name in b if ".wo." in name} if dtype == torch.float16 else set())


def test_initial_weights_have_the_same_spread():
    """Means and standard deviations of a model large enough to tell, each within sampling error."""
    import transformers

    config = {**SMALL, "d_model": 64, "d_kv": 32, "d_ff": 256, "vocab_size": 400, "num_labels": 64}
    for name in ("T5ForConditionalGeneration", "T5ForSequenceClassification", "T5ForTokenClassification"):
        for extra in ({}, VARIANTS["v1.1"], {"initializer_factor": 0.5}):
            torch.manual_seed(0)
            a = getattr(transformers, name)(transformers.T5Config(**config, **extra)).state_dict()
            b = getattr(ours, name)(T5Config(**config, **extra)).state_dict()
            for key, tensor in b.items():
                if tensor.numel() > 1000:
                    assert_close(tensor.std(), a[key].std(), rtol=0.1, atol=0, msg=f"{name} {extra} {key}")
                elif tensor.dim() == 1:
                    assert torch.equal(tensor, a[key]), key
