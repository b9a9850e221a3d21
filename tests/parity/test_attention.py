"""Attention's parts against transformers 4.57.1: rotary frequencies to the bit, masks, caches, kernels."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import LlamaConfig, masking_utils, modeling_attn_mask_utils, modeling_rope_utils
from transformers.integrations.sdpa_attention import sdpa_attention_forward as their_sdpa
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb, eager_attention_forward

from modelwright import cache_utils as our_caches
from modelwright import masking_utils as our_masks
from modelwright import modeling_attn_mask_utils as our_legacy
from modelwright import modeling_rope_utils as our_rope
from modelwright.attention import eager, rotary, sdpa

pytestmark = pytest.mark.parity

YARN = {"factor": 4.0, "original_max_position_embeddings": 512}
LONG = {"short_factor": [1 + 0.1 * i for i in range(8)], "long_factor": [2 + 0.3 * i for i in range(8)], "factor": 4.0}
SCALINGS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "yarn", **YARN},
    {"rope_type": "yarn", **YARN, "mscale": 0.7, "mscale_all_dim": 0.4, "beta_fast": 16.0, "beta_slow": 2.0},
    {"rope_type": "yarn", **YARN, "truncate": False, "attention_factor": 1.3},
    {"rope_type": "longrope", **LONG},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
]


def llama(scaling=None, **fields):
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    return LlamaConfig(rope_scaling=scaling, **{**sizes, **fields})


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
@pytest.mark.parametrize("theta", [10000.0, 500000.0, 10000])
@pytest.mark.parametrize("length", [None, 100, 2048, 2049, 9000])
def test_frequencies_are_equal_to_the_bit(scaling, theta, length):
    config = llama(scaling, rope_theta=theta)
    ours, our_scale = our_rope.ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, seq_len=length)
    theirs, their_scale = modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", seq_len=length)
    assert torch.equal(ours, theirs) and our_scale == their_scale


def test_longrope_with_its_original_length_in_the_config_as_phi3_has_it():
    config = llama(SCALINGS[6], original_max_position_embeddings=256)
    for length in (None, 256, 257, 4000):
        ours = our_rope.ROPE_INIT_FUNCTIONS["longrope"](config, seq_len=length)
        theirs = modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"](config, "cpu", seq_len=length)
        assert torch.equal(ours[0], theirs[0]) and ours[1] == theirs[1]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling["rope_type"])
def test_cosines_and_rotated_states_are_equal(scaling):
    config = llama(scaling, max_position_embeddings=64)
    ours, theirs = rotary.RotaryEmbedding(config), LlamaRotaryEmbedding(config)
    states = torch.randn(2, 4, 100, 16)
    for tokens in (40, 70, 100, 30):
        x, positions = states[:, :, :tokens], torch.arange(tokens).expand(2, -1)
        our_pair, their_pair = ours(x, positions), theirs(x, positions)
        assert all(torch.equal(a, b) for a, b in zip(our_pair, their_pair, strict=True))
        found, wanted = rotary.apply_rotary_pos_emb(x, x, *our_pair), apply_rotary_pos_emb(x, x, *their_pair)
        assert torch.equal(found[0], wanted[0])


@pytest.mark.parametrize("scaling", SCALINGS[1:], ids=lambda scaling: scaling["rope_type"])
def test_validation_raises_and_warns_where_theirs_does(scaling, caplog):
    kind = scaling["rope_type"]
    for validate in (our_rope.rope_config_validation, modeling_rope_utils.rope_config_validation):
        with pytest.raises(KeyError, match=f"Missing required keys in `rope_scaling` for 'rope_type'='{kind}'"):
            validate(SimpleNamespace(rope_scaling={"rope_type": kind}, max_position_embeddings=64, head_dim=16))


BUILDERS = {
    "create_causal_mask": {},
    "create_sliding_window_causal_mask": {"sliding_window": 3},
    "create_chunked_causal_mask": {"attention_chunk_size": 4},
}
PADDINGS = [None, [[1] * 8, [1] * 8], [[0, 0, 0, 1, 1, 1, 1, 1], [1] * 8], [[1, 1, 1, 1, 1, 1, 0, 0], [1] * 8]]


@pytest.mark.parametrize("name", ["eager", "sdpa"])
@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("padding", PADDINGS, ids=["none", "ones", "left", "right"])
@pytest.mark.parametrize("past", [0, 5, 7])
def test_masks_are_equal(name, build, padding, past, said_nothing):
    config = llama(attn_implementation=name, **BUILDERS[build])
    mask = None if padding is None else torch.tensor(padding)
    embeds, states = torch.zeros(2, 8 - past, 64), torch.zeros(2, 4, past, 16)
    found = []
    for masks, caches in ((our_masks, our_caches), (masking_utils, transformers.cache_utils)):
        cache = None
        if past:
            cache = caches.DynamicCache()
            for layer in range(2):
                cache.update(states, states, layer)
        options = {"cache_position": torch.arange(past, 8), "past_key_values": cache}
        found.append(getattr(masks, build)(config, input_embeds=embeds, attention_mask=mask, **options))
    ours, theirs = found
    if theirs is None or ours is None:
        assert (ours is None) == (theirs is None)
        return
    assert torch.equal(ours, theirs)


@pytest.fixture
def said_nothing(caplog):
    yield
    assert [record for record in caplog.records if record.name.startswith("modelwright")] == []


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_packed_sequences_and_predicates_are_equal(name):
    config = llama(attn_implementation=name)
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    allowed = torch.rand(2, 6, 6) < 0.5
    for options in (
        {"position_ids": positions},
        {"or_mask_function": lambda b, h, q, kv: allowed[b, q, kv]},
        {"and_mask_function": lambda b, h, q, kv: allowed[b, q, kv]},
    ):
        arguments = {"attention_mask": None, "cache_position": torch.arange(6), "past_key_values": None, **options}
        ours = our_masks.create_causal_mask(config, input_embeds=torch.zeros(2, 6, 64), **arguments)
        theirs = masking_utils.create_causal_mask(config, input_embeds=torch.zeros(2, 6, 64), **arguments)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("padding", PADDINGS[1:])
@pytest.mark.parametrize("queries", [8, 3, 1])
def test_legacy_helpers_are_equal(padding, queries):
    mask, embeds = torch.tensor(padding), torch.zeros(2, queries, 4)
    for name in ("_prepare_4d_causal_attention_mask", "_prepare_4d_causal_attention_mask_for_sdpa"):
        ours = getattr(our_legacy, name)(mask, (2, queries), embeds, 8 - queries)
        theirs = getattr(modeling_attn_mask_utils, name)(mask, (2, queries), embeds, 8 - queries)
        assert (ours is None) == (theirs is None)
        if ours is None:
            continue
        # Theirs leaves rows that see nothing as they are on a CPU; ours lets them see everything there too.
        sighted = (theirs == 0).any(-1, keepdim=True).expand_as(theirs)
        assert torch.equal(ours[sighted], theirs[sighted])
    for name in ("_prepare_4d_attention_mask", "_prepare_4d_attention_mask_for_sdpa"):
        ours = getattr(our_legacy, name)(mask, torch.float32, queries)
        theirs = getattr(modeling_attn_mask_utils, name)(mask, torch.float32, queries)
        assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs))


@pytest.mark.parametrize("static", [False, True])
def test_caches_give_the_same_tensors(static):
    config = llama(layer_types=["full_attention", "sliding_attention"], sliding_window=4)
    if static:
        mine, other = (c.StaticCache(config=config, max_cache_len=12) for c in (our_caches, transformers.cache_utils))
    else:
        mine, other = (c.DynamicCache(config=config) for c in (our_caches, transformers.cache_utils))
    seen = 0
    for tokens in (2, 1, 4, 1, 1):
        position = torch.arange(seen, seen + tokens)
        for layer in range(2):
            states = torch.randn(1, 4, tokens, 16)
            assert mine.get_mask_sizes(position, layer)[1] >= other.get_mask_sizes(position, layer)[1]
            ours = mine.update(states, -states, layer, {"cache_position": position})[0]
            theirs = other.update(states, -states, layer, {"cache_position": position})[0]
            shared = min(ours.shape[2], theirs.shape[2])
            if not static or layer == 1:
                ours, theirs = ours[:, :, -shared:], theirs[:, :, -shared:]
            assert torch.equal(ours, theirs)
        seen += tokens
        assert mine.get_seq_length() == int(other.get_seq_length()) == seen


def test_legacy_tuples_cross():
    other = transformers.DynamicCache()
    for layer in range(2):
        other.update(torch.randn(2, 4, 3, 16), torch.randn(2, 4, 3, 16), layer)
    mine = our_caches.DynamicCache.from_legacy_cache(other.to_legacy_cache())
    back = transformers.DynamicCache.from_legacy_cache(mine.to_legacy_cache())
    assert torch.equal(back.layers[1].keys, other.layers[1].keys)


@pytest.mark.parametrize("padded", [False, True])
def test_kernels_are_equal(padded):
    config = llama(num_key_value_heads=2)
    module = transformers.models.llama.modeling_llama.LlamaAttention(config, 0).eval()
    q, k, v = torch.randn(2, 4, 6, 16), torch.randn(2, 2, 6, 16), torch.randn(2, 2, 6, 16)
    padding = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6]) if padded else None
    for name, ours, theirs in (
        ("eager", eager.eager_attention_forward, eager_attention_forward),
        ("sdpa", sdpa.sdpa_attention_forward, their_sdpa),
    ):
        config._attn_implementation = name
        mask = our_masks.create_causal_mask(config, torch.zeros(2, 6, 64), padding)
        found, wanted = (f(module, q, k, v, mask, scaling=0.25)[0] for f in (ours, theirs))
        rows = slice(2, None) if padded else slice(None)
        assert torch.allclose(found[:, rows], wanted[:, rows], atol=1e-6)
