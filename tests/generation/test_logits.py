import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from modelwright.generation.logits_warpers import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

IDS = torch.tensor([[1, 2, 1, 3, 1], [4, 4, 4, 4, 4]])
INF = float("inf")


def scores():
    return torch.tensor([[1.0, -2.0, 3.0, 0.5, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])


def kept(result):
    return [(row > -INF).nonzero().flatten().tolist() for row in result]


def test_temperature_divides():
    assert torch.equal(TemperatureLogitsWarper(0.5)(IDS, scores()), scores() * 2)


def test_top_k_keeps_ties_of_the_last_place():
    assert kept(TopKLogitsWarper(1)(IDS, scores())) == [[2, 5], [5]]
    assert kept(TopKLogitsWarper(99)(IDS, scores())) == [[0, 1, 2, 3, 4, 5]] * 2
    assert kept(TopKLogitsWarper(1, min_tokens_to_keep=2)(IDS, scores())) == [[2, 5], [4, 5]]


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    for p, expected in ((0.4, [0]), (0.6, [0, 1]), (0.9, [0, 1, 2]), (0.0, [0]), (1.0, [0, 1, 2, 3])):
        assert kept(TopPLogitsWarper(p)(IDS[:1], logits)) == [expected]
    assert kept(TopPLogitsWarper(0.1, min_tokens_to_keep=3)(IDS[:1], logits)) == [[0, 1, 2]]


def test_min_p_keeps_what_is_likely_beside_the_likeliest():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert kept(MinPLogitsWarper(0.4)(IDS[:1], logits)) == [[0, 1]]
    assert kept(MinPLogitsWarper(1.0, min_tokens_to_keep=3)(IDS[:1], logits)) == [[0, 1, 2]]


def test_repetition_penalty_lowers_each_token_once():
    result = RepetitionPenaltyLogitsProcessor(2.0)(IDS, scores())
    assert result[0].tolist() == [1.0, -4.0, 1.5, 0.25, 2.0, 3.0]
    assert result[1].tolist() == [0.0, 1.0, 2.0, 3.0, 2.0, 5.0]


def test_no_repeat_ngram_forbids_what_would_complete_one():
    assert kept(NoRepeatNGramLogitsProcessor(2)(IDS, scores())) == [[0, 1, 4, 5], [0, 1, 2, 3, 5]]
    assert kept(NoRepeatNGramLogitsProcessor(3)(IDS, scores())) == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 5]]
    assert kept(NoRepeatNGramLogitsProcessor(1)(IDS, scores())) == [[0, 4, 5], [0, 1, 2, 3, 5]]
    assert kept(NoRepeatNGramLogitsProcessor(9)(IDS, scores())) == [[0, 1, 2, 3, 4, 5]] * 2


def test_lengths_hold_the_end_back():
    assert kept(MinLengthLogitsProcessor(6, [0, 5])(IDS, scores())) == [[1, 2, 3, 4]] * 2
    assert torch.equal(MinLengthLogitsProcessor(5, 0)(IDS, scores()), scores())
    assert kept(MinNewTokensLengthLogitsProcessor(4, 2, 5)(IDS, scores())) == [[0, 1, 2, 3, 4]] * 2
    assert torch.equal(MinNewTokensLengthLogitsProcessor(3, 2, 5)(IDS, scores()), scores())


@pytest.mark.parametrize(
    "processor",
    [
        TemperatureLogitsWarper(0.5),
        TopKLogitsWarper(2),
        TopPLogitsWarper(0.5),
        MinPLogitsWarper(0.5),
        RepetitionPenaltyLogitsProcessor(2.0),
        NoRepeatNGramLogitsProcessor(2),
        MinLengthLogitsProcessor(9, 5),
        MinNewTokensLengthLogitsProcessor(0, 9, 5),
    ],
)
def test_given_scores_are_not_written_to(processor):
    given = scores()
    assert not torch.equal(processor(IDS, given), given)
    assert torch.equal(given, scores())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TemperatureLogitsWarper(0.0), "expected a temperature above 0, got 0.0. .* do_sample=False"),
        (lambda: TopKLogitsWarper(0), "expected a top_k of 1 or more, got 0"),
        (lambda: TopKLogitsWarper(1, min_tokens_to_keep=0), "min_tokens_to_keep to be 1 or more, got 0"),
        (lambda: TopPLogitsWarper(1.1), "expected top_p to be a number from 0 to 1, got 1.1"),
        (lambda: MinPLogitsWarper(-1), "expected min_p to be a number from 0 to 1, got -1"),
        (lambda: RepetitionPenaltyLogitsProcessor(-1.0), "expected a penalty above 0, got -1.0"),
        (lambda: NoRepeatNGramLogitsProcessor(0), "expected an ngram_size of 1 or more, got 0"),
        (lambda: MinLengthLogitsProcessor(-1, 0), "expected a min_length of 0 or more, got -1"),
        (lambda: MinLengthLogitsProcessor(1, [-1]), r"eos_token_id to be an id or a list of ids, got \[-1\]"),
        (lambda: MinNewTokensLengthLogitsProcessor(0, -1, 0), "expected min_new_tokens to be 0 or more, got -1"),
    ],
)
def test_bad_values_are_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_a_list_hands_further_arguments_to_those_that_take_them():
    class Add(LogitsProcessor):
        def __call__(self, input_ids, scores, amount):
            return scores + amount

    processors = LogitsProcessorList([TemperatureLogitsWarper(0.5), Add()])
    assert torch.equal(processors(IDS, scores(), amount=1.0), scores() * 2 + 1)
    with pytest.raises(InputError, match="Add needs the arguments amount"):
        processors(IDS, scores())
    with pytest.raises(NotImplementedError, match="LogitsProcessor must define __call__"):
        LogitsProcessor()(IDS, scores())


def test_scores_that_nobody_reads_may_be_written_over():
    class Doubled(MinLengthLogitsProcessor):
        def __call__(self, input_ids, scores):
            return super().__call__(input_ids, scores) * 2

    class Notes(list):
        def __call__(self, input_ids, scores):
            self.append(scores)
            return scores

    ends = MinLengthLogitsProcessor(9, 5), MinNewTokensLengthLogitsProcessor(0, 9, 0)
    for processors in (ends, (Doubled(9, 5), *ends), (MinLengthLogitsProcessor(5, 5), ends[1])):
        processors, given = LogitsProcessorList(processors), scores()
        expected = processors(IDS, scores())
        found = processors(IDS, given, may_write=True)
        assert torch.equal(found, expected)
        assert (found is given) == (type(processors[0]) is not Doubled)
    # What a processor has seen stays as it was.
    notes, given = Notes(), scores()
    found = LogitsProcessorList([notes, *ends])(IDS, given, may_write=True)
    assert notes[0] is given
    assert torch.equal(given, scores())
    assert kept(found) == [[1, 2, 3, 4]] * 2
