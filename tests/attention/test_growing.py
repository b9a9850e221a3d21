"""The growing buffers of dynamic caches: no copy per step, and nobody's tensors are written to."""

import copy

import pytest
import torch

from modelwright.attention.cache_layers import DynamicLayer, DynamicSlidingWindowLayer


def states(tokens, first=0):
    keys = torch.arange(first, first + tokens).float()[None, None, :, None].expand(2, 1, tokens, 3).clone()
    return keys, -keys


def seen(tensor):
    return tensor[0, 0, :, 0].tolist()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_steps_write_behind_what_is_held():
    layer = DynamicLayer()
    layer.update(*states(5))
    places = set()
    for step in range(200):
        keys, values = layer.update(*states(1, first=5 + step))
        places.add(keys.data_ptr())
        assert seen(keys) == list(range(6 + step)) and seen(values) == [-place for place in range(6 + step)]
    assert len(places) <= 4


def test_tensors_given_out_stay_as_they_were():
    layer = DynamicLayer()
    layer.update(*states(2))
    older, _ = layer.update(*states(1, first=2))
    newer, _ = layer.update(*states(1, first=3))
    layer.crop(2)
    other, _ = layer.update(*states(2, first=50))
    assert seen(older) == [0, 1, 2] and seen(newer) == [0, 1, 2, 3] and seen(other) == [0, 1, 50, 51]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_go_their_own_ways(duplicate):
    layer = DynamicLayer()
    layer.update(*states(2))
    layer.update(*states(1, first=2))
    twin = duplicate(layer)
    mine, _ = layer.update(*states(1, first=70))
    other, _ = twin.update(*states(1, first=80))
    again, _ = layer.update(*states(1, first=71))
    assert seen(mine) == [0, 1, 2, 70] and seen(other) == [0, 1, 2, 80] and seen(again) == [0, 1, 2, 70, 71]


def test_gradients_reach_what_was_held():
    layer = DynamicLayer()
    layer.update(*states(2))
    layer.update(*states(1, first=2))
    with torch.enable_grad():
        new = states(1, first=3)[0].requires_grad_()
        layer.update(new, new)
        keys, _ = layer.update(*states(1, first=4))
        keys.square().sum().backward()
    assert seen(new.grad) == [6.0]


def test_a_cache_begun_in_inference_mode_goes_on_outside():
    layer = DynamicLayer()
    with torch.inference_mode():
        layer.update(*states(2))
        layer.update(*states(1, first=2))
    keys, _ = layer.update(*states(1, first=3))
    assert seen(keys) == [0, 1, 2, 3]


def test_a_window_does_not_grow():
    layer = DynamicSlidingWindowLayer(8)
    layer.update(*states(1000))
    assert layer.keys.untyped_storage().nbytes() == 2 * 7 * 3 * 4
    for step in range(300):
        keys, _ = layer.update(*states(1, first=1000 + step))
        assert seen(keys) == list(range(993 + step, 1001 + step))
        assert layer.keys.untyped_storage().nbytes() <= 2 * (8 + 64) * 3 * 4


def test_chosen_rows_free_the_rest():
    layer = DynamicLayer()
    layer.update(*states(2))
    before, _ = layer.update(*states(1, first=2))
    layer.select(torch.tensor([1]))
    # One row of two, with room for the next token.
    assert layer.keys.untyped_storage().nbytes() == 4 * 3 * 4
    place = layer.keys.data_ptr()
    keys, _ = layer.update(states(1, first=3)[0][:1], states(1, first=3)[1][:1])
    assert keys.shape == (1, 1, 4, 3) and seen(keys) == [0, 1, 2, 3] and keys.data_ptr() == place
    assert seen(before) == [0, 1, 2]


def test_rows_are_chosen_again_and_again():
    layer, expected = DynamicLayer(), torch.empty(2, 1, 0, 3)
    for step, rows in enumerate(([0, 0], [1, 0], [0, 1, 1], [2, 0])):
        new = torch.randn(expected.shape[0], 1, 2 if step == 2 else 1, 3)
        keys, values = layer.update(new, -new)
        expected = torch.cat([expected, new], dim=2)
        assert keys.equal(expected) and values.equal(-expected)
        layer.select(torch.tensor(rows))
        expected = expected[rows]
    assert layer.keys.equal(expected)


def test_chosen_rows_have_gradients():
    layer, new = DynamicLayer(), torch.randn(2, 1, 1, 3, requires_grad=True)
    with torch.enable_grad():
        layer.update(new, new)
        layer.select(torch.tensor([1]))
        layer.keys.sum().backward()
    assert new.grad[1].eq(1).all() and new.grad[0].eq(0).all()
