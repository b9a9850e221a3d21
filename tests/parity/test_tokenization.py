"""The base API beside transformers 4.57.1: its ByT5Tokenizer is our ByteTokenizer with other special ids."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer
from transformers.utils import logging as their_logging

from modelwright.tokenization.byte_tokenizer import ByteTokenizer
from modelwright.tokenization.strategies import TruncationStrategy
from modelwright.tokenization.truncation import truncate_pair

pytestmark = pytest.mark.parity


class Byt5Like(ByteTokenizer):
    """ByT5's layout: bytes from 3 on, an unknown token at 2; each text ends with the eos token."""

    byte_offset = 3
    model_input_names = ("input_ids", "attention_mask")


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    level = their_logging.get_verbosity()
    their_logging.set_verbosity_error()
    yield
    their_logging.set_verbosity(level)


OURS, THEIRS = Byt5Like(add_eos=True), ByT5Tokenizer(extra_ids=0)
TEXT = st.text(alphabet="aé🙂 \n", max_size=9)
FIELDS = {"return_special_tokens_mask": True, "return_length": True}


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4),
    pairs=st.booleans(),
    padding=st.sampled_from([False, True, "max_length"]),
    side=st.sampled_from(["left", "right"]),
    truncation=st.sampled_from([False, True]),
    max_length=st.integers(4, 20),
    multiple=st.sampled_from([None, 4]),
)
def test_batches(rows, pairs, padding, side, truncation, max_length, multiple):
    if multiple and truncation and padding:
        max_length = -(-max_length // multiple) * multiple
    texts = rows if pairs else [first for first, _ in rows]
    if not truncation and padding != "max_length":
        max_length = None  # it would do nothing, which they warn of
    kwargs = {
        "padding": padding, "truncation": truncation, "max_length": max_length, "pad_to_multiple_of": multiple,
        "padding_side": side, "return_special_tokens_mask": True,
    }  # fmt: skip
    assert dict(OURS(texts, **kwargs)) == dict(THEIRS(texts, **kwargs))


@settings(max_examples=60, deadline=None)
@given(text=TEXT, padding=st.sampled_from([False, "max_length"]), max_length=st.integers(2, 12))
def test_single_texts(text, padding, max_length):
    kwargs = {"padding": padding, "truncation": True, "max_length": max_length, "return_length": True}
    assert dict(OURS(text, **kwargs)) == dict(THEIRS(text, **kwargs))


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_strategies(strategy, side):
    THEIRS.truncation_side = side
    try:
        for first in range(7):
            for second in range(7):
                for total in range(first + second + 1):
                    removed = first + second - total
                    room = {"longest_first": first + second, "only_first": first - 1, "only_second": second - 1}[
                        strategy
                    ]
                    if removed > room:
                        continue  # theirs then returns rows that are too long
                    texts = list(range(first)), list(range(100, 100 + second))
                    expected = THEIRS.truncate_sequences(
                        *texts, num_tokens_to_remove=removed, truncation_strategy=strategy
                    )[:2]
                    got = truncate_pair("test", *texts, total=total, strategy=TruncationStrategy(strategy), side=side)
                    assert got == expected, (first, second, total)
    finally:
        THEIRS.truncation_side = "right"


def test_pad():
    rows = [{"input_ids": [5, 6], "labels": [1]}, {"input_ids": [7], "labels": [2]}]
    for kwargs in ({}, {"padding": "max_length", "max_length": 5}, {"pad_to_multiple_of": 8}):
        assert dict(OURS.pad(rows, **kwargs)) == dict(THEIRS.pad(rows, **kwargs))


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_tokens_and_text(text):
    ids = THEIRS(text).input_ids
    assert OURS.tokenize(text) == THEIRS.tokenize(text)
    assert OURS.decode(ids) == THEIRS.decode(ids)
    assert OURS.decode(ids, skip_special_tokens=True) == THEIRS.decode(ids, skip_special_tokens=True)


def test_files_of_theirs_are_read(tmp_path):
    ByT5Tokenizer(extra_ids=0, model_max_length=99, padding_side="left").save_pretrained(tmp_path)
    ours = ByteTokenizer.from_pretrained(tmp_path, unk_token=None)
    assert (ours.model_max_length, ours.eos_token, ours.pad_token) == (99, "</s>", "<pad>")
    ours.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert again["added_tokens_decoder"]["0"]["content"] == "<pad>"
    theirs = json.loads((tmp_path / "special_tokens_map.json").read_text())
    del theirs["unk_token"]
    assert json.loads((tmp_path / "again" / "special_tokens_map.json").read_text()) == theirs
