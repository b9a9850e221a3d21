"""Cached decoding: equal to the whole text at once, to each row alone, to no padding, and to beams that move."""

import copy

import numpy as np
import pytest
import torch
from small_reformer import QUIET, build, ids

from modelwright.core.errors import InputError
from modelwright.models.reformer.backbone import ReformerModel
from modelwright.models.reformer.cache import ReformerCache
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.sorted_tokens import SortedTokens
from modelwright.nn.decode_layout import lay_out_for_decoding

# Weights large enough for attention to be far from uniform. What a token of a second LSH layer sees of the first is
# what it saw when it was the last one, so the whole text at once is compared up to the first LSH layer.
LARGE = {**QUIET, "initializer_range": 0.4, "eos_token_id": None}
ONE_LSH = {**LARGE, "attn_layers": ["local", "lsh"]}
CASES = {
    "two-hashes": {},
    "one-hash": {"num_hashes": 1, "attn_layers": ["lsh"]},
    "auto-buckets": {"num_buckets": None},
    "factorised-buckets": {"num_buckets": [2, 4], "num_hashes": 3},
    "wide-window": {"lsh_num_chunks_before": 3},
    "uneven-chunks": {"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 16, "local_num_chunks_before": 0},
    "exact": {"attention_mode": "exact"},
    "auto": {"attention_mode": "auto", "num_hashes": 1},
    "plain-positions": {"axial_pos_embds": False},
    "wide-local": {"attn_layers": ["local"], "local_num_chunks_before": 2},
}


def decode(model, tokens, prompt, **arguments):
    """Return the logits of each token after the prompt, and the cache."""
    with torch.no_grad():
        output = model(tokens[:, :prompt], use_cache=True, **arguments)
        found = [output.logits[:, -1]]
        for column in range(prompt, tokens.shape[1]):
            cache = output.past_buckets_states
            output = model(tokens[:, column : column + 1], past_buckets_states=cache, use_cache=True)
            found.append(output.logits[:, -1])
    return torch.stack(found, dim=1), output.past_buckets_states


@pytest.mark.parametrize("prompt", [1, 19])
@pytest.mark.parametrize("case", CASES)
def test_cached_is_the_whole_text(case, prompt):
    model = build(**{**ONE_LSH, **CASES[case]}).eval()
    tokens = ids(2, 44)
    found, _ = decode(model, tokens, prompt)
    for column in range(prompt, 45):
        with torch.no_grad():
            expected = model(tokens[:, :column], use_cache=False).logits[:, -1]
        assert torch.allclose(found[:, column - prompt], expected, atol=1e-4), column


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", ["query", "query_key", "key"])
def test_a_projection_of_another_precision_is_taken(layer, dtype):
    model, tokens = build(**ONE_LSH).eval().to(dtype), ids(2, 24)
    other = torch.bfloat16 if dtype is torch.float32 else torch.float32
    for name, module in model.named_modules():
        if name.endswith(f".{layer}"):
            module.to(other).register_forward_pre_hook(lambda _, inputs: (inputs[0].to(other),))
    found, _ = decode(model, tokens, 20)
    with torch.no_grad():
        expected = model(tokens, use_cache=False).logits[:, -1]
    assert found.dtype is dtype
    assert torch.allclose(found[:, -1].float(), expected.float(), atol=0.1 * float(expected.abs().max()))


def test_probabilities_of_fp64_are_those_of_a_whole_text():
    model, tokens = build(**ONE_LSH).eval().double(), ids(1, 20)
    with torch.no_grad():
        cache = model(tokens[:, :-1], use_cache=True).past_buckets_states
        output = model(tokens[:, -1:], past_buckets_states=cache, use_cache=True, output_attentions=True)
        expected = model(tokens, use_cache=False).logits[:, -1:]
    assert torch.allclose(output.logits, expected)
    assert all(torch.allclose(each.sum(-1), torch.ones_like(each.sum(-1))) for each in output.attentions)


def test_every_layer_of_a_stack_attends_to_what_it_kept():
    """Each layer's output for a token is that of its ordinary attention over the inputs that were kept."""
    model = build(**{**LARGE, "num_hashes": 2}).eval()
    tokens, seen = ids(2, 40), {}
    for index, block in enumerate(model.reformer.encoder.layers):
        parts = seen.setdefault(index, [])
        block.attention.layer_norm.register_forward_hook(lambda m, args, out, parts=parts: parts.append(out))
    found = []
    for index, block in enumerate(model.reformer.encoder.layers):
        block.attention.output.register_forward_hook(lambda m, args, out, i=index: found.append((i, args[0])))
    decode(model, tokens[:, :30], 19)
    for index, attended in found[-4:]:
        states = torch.cat([state[:, : 19 if step == 0 else 1] for step, state in enumerate(seen[index])], dim=1)
        padded = torch.nn.functional.pad(states, (0, 0, 0, 2))
        mask = torch.arange(32).expand(2, 32) < 30
        attention = model.reformer.encoder.layers[index].attention.self_attention
        with torch.no_grad():
            whole, _ = attention(padded, ForwardCall(30, mask, 2, 4, 0), LayerCall(index, False))
        assert torch.allclose(attended[:, 0], whole[:, 29], atol=1e-4), index


def test_several_new_tokens_are_one_after_the_other():
    model = build(**LARGE).eval()
    tokens = ids(2, 40)
    expected, _ = decode(model, tokens, 13)
    with torch.no_grad():
        cache = model(tokens[:, :13], use_cache=True).past_buckets_states
        output = model(tokens[:, 13:], past_buckets_states=cache, output_attentions=True, output_hidden_states=True)
    assert torch.allclose(output.logits, expected[:, 1:], atol=1e-5)
    assert cache.get_seq_length() == 40
    assert [state.shape for state in output.hidden_states] == [(2, 27, 16)] * 5
    for probs in output.attentions:
        assert probs.shape == (2, 2, 27, 40)
        assert torch.allclose(probs.sum(dim=-1), torch.ones(2, 2, 27), atol=1e-5)
        assert not probs[:, :, 0, 14:].any()


class TestRows:
    def lengths(self):
        return (3, 21, 11, 21)

    @pytest.mark.parametrize("seed", [0, None])
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padded_batch_is_each_row_alone(self, side, seed):
        model = build(**{**LARGE, "num_buckets": None, "hash_seed": seed}).eval()
        tokens, width = ids(4, 50), 21
        batch, mask = torch.zeros(4, width, dtype=torch.long), torch.zeros(4, width, dtype=torch.long)
        for row, length in enumerate(self.lengths()):
            at = slice(width - length, width) if side == "left" else slice(0, length)
            batch[row, at], mask[row, at] = tokens[row, :length], 1
        torch.manual_seed(3)
        with torch.no_grad():
            output = model(batch, attention_mask=mask, use_cache=True, output_hidden_states=True)
            cache, states = output.past_buckets_states, output.hidden_states
            steps = [
                model(torch.stack([tokens[row, n + i] for row, n in enumerate(self.lengths())])[:, None],
                      past_buckets_states=cache).logits[:, 0]
                for i in range(25)
            ]  # fmt: skip
        assert cache.lengths == [n + 25 for n in self.lengths()]
        for row, length in enumerate(self.lengths()):
            torch.manual_seed(3)
            alone, _ = decode(model, tokens[row : row + 1, : length + 25], length)
            assert torch.allclose(torch.stack(steps)[:, row], alone[0, 1:], atol=1e-4)
            with torch.no_grad():
                expected = model(tokens[row : row + 1, :length], use_cache=False, output_hidden_states=True)
            if seed == 0:
                assert torch.allclose(states[-1][row][mask[row].bool()], expected.hidden_states[-1][0], atol=1e-4)

    def test_reordered_and_repeated_rows_go_on_as_what_they_were(self):
        model = build(**LARGE).eval()
        tokens = ids(3, 40)
        lengths = torch.tensor([9, 20, 14])
        mask = (torch.arange(20) < lengths[:, None]).long()
        for moves in ([2, 0, 1], [1, 1, 0, 2, 1], [2]):
            with torch.no_grad():
                cache = model(tokens[:, :20], attention_mask=mask, use_cache=True).past_buckets_states
                origin = torch.arange(3)
                for column in range(20, 36):
                    new = tokens[:, column] if column < 28 else tokens[origin, column] + torch.arange(len(origin)) % 7
                    logits = model(new[:, None] % 50, past_buckets_states=cache).logits[:, 0]
                    if column == 27:
                        cache.reorder_cache(torch.tensor(moves))
                        origin = torch.tensor(moves)
                for row, old in enumerate(moves):
                    text = tokens[old : old + 1, : lengths[old]]
                    rest = tokens[old : old + 1, 20:36].clone()
                    rest[:, 8:] = (rest[:, 8:] + row % 7) % 50
                    expected, _ = decode(model, torch.cat([text, rest], dim=1), int(lengths[old]))
                    assert torch.allclose(logits[row], expected[0, -1], atol=1e-4)

    def test_a_copied_cache_is_another_text(self):
        model = build(**LARGE).eval()
        with torch.no_grad():
            cache = model(ids(1, 20), use_cache=True).past_buckets_states
            other = copy.deepcopy(cache)
            first = model(ids(1, 21)[:, 20:], past_buckets_states=cache).logits
            model(torch.tensor([[7]]), past_buckets_states=cache)
            assert torch.equal(model(ids(1, 21)[:, 20:], past_buckets_states=other).logits, first)


class TestLegacy:
    def test_pairs_of_buckets_and_states(self):
        model = build(**LARGE).eval()
        tokens = ids(2, 30)
        with torch.no_grad():
            output = model(tokens[:, :20], use_cache=True, legacy_cache=True)
            pairs = output.past_buckets_states
            assert [states.shape for _, states in pairs] == [(2, 20, 16)] * 4
            assert [buckets is None for buckets, _ in pairs] == [True, False, True, False]
            buckets = pairs[1][0]
            assert buckets.shape == (2, 2, 2, 20)
            assert buckets[:, :, 0].max() < 4 <= buckets[:, :, 1].min()
            expected, _ = decode(model, tokens, 20)
            for column in range(20, 30):
                output = model(tokens[:, column : column + 1], past_buckets_states=pairs, legacy_cache=True)
                pairs = output.past_buckets_states
                assert torch.allclose(output.logits[:, 0], expected[:, column - 19], atol=1e-4)
            assert torch.equal(pairs[1][0][..., :20], buckets)

    def test_rotations_are_drawn_once_for_pairs(self):
        model = build(**{**LARGE, "hash_seed": None}).eval()
        with torch.no_grad():
            pairs = model(ids(1, 20), use_cache=True, legacy_cache=True).past_buckets_states
            cache = model(ids(1, 21)[:, 20:], past_buckets_states=pairs).past_buckets_states
            seed = cache.seed
            model(ids(1, 22)[:, 21:], past_buckets_states=cache)
        assert isinstance(cache, ReformerCache)
        assert cache.seed == seed is not None

    def test_an_object_that_yields_pairs(self):
        model = build(**LARGE).eval()
        with torch.no_grad():
            pairs = model(ids(1, 20), use_cache=True, legacy_cache=True).past_buckets_states
            # As the cache object of transformers does.
            found = model(ids(1, 21)[:, 20:], past_buckets_states=iter(pairs)).logits
            assert torch.equal(found, model(ids(1, 21)[:, 20:], past_buckets_states=pairs).logits)

    def test_what_is_no_cache(self):
        model = build(**LARGE).eval()
        with pytest.raises(InputError, match=r"got tuple of 0 with states of shapes \[\]; leave out what is empty"):
            model(ids(1, 1), past_buckets_states=())
        with pytest.raises(InputError, match=r"4 pairs of buckets and hidden states \(batch, tokens, 16\), got list"):
            model(ids(1, 1), past_buckets_states=[(None, torch.ones(1, 3, 16))])


class TestWhenThereIsACache:
    def test_of_a_decoder_in_evaluation_without_gradients(self):
        model = build(ReformerModel, **QUIET).eval()
        assert model(ids(1, 9)).past_buckets_states is None
        output = model(ids(1, 9), use_cache=True)
        assert output.last_hidden_state.requires_grad
        step = model(ids(1, 10)[:, 9:], past_buckets_states=output.past_buckets_states)
        assert not step.last_hidden_state.requires_grad
        with torch.no_grad():
            assert model(ids(1, 9)).past_buckets_states is not None
            assert model(ids(1, 9), use_cache=False).past_buckets_states is None
            assert model(ids(1, 9), attention_mask=torch.tensor([[0] + [1] * 8])).past_buckets_states is None
            assert build(ReformerModel, **QUIET, is_decoder=False).eval()(ids(1, 9)).past_buckets_states is None
        assert model.train()(ids(1, 64), use_cache=True).past_buckets_states is None

    def test_refusals(self):
        model = build(**LARGE).eval()
        with torch.no_grad():
            cache = model(ids(2, 9), use_cache=True).past_buckets_states
            with pytest.raises(InputError, match="holds 2 rows, got 1 new ones"):
                model(ids(1, 1), past_buckets_states=cache)
            with pytest.raises(InputError, match="made with num_hashes=2, got 3"):
                model(ids(2, 1), past_buckets_states=cache, num_hashes=3)
            with pytest.raises(InputError, match="holds keys, not the hidden states"):
                model(ids(2, 1), past_buckets_states=cache, legacy_cache=True)
            with pytest.raises(InputError, match=r"at most 64 tokens .* got 65"):
                model(ids(2, 56), past_buckets_states=cache)
            with pytest.raises(InputError, match="expected no masked tokens after those"):
                model(ids(2, 1), past_buckets_states=cache, attention_mask=torch.tensor([[1], [0]]))
            with pytest.raises(InputError, match=r"expected at least one token in each row, got none in rows \[1\]"):
                model(ids(2, 3), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]), use_cache=True)
            both = build(ReformerModel, **QUIET, is_decoder=False).eval()
            with pytest.raises(InputError, match="a cache needs is_decoder=True"):
                both(ids(2, 3), use_cache=True)


