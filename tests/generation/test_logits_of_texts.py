"""Biases, bans, forced ends, and processors of the source; their values are compared in tests/parity."""

import pytest
import torch

from modelwright.core.errors import ConfigError, InputError
from modelwright.generation import logits_bias, logits_ends, logits_source, logits_warpers
from modelwright.generation.configuration import GenerationConfig

INF = float("inf")
PROMPT = torch.tensor([[3, 5, 2], [7, 1, 3]])


def test_a_bad_word_is_found_in_the_first_step_too():
    scores = torch.zeros(2, 6)
    banned = logits_bias.NoBadWordsLogitsProcessor([[2, 4], [1, 2, 5], [3]])
    assert banned(torch.tensor([[2], [1]]), scores).tolist() == [[0, 0, 0, -INF, -INF, 0], [0, 0, 0, -INF, 0, 0]]
    assert banned(torch.tensor([[1, 2], [2, 1]]), scores)[0].tolist() == [0, 0, 0, -INF, -INF, -INF]
    assert not scores.any()


def test_biases_of_sequences_that_end_alike_add_up():
    biased = logits_bias.SequenceBiasLogitsProcessor([[[1, 4], 2.0], [[0, 1, 4], 0.5], [[4], -1.0], [[0, 4], 9.0]])
    assert biased(torch.tensor([[3, 0, 1]]), torch.zeros(1, 5)).tolist() == [[0, 0, 0, 0, 1.5]]


def test_an_end_that_is_forbidden_stays_so_while_its_penalty_grows():
    decay = logits_ends.ExponentialDecayLengthPenalty((0, 2.0), [1, 2], 1)
    scores = torch.tensor([[0.0, -INF, -3.0]])
    assert decay(torch.zeros(1, 3, dtype=torch.long), scores).tolist() == [[0.0, -INF, 6.0]]


def test_the_source_of_an_item_counts_for_each_of_its_rows():
    source = torch.tensor([[1, 2], [3, 4]])
    scores = torch.ones(4, 5)
    liked = logits_source.EncoderRepetitionPenaltyLogitsProcessor(2.0, source)(PROMPT.repeat(2, 1), scores)
    assert liked.tolist() == [[1, 2, 2, 1, 1]] * 2 + [[1, 1, 1, 2, 2]] * 2
    ids = torch.tensor([[1], [1], [3], [2]])
    banned = logits_source.EncoderNoRepeatNGramLogitsProcessor(2, source)(ids, scores)
    assert (banned == -INF).nonzero().tolist() == [[0, 2], [1, 2], [2, 4]]


def test_what_the_settings_ask_for_reaches_the_tokens(fake_model):
    model = fake_model()
    free = model.generate(PROMPT, max_new_tokens=8)
    first = [int(free[0, 3]), int(free[1, 3])]
    for kwargs in (
        {"suppress_tokens": first},
        {"begin_suppress_tokens": first},
        {"bad_words_ids": [[2, first[0]], [first[1]]]},
        {"sequence_bias": [[[each], -99.0] for each in first]},
        {"prefix_allowed_tokens_fn": lambda item, ids: [each for each in range(13) if each not in first]},
    ):
        out = model.generate(PROMPT, max_new_tokens=8, **kwargs)
        assert out[0, 3] != first[0], kwargs
        assert out[1, 3] != first[1], kwargs
    out = model.generate(PROMPT, max_new_tokens=4, forced_eos_token_id=11)
    assert out[:, -1].tolist() == [11, 11]
    assert model.generate(PROMPT[:, :1], max_new_tokens=4, forced_bos_token_id=11)[:, 1].tolist() == [11, 11]


def test_a_forced_first_token_comes_before_the_begin(fake_model):
    model, row = fake_model(), PROMPT[:1, :1]
    second = int(model.generate(row, max_new_tokens=2, forced_bos_token_id=4)[0, 2])
    out = model.generate(row, max_new_tokens=2, forced_bos_token_id=4, begin_suppress_tokens=[second, 4])
    assert out[0, 1] == 4
    assert out[0, 2] != second


def test_renormalized_scores_are_log_probabilities(fake_model):
    kwargs = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_scores": True}
    out = fake_model().generate(PROMPT, renormalize_logits=True, do_sample=True, top_k=3, **kwargs)
    for scores in out.scores:
        torch.testing.assert_close(scores.logsumexp(-1), torch.zeros(2))
    raw = fake_model().generate(PROMPT, **kwargs)
    assert raw.scores[0].logsumexp(-1).abs().min() > 0.1


