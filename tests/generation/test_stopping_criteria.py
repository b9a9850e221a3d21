import time

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.generation.stopping_criteria import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

IDS = torch.tensor([[1, 2, 3], [1, 2, 5]])


def test_each_criterion_answers_for_each_row():
    assert EosTokenCriteria([3, 9])(IDS, None).tolist() == [True, False]
    assert EosTokenCriteria(5)(IDS, None).tolist() == [False, True]
    assert MaxLengthCriteria(3)(IDS, None).tolist() == [True, True]
    assert MaxLengthCriteria(4)(IDS, None).tolist() == [False, False]
    assert MaxTimeCriteria(10, time.time() - 11)(IDS, None).tolist() == [True, True]
    assert MaxTimeCriteria(10)(IDS, None).tolist() == [False, False]


def test_one_of_a_list_is_enough():
    criteria = StoppingCriteriaList([MaxLengthCriteria(9), EosTokenCriteria(3)])
    assert criteria(IDS, None).tolist() == [True, False]
    assert criteria.max_length == 9
    assert StoppingCriteriaList().max_length is None
    assert StoppingCriteriaList([lambda input_ids, scores: True])(IDS, None).tolist() == [True, True]


def test_stop_strings_count_only_where_they_end_now():
    tokenizer = ByteTokenizer()

    def done(text, stop="ab"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        return StopStringCriteria(tokenizer, stop)(ids, None).item()

    assert [done(text) for text in ("ab", "xab", "abx", "a", "abab", "aab")] == [True, True, False, False, True, True]
    assert done("x€", "€")
    assert not done("€x", "€")
    long = "word " * 20
    assert done("y" + long, long)


def test_bad_arguments():
    with pytest.raises(InputError, match="strings that are not empty, got ''"):
        StopStringCriteria(ByteTokenizer(), "")
    with pytest.raises(InputError, match="max_length of at most 9, one more than the model's positions, got 10"):
        MaxLengthCriteria(10, 8)
    with pytest.raises(NotImplementedError, match="StoppingCriteria must define __call__"):
        StoppingCriteria()(IDS, None)