@pytest.mark.parametrize("num_buckets", [5, 40_000])
def test_sorted_tokens_are_a_stable_sort_of_all(num_buckets):
    generator = np.random.default_rng(0)
    buckets = generator.integers(num_buckets, size=(2, 3, 37))
    grown = SortedTokens(buckets[..., :7], num_buckets)
    for token in range(7, 37):
        grown.append(buckets[..., token])
    assert (grown.order_HNT[..., :37] == buckets.argsort(axis=-1, kind="stable")).all()
    assert (grown.buckets() == buckets).all()


@pytest.mark.parametrize("laid_out", [False, True])
def test_a_token_by_the_weights_alone_is_that_of_the_modules(laid_out):
    tokens, found = ids(1, 40), []
    for watched in (False, True):
        model = build(**LARGE).eval()
        if laid_out:
            lay_out_for_decoding(model)
        if watched:
            model.reformer.encoder.layers[0].feed_forward.register_forward_hook(lambda *_: None)
        logits, cache = decode(model, tokens, 30)
        assert (cache.plain.layers is None) is watched
        assert copy.deepcopy(cache).plain is None
        found.append(logits)
    assert torch.allclose(*found, atol=1e-5)


def test_a_hook_that_comes_within_a_text_is_called():
    model, tokens, seen = build(**LARGE).eval(), ids(1, 40), []
    _, cache = decode(model, tokens, 30)
    model.reformer.encoder.layers[1].attention.output.dense.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model(tokens[:, :1], past_buckets_states=cache, use_cache=True)
    assert len(seen) == 1


def test_another_model_may_go_on_from_a_cache():
    model, tokens, found = build(**LARGE).eval(), ids(1, 40), []
    for watched in (False, True):
        _, cache = decode(model, tokens, 30)
        other = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.5)
            if watched:
                other.reformer.encoder.layers[0].feed_forward.register_forward_hook(lambda *_: None)
            found.append(other(tokens[:, :1], past_buckets_states=cache, use_cache=True).logits)
    assert torch.allclose(*found, atol=1e-4)
