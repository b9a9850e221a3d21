"""The mask builders, each against a mask written out with loops; skip rules; caches; wrong input."""

import copy
import io

import pytest
import torch

from modelwright.attention.caches import DynamicCache, StaticCache
from modelwright.attention.flash import flash_attention_forward
from modelwright.attention.interface import AttentionInterface
from modelwright.attention.mask_interface import eager_mask, flash_attention_mask, flex_attention_mask, sdpa_mask
from modelwright.attention.mask_picture import AttentionMask, picture
from modelwright.attention.masks import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_chunked_causal_mask,
    create_masks_for_generate,
    create_recurrent_attention_mask,
    create_sliding_window_causal_mask,
)
from modelwright.attention.predicates import and_masks, find_packed_sequence_indices, or_masks
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError

LEFT_PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def written_out(rule, batch, queries, keys, padding=None, first_query=0, first_key=0):
    mask = torch.zeros(batch, 1, queries, keys, dtype=torch.bool)
    for b in range(batch):
        for q in range(queries):
            for k in range(keys):
                seen = padding is None or bool(padding[b, k + first_key])
                mask[b, 0, q, k] = seen and rule(b, q + first_query, k + first_key)
    return mask


def causal(b, q, k):
    return k <= q


RULES = [
    (create_causal_mask, {}, causal),
    (create_sliding_window_causal_mask, {"sliding_window": 3}, lambda b, q, k: q - 3 < k <= q),
    (
        create_chunked_causal_mask,
        {"attention_chunk_size": 2},
        lambda b, q, k: k <= q and (k - 2 * (b == 0)) // 2 == (q - 2 * (b == 0)) // 2,
    ),
    (create_bidirectional_mask, {}, lambda b, q, k: True),
    (create_bidirectional_sliding_window_mask, {"sliding_window": 2}, lambda b, q, k: abs(q - k) <= 2),
]


@pytest.mark.parametrize(("build", "fields", "rule"), RULES, ids=[rule[0].__name__ for rule in RULES])
@pytest.mark.parametrize("name", ["sdpa", "eager", "flex_attention"])
def test_patterns_with_left_padding_in_every_form(build, fields, rule, name, config, embeds):
    mask = build(config(_attn_implementation=name, **fields), embeds(2, 6), LEFT_PADDED)
    wanted = written_out(rule, 2, 6, 6, LEFT_PADDED)
    if name == "flex_attention":
        from torch.nn.attention.flex_attention import create_mask

        mask = create_mask(mask.mask_mod, 2, 1, 6, 6, device="cpu")
    elif name == "eager":
        assert mask.dtype == torch.float32 and set(mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}
        mask = mask == 0
    assert torch.equal(mask, wanted)


def test_eager_masks_use_the_lowest_number_of_the_dtype(config):
    mask = create_causal_mask(config(_attn_implementation="eager"), torch.zeros(1, 2, 4, dtype=torch.float16))
    assert mask.dtype == torch.float16 and mask.min() == -65504


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_both_spellings_of_the_inputs(name, config, embeds):
    config = config(_attn_implementation=name)
    old = create_causal_mask(
        config,
        input_embeds=embeds(2, 6),
        attention_mask=LEFT_PADDED,
        cache_position=torch.arange(6),
        past_key_values=None,
    )
    new = create_causal_mask(config=config, inputs_embeds=embeds(2, 6), attention_mask=LEFT_PADDED)
    assert torch.equal(old, new)


