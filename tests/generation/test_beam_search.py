import itertools
from types import SimpleNamespace

import pytest
import torch

from modelwright.attention.caches import DynamicCache, StaticCache
from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError
from modelwright.generation import beam_search
from modelwright.generation.mixin import GenerationMixin
from modelwright.generation.outputs import GenerateBeamDecoderOnlyOutput
from modelwright.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

PROMPT = torch.tensor([[3, 5, 2], [1, 6, 6]])


class FakeModel(GenerationMixin):
    """Logits are a sum over the ids so far, kept as the keys of a cache of one layer."""

    _supports_generation_cache = True
    device = torch.device("cpu")

    def __init__(self, vocab_size=9, **config):
        config = {"pad_token_id": 0, "num_hidden_layers": 1, "max_position_embeddings": 40, **config}
        self.config = PretrainedConfig(vocab_size=vocab_size, **config)
        self.table = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0)) * 2
        self.table[:, 0] -= 9  # The pad id is no word.
        self.calls = []

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, use_cache=None):
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "input_ids": input_ids[:, past:], "attention_mask": attention_mask, "past_key_values": past_key_values,
            "use_cache": use_cache,
        }  # fmt: skip

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None, output_hidden_states=None):
        self.calls.append(tuple(input_ids.shape))
        cache = DynamicCache() if past_key_values is None else past_key_values
        keys = self.table[input_ids]
        if attention_mask is not None:
            keys = keys * attention_mask[:, -keys.shape[1] :, None]
        seen = cache.get_seq_length() + keys.shape[1]
        keys, _ = cache.update(keys[:, None], keys[:, None], 0)
        # The last token counts most, and each earlier one half as much as the next.
        weights = 0.5 ** torch.arange(seen - 1, -1, -1.0)
        logits = (keys[:, 0, :seen] * weights[:, None]).sum(1, keepdim=True)
        return SimpleNamespace(
            logits=logits, past_key_values=cache if use_cache else None, hidden_states=(logits,)
        )  # fmt: skip

    def __call__(self, **kwargs):
        return self.forward(**kwargs)


