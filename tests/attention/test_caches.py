"""Caches: what they give back, their sizes, rows, crop, tuples, and wrong input."""

import pytest
import torch

from modelwright.attention.cache_layers import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer
from modelwright.attention.caches import Cache, DynamicCache, EncoderDecoderCache, StaticCache, as_cache
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError


def states(tokens, batch=2, first=0):
    """Keys and values [batch, 1, tokens, 3]; key (b, t) is 100 b + position, values are negative."""
    keys = (torch.arange(first, first + tokens)[None, :] + 100 * torch.arange(batch)[:, None]).float()
    keys = keys[:, None, :, None].expand(batch, 1, tokens, 3).clone()
    return keys, -keys


def filled(cache, tokens, batch=2, layers=2):
    for layer in range(layers):
        cache.update(*states(tokens, batch), layer)
    return cache


@pytest.fixture(params=["dynamic", "static"])
def cache(request, config):
    return DynamicCache() if request.param == "dynamic" else StaticCache(config(), max_cache_len=9)


def test_update_gives_all_tokens_so_far(cache):
    assert cache.get_seq_length() == 0 and not cache.is_initialized and cache.max_batch_size is None
    seen = 0
    for new in (3, 1, 2):
        size, offset = cache.get_mask_sizes(new, 0)
        for layer in range(2):
            keys, values = cache.update(*states(new, first=seen), layer)
        seen += new
        assert (keys.shape[2], 0) == (size, offset)
        assert torch.equal(keys[:, :, :seen], states(seen)[0]) and torch.equal(values[:, :, :seen], states(seen)[1])
        assert cache.get_seq_length() == cache.get_seq_length(1) == seen
    assert cache.is_initialized and cache.max_batch_size == 2 and len(cache) == 2
    assert cache.get_mask_sizes(torch.arange(6, 8), 0) == cache.get_mask_sizes(2, 0)


def test_rows(cache):
    filled(cache, 3)
    cache.reorder_cache(torch.tensor([1, 1]))
    assert cache[0][0][:, 0, 0, 0].tolist() == [100, 100]
    cache.batch_repeat_interleave(3)
    assert cache.max_batch_size == 6
    cache.batch_select_indices(torch.tensor([0]))
    assert cache[1][1][:, 0, 1, 0].tolist() == [-101]
    assert cache.get_seq_length() == 3


@pytest.mark.parametrize(("to", "left"), [(2, 2), (-1, 3), (9, 4), (-9, 0), (0, 0)])
def test_crop(cache, to, left):
    filled(cache, 4)
    cache.crop(to)
    assert cache.get_seq_length() == left
    keys, _ = cache.update(*states(1, first=77), 0)
    assert keys[0, 0, : left + 1, 0].tolist() == [*range(left), 77]


def test_reset(cache):
    filled(cache, 4)
    cache.rope_lengths["x"] = 3
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.rope_lengths == {}
    assert filled(cache, 2)[0][0][0, 0, :2, 0].tolist() == [0, 1]


def test_tuples_there_and_back():
    cache = filled(DynamicCache(), 3)
    legacy = cache.to_legacy_cache()
    assert len(legacy) == 2 and torch.equal(legacy[1][1], states(3)[1])
    for back in (DynamicCache.from_legacy_cache(legacy), as_cache(legacy), DynamicCache(legacy)):
        assert back.get_seq_length() == 3 and all(
            torch.equal(a, b) for mine, old in zip(back, legacy, strict=True) for a, b in zip(mine, old, strict=True)
        )
    assert as_cache(cache) is cache and as_cache(None) is None
    assert DynamicCache.from_legacy_cache(None).get_seq_length() == 0
    with pytest.raises(InputError, match="layer 1 is int"):
        DynamicCache.from_legacy_cache([legacy[0], 3])
    with pytest.raises(InputError, match="expected a cache or a tuple of"):
        as_cache("cache")


def test_a_static_buffer_keeps_its_place_and_says_when_it_is_full(config):
    cache = filled(StaticCache(config(), max_cache_len=4), 3)
    place = cache[0][0].data_ptr()
    cache.update(*states(1, first=3), 0)
    assert cache[0][0].data_ptr() == place and cache.max_cache_len == 4 and cache.is_compileable
    with pytest.raises(InputError, match=r"token 5 does not fit into max_cache_len=4 \(4 tokens held, 1 new\)"):
        cache.update(*states(1), 0)
    cache.update(*states(1, first=9), 0, {"cache_position": torch.tensor([1])})
    assert cache[0][0][0, 0, :, 0].tolist() == [0, 9, 2, 3] and cache.get_seq_length() == 2