def test_a_mask_that_says_nothing_new_is_left_out(config, embeds):
    sdpa, eager = config(sliding_window=3), config(_attn_implementation="eager")
    ones = torch.ones(2, 6, dtype=torch.long)
    assert create_causal_mask(sdpa, embeds(2, 6), None) is None
    assert create_causal_mask(sdpa, embeds(2, 6), ones) is None
    assert create_causal_mask(sdpa, embeds(2, 6), LEFT_PADDED) is not None
    assert create_causal_mask(sdpa, embeds(2, 6), ones, allow_is_causal_skip=False) is not None
    assert create_causal_mask(eager, embeds(2, 6), None) is not None
    assert create_sliding_window_causal_mask(sdpa, embeds(2, 3)) is None
    assert create_sliding_window_causal_mask(sdpa, embeds(2, 4)) is not None
    for anything in (sdpa, eager):
        assert create_bidirectional_mask(anything, embeds(2, 6), ones) is None
        assert create_bidirectional_mask(anything, embeds(2, 6), ones, allow_is_bidirectional_skip=False) is not None


def test_the_skip_is_never_taken_while_tracing(config, embeds):
    for name in ("sdpa", "eager"):
        named = config(_attn_implementation=name)
        for build in (create_causal_mask, create_bidirectional_mask):
            compiled = torch.compile(lambda x, m: build(named, x, m), backend="eager", fullgraph=True)  # noqa: B023
            rule = causal if build is create_causal_mask else lambda b, q, k: True
            mask = compiled(embeds(2, 6), torch.ones(2, 6, dtype=torch.long))
            assert torch.equal(mask == (0 if name == "eager" else True), written_out(rule, 2, 6, 6))


def grown_cache(tokens, config=None, cache=None):
    cache = DynamicCache(config=config) if cache is None else cache
    for layer in range(2):
        cache.update(torch.zeros(2, 1, tokens, 4), torch.zeros(2, 1, tokens, 4), layer)
    return cache


@pytest.mark.parametrize("new", [1, 2])
def test_cache_offsets(new, config, embeds):
    past = grown_cache(6 - new)
    mask = create_causal_mask(config(), embeds(2, new), LEFT_PADDED, past_key_values=past)
    assert torch.equal(mask, written_out(causal, 2, new, 6, LEFT_PADDED, first_query=6 - new))
    mask = create_causal_mask(config(), embeds(2, new), None, past_key_values=past)
    assert (mask is None) == (new == 1)
    old = create_causal_mask(
        config(_attn_implementation="eager"), embeds(2, new), LEFT_PADDED, cache_position=torch.arange(6 - new, 6)
    )
    assert torch.equal(old == 0, written_out(causal, 2, new, 6, LEFT_PADDED, first_query=6 - new))


def test_static_caches_hide_what_is_not_written(config, embeds):
    config = config()
    past = grown_cache(3, cache=StaticCache(config, max_cache_len=8))
    mask = create_causal_mask(config, embeds(2, 1), None, past_key_values=past)
    assert mask[:, 0, 0].tolist() == [[True] * 4 + [False] * 4] * 2
    mask = create_causal_mask(config, embeds(2, 1), LEFT_PADDED[:, :4], past_key_values=past)
    assert mask[0, 0, 0].tolist() == [False] * 2 + [True] * 2 + [False] * 4


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("steps", [[2, 1, 1, 1, 1, 1], [5, 1, 1], [4, 3], [1] * 7])
def test_sliding_caches_and_their_masks_fit_at_every_step(static, steps, config, embeds):
    config = config(sliding_window=3, _attn_implementation="eager")
    past = StaticCache(config, max_cache_len=10) if static else DynamicCache(config=config)
    seen = 0
    positions = torch.arange(7.0)[None, None, :, None]
    for new in steps:
        mask = create_sliding_window_causal_mask(config, embeds(1, new), None, past_key_values=past)
        states = positions[:, :, seen : seen + new] + 1
        keys, _ = past.update(states, states, 0)
        past.update(states, states, 1)
        assert mask.shape[-1] == keys.shape[2]
        for row in range(new):
            found = sorted(keys[0, 0, mask[0, 0, row] == 0, 0].tolist())
            assert found == [float(p + 1) for p in range(max(seen + row - 2, 0), seen + row + 1)]
        seen += new


