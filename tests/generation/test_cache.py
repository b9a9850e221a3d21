from types import SimpleNamespace

import pytest
import torch

from modelwright.core.errors import InputError

PROMPT = torch.tensor([[3, 5, 2], [1, 8, 8]])


@pytest.fixture
def cached_model(fake_model):
    class CachedModel(fake_model):
        """The same model, which can go on from the running sum that it returned."""

        _supports_generation_cache = True

        def prepare_inputs_for_generation(self, input_ids, past_key_values=None, use_cache=None, **kwargs):
            if past_key_values is not None:
                input_ids = input_ids[:, -1:]
            return {"input_ids": input_ids, "past_key_values": past_key_values, "use_cache": use_cache}

        def forward(self, input_ids, past_key_values=None, use_cache=None):
            self.calls.append(tuple(input_ids.shape))
            seen, total = (0, 0.0) if past_key_values is None else past_key_values
            position = torch.arange(input_ids.shape[1]) + seen
            sums = total + (self.table[input_ids] * torch.cos(position * 1.7)[None, :, None]).cumsum(1) * 2
            cache = (seen + input_ids.shape[1], sums[:, -1:]) if use_cache else None
            return SimpleNamespace(logits=sums, past_key_values=cache)

    return CachedModel


def test_cached_equals_uncached(cached_model, fake_model):
    plain = fake_model().generate(PROMPT, max_new_tokens=12)
    cached, recomputed, asked = cached_model(), cached_model(), cached_model()
    assert torch.equal(cached.generate(PROMPT, max_new_tokens=12), plain)
    assert torch.equal(recomputed.generate(PROMPT, max_new_tokens=12, use_cache=False), plain)
    assert torch.equal(asked.generate(PROMPT, max_new_tokens=12, use_cache=True), plain)
    assert cached.calls == asked.calls == [(2, 3)] + [(2, 1)] * 11
    assert recomputed.calls == [(2, length) for length in range(3, 15)]


def test_the_cache_is_returned(cached_model):
    out = cached_model().generate(PROMPT, max_new_tokens=2, return_dict_in_generate=True)
    assert out.past_key_values[0] == 4


def test_reorder_cache(fake_model):
    model, order = fake_model(), torch.tensor([1, 1, 0])
    rows = torch.arange(6).reshape(3, 2)
    reordered = model._reorder_cache(((rows, rows + 10), None), order)
    assert reordered[0][1].tolist() == [[12, 13], [12, 13], [10, 11]]
    assert reordered[1] is None

    class InPlace:
        def reorder_cache(self, beam_idx):
            self.order = beam_idx.tolist()

    cache = InPlace()
    assert model._reorder_cache(cache, order) is cache
    assert cache.order == [1, 1, 0]
    with pytest.raises(InputError, match="no rule to reorder a cache of type int"):
        model._reorder_cache(3, order)