def log_probability(model, row, prompt):
    total = 0.0
    for end in range(prompt, len(row)):
        logits = model.forward(torch.tensor([row[:end]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[row[end]])
    return total


def test_enough_beams_find_the_best_of_all_texts():
    model = FakeModel(vocab_size=6)
    texts = {row: log_probability(model, (3, 1, *row), 2) / 3 for row in itertools.product(range(6), repeat=3)}
    best = sorted(texts, key=texts.get, reverse=True)[:4]
    out = model.generate(
        torch.tensor([[3, 1]]), num_beams=36, num_return_sequences=4, max_new_tokens=3, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    assert isinstance(out, GenerateBeamDecoderOnlyOutput)
    assert [tuple(row[2:]) for row in out.sequences.tolist()] == best
    torch.testing.assert_close(out.sequences_scores, torch.tensor([texts[row] for row in best]), atol=1e-5, rtol=1e-5)
    # The greedy text is another one, or nothing would be shown.
    assert tuple(model.generate(torch.tensor([[3, 1]]), max_new_tokens=3)[0, 2:].tolist()) != best[0]


KINDS = {
    "plain": {},
    "ends": {"eos_token_id": [4, 7]},
    "early": {"eos_token_id": [4, 7], "early_stopping": True, "num_return_sequences": 4},
    "never": {"eos_token_id": 4, "early_stopping": "never", "length_penalty": 2.0},
    "groups": {"eos_token_id": 4, "num_beam_groups": 2, "diversity_penalty": 1.5, "num_return_sequences": 4},
    "processors": {"eos_token_id": 4, "no_repeat_ngram_size": 2, "min_new_tokens": 3, "repetition_penalty": 1.2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_batch_is_that_row_alone_and_a_cache_changes_nothing(kind):
    def run(ids, mask=None, **kwargs):
        return FakeModel().generate(
            ids, attention_mask=mask, num_beams=4, max_new_tokens=9, return_dict_in_generate=True, output_scores=True,
            **KINDS[kind], **kwargs,
        )  # fmt: skip

    rows = [[3, 5, 2], [6], [1, 8]]
    ids = torch.tensor([[0] * (3 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (3 - len(row)) + [1] * len(row) for row in rows])
    together = run(ids, mask)
    uncached = run(ids, mask, use_cache=False)
    static = run(ids, mask, past_key_values=StaticCache(FakeModel().config, max_cache_len=12))
    for other in (uncached, static):
        assert torch.equal(other.sequences, together.sequences)
        torch.testing.assert_close(other.sequences_scores, together.sequences_scores)
    returned = KINDS[kind].get("num_return_sequences", 1)
    for index, row in enumerate(rows):
        alone = run(torch.tensor([row]))
        mine = slice(index * returned, (index + 1) * returned)
        torch.testing.assert_close(alone.sequences_scores, together.sequences_scores[mine])
        length = alone.sequences.shape[1] - len(row)
        assert torch.equal(alone.sequences[:, len(row) :], together.sequences[mine, 3 : 3 + length])
        assert not together.sequences[mine, 3 + length :].any()  # the pad id


def test_the_prompt_is_read_once_for_all_beams_unless_its_states_are_kept():
    model, kwargs = FakeModel(), {"num_beams": 3, "max_new_tokens": 4, "return_dict_in_generate": True}
    out = model.generate(PROMPT, **kwargs)
    assert model.calls == [(2, 3), (6, 1), (6, 1), (6, 1)]
    assert out.past_key_values.max_batch_size == 6
    model = FakeModel()
    kept = model.generate(PROMPT, output_hidden_states=True, **kwargs)
    assert model.calls == [(6, 3), (6, 1), (6, 1), (6, 1)]
    assert torch.equal(kept.sequences, out.sequences)
    assert [each[0].shape[0] for each in kept.hidden_states] == [6] * 4


def test_a_cache_of_a_models_own_goes_through_its_reorder_cache():
    class Own(FakeModel):
        _supports_generation_cache = False  # as a model file of 4.x, which does not say it
        _cache_orders: list = []

        def prepare_inputs_for_generation(self, input_ids, past_key_values=None, use_cache=None, **kwargs):
            cache = None if past_key_values is None else DynamicCache(past_key_values["layers"])
            return super().prepare_inputs_for_generation(input_ids, cache, use_cache=use_cache)

        def forward(self, **kwargs):
            out = super().forward(**kwargs)
            out.past_key_values = {"layers": out.past_key_values.to_legacy_cache()} if kwargs["use_cache"] else None
            return out

        def _reorder_cache(self, past_key_values, beam_idx):
            self._cache_orders.append(beam_idx.tolist())
            layers = past_key_values["layers"]
            return {"layers": tuple(tuple(each.index_select(0, beam_idx) for each in layer) for layer in layers)}

    model = Own()
    out = model.generate(PROMPT, num_beams=4, max_new_tokens=9)
    assert torch.equal(out, FakeModel().generate(PROMPT, num_beams=4, max_new_tokens=9))
    assert model.calls[:2] == [(8, 3), (8, 1)]
    assert model._cache_orders
    for order in model._cache_orders:
        assert [row // 4 for row in order] == [0] * 4 + [1] * 4
        assert order != list(range(8))  # nothing to do, nothing done


def test_scores_of_the_tokens_add_up_to_the_scores_of_the_texts():
    model = FakeModel()
    out = model.generate(
        PROMPT, num_beams=4, num_return_sequences=3, max_new_tokens=8, eos_token_id=4, length_penalty=0.7,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    scores = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    lengths = (out.beam_indices >= 0).sum(1)
    assert lengths.unique().numel() > 1
    torch.testing.assert_close(scores.sum(1) / lengths**0.7, out.sequences_scores)
    for row, score, length in zip(out.sequences.tolist(), scores.sum(1), lengths, strict=True):
        torch.testing.assert_close(float(score), log_probability(model, row[: 3 + length], 3), atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="8 new tokens, but scores of 2 steps"):
        model.compute_transition_scores(out.sequences, out.scores[:2], torch.zeros(6, 8, dtype=torch.long))


def test_sampled_beams_follow_the_generator():
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return FakeModel().generate(
            PROMPT, num_beams=3, do_sample=True, num_return_sequences=3, max_new_tokens=6, generator=generator
        )

    before = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(before, torch.get_rng_state())


def test_groups_choose_differently():
    kwargs = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 1}
    out = FakeModel().generate(PROMPT, num_beam_groups=3, diversity_penalty=100.0, **kwargs)
    assert [len(set(out[rows, -1].tolist())) for rows in (slice(3), slice(3, 6))] == [3, 3]
    # Each group begins anew: the first token of the first group is the greedy one.
    out = FakeModel().generate(PROMPT, num_beam_groups=3, diversity_penalty=0.001, **kwargs)
    assert [len(set(out[rows, -1].tolist())) for rows in (slice(3), slice(3, 6))] == [1, 1]


class Until(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == 7


def test_a_criterion_of_ones_own_finishes_hypotheses():
    criteria = StoppingCriteriaList([Until()])
    out = FakeModel().generate(PROMPT, num_beams=4, max_new_tokens=9, stopping_criteria=criteria)
    assert torch.equal(out, FakeModel().generate(PROMPT, num_beams=4, max_new_tokens=9, eos_token_id=7))


def test_one_allowed_token_leaves_one_live_beam():
    class Only(torch.nn.Module):
        def __call__(self, input_ids, scores):
            allowed = torch.full_like(scores, -float("inf"))
            allowed[:, 5] = scores[:, 5]
            return allowed

    out = FakeModel().generate(PROMPT, None, [Only()], num_beams=3, max_new_tokens=4)
    assert out[:, 3:].tolist() == [[5] * 4] * 2


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"num_return_sequences": 4}, "num_return_sequences=4 of num_beams=3.*set num_beams to 4 or more"),
        ({"num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beam_groups=2 to divide num_beams=3"),
        ({"num_beam_groups": 3}, "a diversity_penalty above 0; got do_sample=False and diversity_penalty=0.0"),
        ({"num_beam_groups": 3, "diversity_penalty": 1.0, "do_sample": True}, "got do_sample=True"),
        ({"early_stopping": "always"}, "early_stopping to be True, False or \"never\", got 'always'"),
        ({"length_penalty": "long"}, "length_penalty to be a number, got 'long'"),
    ],
)
def test_settings_that_cannot_work(kwargs, match):
    with pytest.raises(ConfigError, match=match):
        FakeModel().generate(PROMPT, num_beams=3, **kwargs)


def test_a_streamer_is_refused(collect):
    with pytest.raises(InputError, match="knows its tokens at the end only: use num_beams=1, or no streamer"):
        FakeModel().generate(PROMPT[:1], num_beams=2, streamer=collect())


def test_settings_of_beams_are_said_to_be_idle_without_them(caplog):
    FakeModel().generate(PROMPT, max_new_tokens=1, length_penalty=2.0)
    assert "length_penalty does nothing without num_beams" in caplog.text


@pytest.mark.parametrize("returned", [1, 3])
def test_a_forbidden_token_is_no_answer_even_where_one_is_allowed(fake_model, returned):
    # All beams but the first are dead in the first step, which here is the last one too.
    found = fake_model().generate(
        torch.tensor([[3, 5, 2]]),
        max_new_tokens=1,
        num_beams=3,
        num_return_sequences=returned,
        prefix_allowed_tokens_fn=lambda *_: [4],
    )
    assert found.tolist() == [[3, 5, 2, 4]] * returned


@pytest.mark.parametrize("vocabulary", [6, 700, 1408, 1409, 5000])
@pytest.mark.parametrize("forbidden", [0.0, 0.5, 0.999])
def test_the_best_of_a_large_vocabulary_are_those_of_all(vocabulary, forbidden):
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, vocabulary, generator=random)
    scores[torch.rand(scores.shape, generator=random) < forbidden] = -float("inf")
    scores[:, 0, -1] = 9.0
    before, count = torch.randn(2, 3, generator=random), 5
    sums, places = beam_search._best(scores, before, count)
    everything = (scores + before[..., None]).flatten(1)
    assert torch.equal(sums, everything.topk(count).values)
    assert torch.equal(sums, everything.gather(1, places))
    assert all(len(set(row.tolist())) == count for row in places)