def test_packed_sequences_from_position_ids(config, embeds):
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    numbers = find_packed_sequence_indices(positions)
    assert numbers.tolist() == [[0, 0, 0, 1, 1, 2], [0] * 6]
    assert find_packed_sequence_indices(positions[1:]) is None
    assert find_packed_sequence_indices(positions[1:] + 4) is None
    wanted = written_out(lambda b, q, k: k <= q and numbers[b, q] == numbers[b, k], 2, 6, 6)
    assert torch.equal(create_causal_mask(config(), embeds(2, 6), None, position_ids=positions), wanted)
    assert torch.equal(create_causal_mask(config(), embeds(2, 6), None, position_ids=positions[:1])[1], wanted[0])
    # transformers looks only where there is no cache; an empty one, which a model makes for itself, says nothing more.
    empty = create_causal_mask(config(), embeds(2, 6), None, position_ids=positions, past_key_values=DynamicCache())
    assert torch.equal(empty, wanted)
    # A mask, or tokens in the cache, say more than the positions do.
    ones = torch.ones(2, 6, dtype=torch.long)
    assert create_causal_mask(config(), embeds(2, 6), ones, position_ids=positions) is None
    step = {"position_ids": torch.tensor([[0], [6]]), "past_key_values": grown_cache(6)}
    assert create_causal_mask(config(), embeds(2, 1), None, **step) is None


def test_predicates_of_the_caller(config, embeds):
    allowed = torch.rand(2, 6, 6) < 0.4
    extra = {"or_mask_function": lambda b, h, q, kv: allowed[b][q][kv]}
    wanted = written_out(lambda b, q, k: k <= q or allowed[b, q, k], 2, 6, 6, LEFT_PADDED)
    assert torch.equal(create_causal_mask(config(), embeds(2, 6), LEFT_PADDED, **extra), wanted)
    both = {"and_mask_function": extra["or_mask_function"]}
    assert torch.equal(
        create_causal_mask(config(), embeds(2, 6), None, **both), written_out(causal, 2, 6, 6) & allowed[:, None]
    )
    assert torch.equal(create_bidirectional_mask(config(), embeds(2, 6), None, **both), allowed[:, None])
    for combine in (and_masks, or_masks):
        with pytest.raises(TypeError, match="expected functions of"):
            combine(allowed)


def test_blocks_see_themselves(config, embeds):
    blocks = torch.tensor([[-1, 0, 0, 0, -1, 1], [0, 0, -1, -1, 1, 1]])
    wanted = written_out(lambda b, q, k: k <= q or (blocks[b, q] == blocks[b, k] and blocks[b, q] >= 0), 2, 6, 6)
    assert torch.equal(create_causal_mask(config(), embeds(2, 6), None, block_sequence_ids=blocks), wanted)


def test_cross_attention(config, embeds):
    padding = torch.tensor([[1, 1, 0], [1, 1, 1]])
    mask = create_bidirectional_mask(config(), embeds(2, 4), padding, encoder_hidden_states=embeds(2, 3))
    assert torch.equal(mask, padding.bool()[:, None, None].expand(2, 1, 4, 3))
    cached = {"encoder_hidden_states": embeds(2, 3), "past_key_values": grown_cache(5)}
    assert torch.equal(create_bidirectional_mask(config(), embeds(2, 4), padding, **cached), mask)


def test_bidirectional_over_a_cache(config, embeds):
    mask = create_bidirectional_mask(config(), embeds(2, 2), LEFT_PADDED, past_key_values=grown_cache(4))
    assert torch.equal(mask, LEFT_PADDED.bool()[:, None, None].expand(2, 1, 2, 6))
    assert create_bidirectional_mask(config(), embeds(2, 2), None, past_key_values=grown_cache(4)) is None
    static = grown_cache(4, cache=StaticCache(config(), max_cache_len=8))
    mask = create_bidirectional_mask(config(), embeds(2, 2), None, past_key_values=static)
    assert mask.shape == (2, 1, 2, 8) and mask[..., :6].all() and not mask[..., 6:].any()
    near = create_bidirectional_sliding_window_mask(
        config(sliding_window=2), embeds(2, 2), None, past_key_values=grown_cache(4)
    )
    assert torch.equal(near, written_out(lambda b, q, k: abs(q - k) <= 2, 2, 2, 6, first_query=4))


