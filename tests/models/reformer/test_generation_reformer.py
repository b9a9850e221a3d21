"""Generation with a Reformer: with its cache, and with the whole prefix computed again at each step."""

import copy

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModelWithLMHead

TINY = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [8, 8],
    "eos_token_id": None,
    "feed_forward_size": 32,
    "hash_seed": 0,
    "hidden_size": 16,
    "initializer_range": 0.3,
    "is_decoder": True,
    "local_attn_chunk_length": 8,
    "lsh_attn_chunk_length": 8,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "vocab_size": 50,
}


def build(**changes):
    torch.manual_seed(0)
    return ReformerModelWithLMHead(ReformerConfig(**copy.deepcopy({**TINY, **changes}))).eval()


def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 50, (1, length), generator=generator) for length in (3, 11, 20)]


def test_greedy_is_the_argmax_of_each_prefix():
    model = build()
    out = model.generate(prompts()[1], max_new_tokens=12)
    assert out.shape == (1, 23)
    for length in range(11, 23):
        with torch.no_grad():
            assert out[0, length] == model(out[:, :length]).logits[0, -1].argmax()


def test_short_prompt_crosses_the_chunk_without_a_configured_number_of_buckets():
    model = build(num_buckets=None)
    assert model.generate(prompts()[0], max_new_tokens=30).shape == (1, 33)
    assert model.config.num_buckets is None


def left_padded(rows):
    width = max(row.shape[1] for row in rows)
    batch = torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0)) for row in rows])
    return batch, (torch.arange(width) >= torch.tensor([[width - row.shape[1]] for row in rows])).long()


@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_batch_is_each_row_alone(use_cache):
    # Without a cache, which tokens an LSH layer sees in its ring of chunks depends on how much padding there is.
    model = build(attn_layers=["local", "lsh" if use_cache else "local"], num_buckets=None)
    batch, mask = left_padded(prompts())
    together = model.generate(batch, attention_mask=mask, max_new_tokens=30, use_cache=use_cache)
    for index, row in enumerate(prompts()):
        alone = model.generate(row, max_new_tokens=30, use_cache=use_cache)
        assert torch.equal(together[index, -30:], alone[0, -30:])


@pytest.mark.parametrize("beams", [1, 3])
def test_cached_is_the_whole_prefix(beams):
    # One LSH layer behind local ones: with more, old tokens keep what they saw when they were new.
    model = build(attn_layers=["local", "lsh"], num_hashes=2)
    for prompt in prompts():
        options = {"max_new_tokens": 30, "num_beams": beams, "num_return_sequences": beams}
        expected = model.generate(prompt, use_cache=False, **options)
        assert torch.equal(model.generate(prompt, **options), expected)


def test_beams_of_a_padded_batch_are_those_of_each_row():
    model = build(attn_layers=["lsh", "local", "lsh"], num_hashes=2)
    batch, mask = left_padded(prompts())
    options = {"max_new_tokens": 20, "num_beams": 3, "num_return_sequences": 2}
    together = model.generate(batch, attention_mask=mask, **options)
    for index, row in enumerate(prompts()):
        assert torch.equal(together[2 * index : 2 * index + 2, -20:], model.generate(row, **options)[:, -20:])


def test_the_cache_is_used_unless_the_config_says_no():
    for use_cache in (True, False):
        model, lengths = build(use_cache=use_cache), []
        model.register_forward_pre_hook(
            lambda m, args, kwargs, seen=lengths: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        model.generate(prompts()[1], max_new_tokens=4)
        assert lengths == ([11, 1, 1, 1] if use_cache else [11, 12, 13, 14])


def test_a_cache_goes_on_with_a_longer_text():
    model, text = build(), prompts()[2]
    whole = model.generate(text, max_new_tokens=8)
    with torch.no_grad():
        cache = model(text[:, :-1], use_cache=True).past_buckets_states
    assert torch.equal(model.generate(text, past_buckets_states=cache, max_new_tokens=8), whole)
    with pytest.raises(InputError, match="holds 27 tokens and the prompt has 20: expected the whole text"):
        model.generate(text, past_buckets_states=cache, max_new_tokens=1)


def test_sampling_follows_the_generator():
    model = build(hash_seed=None)
    prompt = prompts()[2].repeat(2, 1)

    def run(seed):
        torch.manual_seed(0)
        return model.generate(
            prompt, do_sample=True, top_k=5, max_new_tokens=8, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_hash_rounds_reach_the_model():
    model, seen = build(), []
    model.reformer.encoder.layers[1].attention.register_forward_hook(
        lambda m, args, out: seen.append(args[1].num_hashes)
    )
    model.generate(prompts()[2], max_new_tokens=2, num_hashes=3, use_cache=False)
    assert seen == [3, 3]
    three = model.generate(prompts()[2], max_new_tokens=12, num_hashes=3)
    assert torch.equal(three, build(num_hashes=3).generate(prompts()[2], max_new_tokens=12))


def test_text_beyond_the_positions_is_refused_before_decoding():
    with pytest.raises(InputError, match=r"sees at most 64 positions, .* set max_new_tokens to at most 45"):
        build().generate(prompts()[2], max_new_tokens=46)