def test_a_compiled_step_writes_into_the_same_buffers(config):
    cache = filled(StaticCache(config(), max_cache_len=6), 2)

    def step(states, position):
        return cache.update(states, -states, 0, {"cache_position": position})[0].sum()

    compiled = torch.compile(step, backend="eager", fullgraph=True)
    place = cache[0][0].data_ptr()
    for position in (2, 3, 4):
        compiled(states(1, first=position)[0], torch.tensor([position]))
    assert cache[0][0].data_ptr() == place and cache.get_seq_length() == 5
    assert cache[0][0][0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 0]


def test_the_decoders_layers_are_counted(config):
    both = config(num_hidden_layers=2, num_decoder_layers=3)
    assert len(StaticCache(both, max_cache_len=4)) == len(DynamicCache(config=both)) == 3


def test_a_static_cache_from_the_configs_sizes(config):
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 12, "max_position_embeddings": 5}
    cache = StaticCache(config(**sizes), max_batch_size=3, dtype=torch.bfloat16)
    assert cache[1][0].shape == (3, 2, 5, 3) and cache[1][0].dtype == torch.bfloat16
    assert cache.get_seq_length() == 0
    with pytest.raises(ConfigError, match="names neither `layer_types` nor `num_hidden_layers`"):
        StaticCache(object(), max_cache_len=3)


def test_a_config_makes_its_sliding_layers_slide(config):
    kinds = config(layer_types=["full_attention", "sliding_attention"], sliding_window=3)
    dynamic, static = DynamicCache(config=kinds), StaticCache(kinds, max_cache_len=9)
    assert dynamic.is_sliding == static.is_sliding == [False, True]
    assert StaticCache(kinds, max_cache_len=2).is_sliding == [False, False]
    filled(dynamic, 6), filled(static, 6)
    assert dynamic[0][0].shape[2] == 6 and dynamic[1][0][0, 0, :, 0].tolist() == [4, 5]
    assert static[1][0][0, 0, :, 0].tolist() == [3, 4, 5] and static[1][0].shape[2] == 3
    assert dynamic.get_seq_length(1) == static.get_seq_length(1) == 6
    for cache, held in ((dynamic, 2), (static, 3)):
        with pytest.raises(InputError, match=f"has seen 6 tokens holds the last {held} and cannot go back to 5"):
            cache.crop(5)


def test_states_that_do_not_fit_are_named(cache):
    filled(cache, 2)
    with pytest.raises(InputError, match=r"got new states \[3, 1, 1, 3\]; batch, heads and size must not change"):
        cache.update(*states(1, batch=3), 0)
    with pytest.raises(InputError, match="it has 2 layers, layer 5 was asked for"):
        cache[5]


def test_wrong_constructions():
    with pytest.raises(UnknownArgumentError, match="DynamicCache got an unknown keyword 'offloading'"):
        DynamicCache(offloading=True)
    with pytest.raises(InputError, match="expected sliding_window to be a positive number of tokens, got 0"):
        DynamicSlidingWindowLayer(0)
    with pytest.raises(InputError, match="expected max_cache_len to be a positive number of tokens, got 1.5"):
        StaticLayer(1.5)
    with pytest.raises(InputError, match="expected two caches"):
        EncoderDecoderCache(DynamicCache())
    with pytest.raises(InputError, match="layer 0 holds nothing yet"):
        Cache([DynamicLayer()])[0]


def test_encoder_decoder():
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    filled(cache, 2)
    assert cache.get_seq_length() == 2 and cache.is_updated == {} and len(cache.to_legacy_cache()[0]) == 2
    filled(cache.cross_attention_cache, 5)
    cache.is_updated = {0: True, 1: True}
    legacy = cache.to_legacy_cache()
    assert [tensor.shape[2] for tensor in legacy[1]] == [2, 2, 5, 5]
    back = as_cache(legacy)
    assert isinstance(back, EncoderDecoderCache) and back.is_updated == {0: True, 1: True}
    back.reorder_cache(torch.tensor([1, 0]))
    assert back[0][0][0, 0, 0, 0] == back[0][2][0, 0, 0, 0] == 100
    back.batch_repeat_interleave(2)
    back.crop(1)
    assert [tensor.shape[:3] for tensor in back[0]] == [(4, 1, 1)] * 2 + [(4, 1, 5)] * 2
    assert back.get_mask_sizes(3) == (4, 0)
    back.reset()
    assert back.is_updated == {} and back.cross_attention_cache.get_seq_length() == 0
    halves = EncoderDecoderCache.from_legacy_cache(tuple(pair[:2] for pair in legacy))
    assert halves.is_updated == {} and halves.get_seq_length() == 2