def test_ready_masks_pass_as_they_are(config, embeds):
    ready = torch.zeros(2, 1, 6, 6)
    assert create_causal_mask(config(), embeds(2, 6), ready) is ready
    block = flex_attention_mask(2, 6, 6)
    assert create_causal_mask(config(_attn_implementation="flex_attention"), embeds(2, 6), block) is block


def test_a_recurrent_layer_gets_the_padding_of_the_new_tokens(config, embeds):
    embeds, tokens = embeds(2, 6), 6
    longer = torch.cat([torch.ones(2, 3, dtype=torch.long), LEFT_PADDED], dim=1)
    for mask in (LEFT_PADDED, longer):
        assert torch.equal(create_recurrent_attention_mask(config, embeds, mask), LEFT_PADDED)
    assert create_recurrent_attention_mask(config, embeds, None) is None
    assert create_recurrent_attention_mask(config, embeds, torch.ones_like(LEFT_PADDED)) is None
    assert create_recurrent_attention_mask(config, embeds, torch.cat([LEFT_PADDED, torch.ones(2, tokens)], 1)) is None
    assert create_recurrent_attention_mask(config, embeds[:, :1], LEFT_PADDED) is None
    assert create_recurrent_attention_mask(config, embeds, torch.ones(2, 1, tokens, tokens)) is None
    kinds = create_masks_for_generate(config(layer_types=["linear_attention", "full_attention"]), embeds, LEFT_PADDED)
    assert torch.equal(kinds["linear_attention"], LEFT_PADDED) and kinds["full_attention"].dim() == 4
    with pytest.raises(InputError, match=r"expected an attention_mask \[batch, tokens\] = \[2, 6 or more\], got shape"):
        create_recurrent_attention_mask(config, embeds, LEFT_PADDED[:, 1:])


def test_masks_for_generate(config, embeds):
    fields = {"sliding_window": 2, "attention_chunk_size": 2}
    kinds = ["full_attention", "sliding_attention", "chunked_attention", "full_attention"]
    masks = create_masks_for_generate(config(layer_types=kinds, **fields), embeds(2, 6), LEFT_PADDED)
    assert list(masks) == kinds[:3]
    assert torch.equal(
        masks["sliding_attention"], create_sliding_window_causal_mask(config(**fields), embeds(2, 6), LEFT_PADDED)
    )
    single = create_masks_for_generate(config(), embeds(2, 6), LEFT_PADDED)
    assert torch.equal(single, masks["full_attention"])
    only = create_masks_for_generate(config(sliding_window=2), embeds(2, 6), LEFT_PADDED)
    assert torch.equal(only, masks["sliding_attention"])
    with pytest.raises(ConfigError, match="layer_types: expected names out of chunked_attention, conv, full_attention"):
        create_masks_for_generate(config(layer_types=["recurrent"]), embeds(2, 6))


@pytest.mark.parametrize("mask", [torch.ones(2, 5), torch.ones(2, 7), torch.ones(3, 6), torch.ones(2, 6, 6)])
def test_a_wrong_mask_shape_is_named(mask, config, embeds):
    for build in (create_causal_mask, create_bidirectional_mask):
        with pytest.raises(InputError, match=r"\[batch, tokens\] = \[2, 6\] \(0 tokens in the cache\)") as caught:
            build(config(), embeds(2, 6), mask)
        assert str(caught.value).endswith(f"got shape {list(mask.shape)}")