def test_invalid_values_are_removed(fake_model):
    class Broken(fake_model):
        def forward(self, input_ids, attention_mask=None):
            output = super().forward(input_ids, attention_mask)
            output.logits[:, -1, 3:5] = torch.tensor([float("nan"), -INF])
            return output

    kwargs = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    scores = Broken().generate(PROMPT, remove_invalid_values=True, **kwargs).scores[0]
    assert scores[0, 3:5].tolist() == [0.0, torch.finfo(torch.float32).min]
    assert Broken().generate(PROMPT, **kwargs).scores[0][0, 3].isnan()


def test_prefixes_know_the_item_of_a_beam(fake_model):
    seen = set()

    def allowed(item, ids):
        seen.add((item, int(ids[0])))
        return range(13)

    kwargs = {"prefix_allowed_tokens_fn": allowed, "max_new_tokens": 3, "pad_token_id": 0}
    out = fake_model().generate(PROMPT, num_beams=4, num_beam_groups=2, diversity_penalty=0.5, **kwargs)
    assert seen == {(0, 3), (1, 7)}
    assert out.shape == (2, 6)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: logits_bias.SequenceBiasLogitsProcessor([[1, 2.0]]), r"pairs of \[ids, bias\].*got \[\[1, 2.0\]\]"),
        (lambda: logits_bias.SequenceBiasLogitsProcessor([]), "one sequence or more, got none"),
        (lambda: logits_bias.SequenceBiasLogitsProcessor([[[1], "a"]]), r"the bias of \[1\] to be a number, got 'a'"),
        (lambda: logits_bias.SequenceBiasLogitsProcessor({(): 1.0}), r"a sequence of one id or more, got \(\)"),
        (lambda: logits_bias.NoBadWordsLogitsProcessor([]), "bad_words_ids to be a list of lists of ids, got"),
        (lambda: logits_bias.NoBadWordsLogitsProcessor([[1, -2]]), r"one id or more, got \[1, -2\]"),
        (lambda: logits_ends.ExponentialDecayLengthPenalty(1.5, 2, 3), r"\(start, factor\).*got 1.5"),
        (lambda: logits_ends.ForcedEOSTokenLogitsProcessor(9, -1), "eos_token_id to be an id"),
        (lambda: logits_source.EncoderRepetitionPenaltyLogitsProcessor(0, PROMPT), "a penalty above 0, got 0"),
        (lambda: logits_source.EncoderNoRepeatNGramLogitsProcessor(0, PROMPT), "ngram_size of 1 or more, got 0"),
        (lambda: logits_warpers.TypicalLogitsWarper(1.0), "typical_p to be a number between 0 and 1, got 1.0"),
        (lambda: logits_warpers.EpsilonLogitsWarper(0.0), "epsilon_cutoff to be a number between 0 and 1, got 0.0"),
        (lambda: logits_warpers.EtaLogitsWarper(2), "eta_cutoff to be a number between 0 and 1, got 2"),
        (
            lambda: logits_bias.NoBadWordsLogitsProcessor([[9]])(PROMPT, torch.zeros(2, 9)),
            r"\[9\] holds an id outside the vocabulary of 9",
        ),
        (
            lambda: logits_bias.PrefixConstrainedLogitsProcessor(lambda item, ids: [], 1)(PROMPT, torch.zeros(2, 9)),
            r"allows nothing after \[3, 5, 2\] \(batch item 0\)",
        ),
    ],
)
def test_arguments_that_cannot_work(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_settings_that_need_more(fake_model):
    with pytest.raises(InputError, match="exponential_decay_length_penalty needs an eos_token_id"):
        fake_model().generate(PROMPT, exponential_decay_length_penalty=(1, 1.5))


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"suppress_tokens": 3}, "suppress_tokens to be a list of token ids, got 3"),
        ({"forced_eos_token_id": -1}, "forced_eos_token_id to be a token id or a list of them, got -1"),
        ({"forced_bos_token_id": "a"}, "forced_bos_token_id to be a whole number"),
        ({"encoder_repetition_penalty": 0}, "encoder_repetition_penalty to be a number above 0, got 0"),
        ({"renormalize_logits": 1}, "renormalize_logits to be True, False or None, got 1"),
        ({"do_sample": True, "typical_p": 0.0}, "typical_p to be above 0, at most 1, got 0.0"),
        ({"do_sample": True, "eta_cutoff": 1.0}, "eta_cutoff to be a number from 0 to below 1, got 1.0"),
    ],
)
def test_fields_that_cannot_work(kwargs, match):
    with pytest.raises(ConfigError, match=match):
        GenerationConfig(**kwargs)