def test_other_wrong_calls(config, embeds):
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'past_key_value'. Did you mean 'past_key_values'?"):
        create_causal_mask(config(), embeds(1, 2), None, past_key_value=None)
    with pytest.raises(InputError, match=r"expected inputs_embeds \[batch, tokens, size\], once"):
        create_causal_mask(config())
    with pytest.raises(
        ConfigError, match=r"expected the config to have sliding_window \(a number of tokens\), got None"
    ):
        create_sliding_window_causal_mask(config(sliding_window=None), embeds(1, 2))
    with pytest.raises(InputError, match="expected q_length"):
        sdpa_mask(1, kv_length=3)


def test_flash_masks(config, embeds, monkeypatch):
    # The kernel's package may be absent; its masks are ours.
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", flash_attention_forward)
    name = {"_attn_implementation": "flash_attention_2"}
    assert create_causal_mask(config(**name), embeds(2, 6), torch.ones(2, 6)) is None
    assert torch.equal(create_causal_mask(config(**name), embeds(2, 6), LEFT_PADDED), LEFT_PADDED.bool())
    with pytest.raises(InputError, match="cannot attend in chunks: 6 keys are more than a chunk of 2"):
        create_chunked_causal_mask(config(attention_chunk_size=2, **name), embeds(2, 6))
    with pytest.raises(InputError, match="takes no mask functions"):
        create_causal_mask(config(**name), embeds(2, 6), or_mask_function=lambda b, h, q, kv: kv == 0)
    with pytest.raises(InputError, match="takes no mask functions, packed sequences or blocks"):
        create_causal_mask(config(**name), embeds(1, 4), position_ids=torch.tensor([[0, 1, 0, 1]]))
    assert flash_attention_mask(2, 6, 6) is None


def test_mask_functions_take_the_4x_spelling():
    positions = torch.arange(3, 5)
    for function in (sdpa_mask, eager_mask):
        new = function(2, q_length=2, q_offset=3, kv_length=5, allow_is_causal_skip=False)
        assert torch.equal(function(2, cache_position=positions, kv_length=5, allow_is_causal_skip=False), new)
        assert torch.equal(function(2, positions, 5, allow_is_causal_skip=False), new)


def test_a_mask_prints_a_picture(config, embeds):
    mask = create_causal_mask(config(), embeds(2, 3), torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert repr(mask) == (
        "AttentionMask(shape=[2, 1, 3, 3], dtype=torch.bool)\nrow 0:\n···\n·■·\n·■■\nrow 1:\n■··\n■■·\n■■■"
    )
    assert type(mask & mask) is torch.Tensor and type(mask[:, :, :1]) is torch.Tensor
    additive = create_causal_mask(config(_attn_implementation="eager"), embeds(2, 2))
    assert str(additive).endswith("torch.float32)\n■·\n■■")
    assert picture(torch.ones(60, 50, dtype=torch.bool)).splitlines()[-2:] == ["■" * 40 + "…", "⋮"]
    assert repr(AttentionMask([[True, False]])).endswith("\n■·")
    assert "(no data)" in repr(torch.ones(1, 1, 2, 2, device="meta").as_subclass(AttentionMask))


def test_a_mask_can_be_copied_and_saved(config, embeds):
    mask = create_causal_mask(config(_attn_implementation="eager"), embeds(2, 3), LEFT_PADDED[:, 1:4])
    twin = copy.deepcopy(mask)
    assert type(twin) is AttentionMask and torch.equal(twin, mask) and twin.data_ptr() != mask.data_ptr()
    file = io.BytesIO()
    torch.save(mask, file)
    file.seek(0)
    back = torch.load(file, weights_only=True)
    assert type(back) is torch.Tensor and torch.equal(back, mask)


def test_a_mask_from_outside_enters_a_compiled_function(config, embeds):
    mask = create_causal_mask(config(), embeds(2, 6), LEFT_PADDED)
    compiled = torch.compile(lambda x, m: x.masked_fill(~m, 0.0), backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2, 1, 6, 6), mask).bool(), mask)
