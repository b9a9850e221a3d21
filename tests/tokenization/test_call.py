import subprocess
import sys

import numpy as np
import pytest
import torch

from modelwright.core import logging as mw_logging
from modelwright.core.errors import InputError, MissingPackageError, UnknownArgumentError
from modelwright.tokenization import tensors
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
A, B, C, D = (TOKENIZER.encode(letter)[0] for letter in "ABCD")


@pytest.fixture(autouse=True)
def _say_again():
    mw_logging.forget_once()


def test_one_text_a_pair_and_batches():
    assert dict(TOKENIZER("AB")) == {"input_ids": [A, B], "attention_mask": [1, 1]}
    assert TOKENIZER("A", "BC").input_ids == [A, B, C]
    assert TOKENIZER(["A", "BC"]).input_ids == [[A], [B, C]]
    assert TOKENIZER([("A", "B"), ["C", "D"]]).input_ids == TOKENIZER(["A", "C"], ["B", "D"]).input_ids
    assert TOKENIZER(("A", "B")).input_ids == [[A], [B]]


def test_fields_on_demand():
    encoded = TOKENIZER(
        ["A", "BC"],
        ["D", ""],
        padding=True,
        return_token_type_ids=True,
        return_special_tokens_mask=True,
        return_length=True,
        return_attention_mask=False,
    )
    assert dict(encoded) == {
        "input_ids": [[A, D], [B, C]],
        "token_type_ids": [[0, 1], [0, 0]],
        "special_tokens_mask": [[0, 0], [0, 0]],
        "length": [2, 2],
    }


@pytest.mark.parametrize(
    ("kwargs", "ids", "mask"),
    [
        ({"padding": True}, [[A, 0, 0], [B, C, D]], [[1, 0, 0], [1, 1, 1]]),
        ({"padding": "longest", "padding_side": "left"}, [[0, 0, A], [B, C, D]], [[0, 0, 1], [1, 1, 1]]),
        ({"padding": "max_length", "max_length": 4}, [[A, 0, 0, 0], [B, C, D, 0]], [[1, 0, 0, 0], [1, 1, 1, 0]]),
        ({"padding": True, "pad_to_multiple_of": 2}, [[A, 0, 0, 0], [B, C, D, 0]], [[1, 0, 0, 0], [1, 1, 1, 0]]),
        ({"padding": False}, [[A], [B, C, D]], [[1], [1, 1, 1]]),
        ({"padding": "max_length", "max_length": 2, "truncation": True}, [[A, 0], [B, C]], [[1, 0], [1, 1]]),
        ({"padding": "do_not_pad", "truncation": True, "max_length": 2}, [[A], [B, C]], [[1], [1, 1]]),
    ],
)
def test_padding(kwargs, ids, mask):
    encoded = TOKENIZER(["A", "BCD"], **kwargs)
    assert encoded.input_ids == ids
    assert encoded.attention_mask == mask
    encoded = TOKENIZER(["A", "BCD"], return_special_tokens_mask=True, **kwargs)
    assert encoded.special_tokens_mask == [[1 - bit for bit in row] for row in mask]


def test_padding_side_and_lengths_of_the_tokenizer():
    tokenizer = ByteTokenizer(padding_side="left", truncation_side="left", model_max_length=3)
    assert tokenizer("A", padding="max_length").input_ids == [0, 0, A]
    assert tokenizer("ABCD", truncation=True).input_ids == [B, C, D]
    with pytest.raises(InputError, match="padding_side to be 'left' or 'right', got 'top'"):
        ByteTokenizer(padding_side="top")


def test_padding_without_a_pad_token_says_how_to_set_one():
    tokenizer = ByteTokenizer(pad_token=None)
    with pytest.raises(InputError, match=r"no pad token.*tokenizer.pad_token = tokenizer.eos_token"):
        tokenizer(["A", "BC"], padding=True)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["A", "BC"], padding=True).input_ids == [[A, 1], [B, C]]


@pytest.mark.parametrize(
    ("strategy", "length", "expected"),
    [
        (True, 5, "ABC" + "ab"),
        ("longest_first", 4, "AB" + "ab"),
        ("longest_first", 2, "A" + "a"),
        ("only_first", 5, "ABC" + "ab"),
        ("only_second", 5, "ABCD" + "a"),
        ("do_not_truncate", 3, "ABCD" + "ab"),
        (False, 3, "ABCD" + "ab"),
    ],
)
def test_truncation_of_a_pair(strategy, length, expected):
    ids = TOKENIZER("ABCD", "ab", truncation=strategy, max_length=length).input_ids
    assert TOKENIZER.decode(ids) == expected


def test_a_strategy_that_cannot_reach_the_length_is_refused():
    with pytest.raises(InputError, match="truncation='only_second' cannot take 3 tokens from texts of 4 and 2 tokens"):
        TOKENIZER("ABCD", "ab", truncation="only_second", max_length=3)
    with pytest.raises(InputError, match="truncation='only_second' cannot take 1 tokens from texts of 4 and 0"):
        TOKENIZER("ABCD", truncation="only_second", max_length=3)
    with pytest.raises(InputError, match="cannot take 3 tokens from texts of 1 and 1"):
        ByteTokenizer(add_eos=True)("A", "B", truncation=True, max_length=1)


def test_truncation_to_something_that_is_no_multiple_contradicts():
    with pytest.raises(InputError, match="choose a max_length that is a multiple of 8"):
        TOKENIZER("A", padding=True, truncation=True, max_length=12, pad_to_multiple_of=8)


def test_max_length_alone_truncates_and_says_so(caplog):
    assert TOKENIZER("ABCD", max_length=2).input_ids == [A, B]
    assert "max_length was given without truncation" in caplog.text
    assert TOKENIZER("ABCD", max_length=2, truncation=False, pad_to_multiple_of=8).input_ids == [A, B, C, D]
    assert "max_length does nothing without" in caplog.text
    assert "pad_to_multiple_of does nothing without" in caplog.text


def test_strategies_without_a_length_say_that_they_do_nothing(caplog):
    assert TOKENIZER("ABCD", truncation=True, padding="max_length").input_ids == [A, B, C, D]
    assert "truncation cuts nothing" in caplog.text
    assert "padding='max_length' pads nothing" in caplog.text


def test_rows_longer_than_the_model_takes_are_said(caplog):
    tokenizer = ByteTokenizer(model_max_length=2)
    tokenizer("ABC", verbose=False)
    assert caplog.text == ""
    tokenizer("ABC")
    assert "3 tokens are more than the model's 2 (model_max_length)" in caplog.text


def test_tensors():
    encoded = TOKENIZER(["A", "BC"], padding=True, return_tensors="pt")
    assert encoded.input_ids.dtype == torch.long
    assert encoded.input_ids.tolist() == [[A, 0], [B, C]]
    array = TOKENIZER("AB", return_tensors="np").input_ids
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.int64
    assert array.tolist() == [[A, B]]
    assert TOKENIZER.encode("AB", return_tensors="pt").tolist() == [[A, B]]
    assert TOKENIZER("", return_tensors="pt").input_ids.shape == (1, 0)
    assert TOKENIZER("", return_tensors="pt").input_ids.dtype == torch.long
    with pytest.raises(InputError, match="'input_ids' cannot become a tensor: .* rows of 1 to 2 values. Pass padding"):
        TOKENIZER(["A", "BC"], return_tensors="pt")
    with pytest.raises(InputError, match="return_tensors: expected one of jax, np, pt, tf, got 'tg'"):
        TOKENIZER("A", return_tensors="tg")


@pytest.mark.parametrize(("kind", "package"), [("tf", "tensorflow"), ("jax", "jax"), ("pt", "torch")])
def test_tensors_of_a_package_that_is_not_there(kind, package, monkeypatch):
    monkeypatch.setattr(tensors, "is_available", lambda name: name != package)
    with pytest.raises(MissingPackageError, match=f"return_tensors='{kind}' needs .* pip install {package}$"):
        TOKENIZER("A", return_tensors=kind)


def test_a_torch_tensor_becomes_a_numpy_array():
    encoded = BatchEncoding({"row": torch.tensor([1, 2], dtype=torch.int32)})
    array = encoded.convert_to_tensors("np", prepend_batch_axis=True)["row"]
    assert isinstance(array, np.ndarray)
    assert (array.dtype, array.tolist()) == (np.int64, [[1, 2]])


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((5,), "expected a str, or a list of str or of pairs, got int"),
        ((["A", 5],), "item 1 of the batch: expected a str or a pair, got int"),
        (([("A", None)],), "item 0 of the batch: expected a str or a pair, got NoneType"),
        ((["A", ["B", "C", "D"]],), "item 1 of the batch: expected a str or a pair, got list"),
        (([],), "expected at least one text, got an empty batch"),
        (("A", ["B"]), "text is one str, so text_pair must be too; got list"),
        ((["A", "B"], ["C"]), "expected a text_pair for each of the 2 texts, got 1"),
        ((["A"], "C"), "expected a text_pair for each of the 1 texts, got str"),
    ],
)
def test_what_is_no_text(args, match):
    with pytest.raises(InputError, match=match):
        TOKENIZER(*args)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        (
            {"padding": "long"},
            "padding: expected one of do_not_pad, longest, max_length, got 'long'. Did you mean 'lon",
        ),
        ({"truncation": "first"}, "truncation: expected one of .* got 'first'"),
        ({"max_length": 0}, "max_length to be a whole number of tokens, 1 or more, or None; got 0"),
        ({"max_length": 2.0}, "max_length .* got 2.0"),
        ({"pad_to_multiple_of": -8}, "pad_to_multiple_of .* got -8"),
        ({"padding_side": "up"}, "padding_side: expected one of left, right, got 'up'"),
    ],
)
def test_bad_keywords(kwargs, match):
    with pytest.raises(InputError, match=match):
        TOKENIZER("A", **kwargs)


def test_unknown_keywords_are_named():
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'max_len'. Did you mean 'max_length'"):
        TOKENIZER("A", max_len=3)
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'paddin'. Did you mean 'padding'"):
        TOKENIZER.encode("A", paddin=True)
    with pytest.raises(
        UnknownArgumentError, match="ByteTokenizer got an unknown keyword 'add_eso'. Did you mean 'add_eos'"
    ):
        ByteTokenizer(add_eso=True)


def test_words_that_are_split_already():
    assert TOKENIZER(["A", "BC"], is_split_into_words=True).input_ids == [A, B, C]
    assert TOKENIZER([["A", "B"], ["C"]], is_split_into_words=True).input_ids == [[A, B], [C]]
    assert TOKENIZER(["A"], ["B", "C"], is_split_into_words=True).input_ids == [A, B, C]
    with pytest.raises(InputError, match="expected a list of words, or a list of such lists, got str"):
        TOKENIZER("A", is_split_into_words=True)
    with pytest.raises(InputError, match="item 1: expected a list of words, got int"):
        TOKENIZER([["A"], [1]], is_split_into_words=True)
    with pytest.raises(InputError, match="item 0 of the batch: .* got list. For words that are split already"):
        TOKENIZER([["A", "B", "C"]])


def test_overflowing_tokens():
    encoded = TOKENIZER("ABCD", truncation=True, max_length=3, stride=1, return_overflowing_tokens=True)
    assert (encoded.input_ids, encoded.overflowing_tokens, encoded.num_truncated_tokens) == ([A, B, C], [C, D], 1)
    with pytest.raises(InputError, match="a pair needs truncation='only_first' or 'only_second'"):
        TOKENIZER("AB", "CD", truncation=True, max_length=3, return_overflowing_tokens=True)


def test_target_texts_become_labels():
    encoded = TOKENIZER("A", text_target="BC")
    assert (encoded.input_ids, encoded.labels) == ([A], [B, C])
    assert TOKENIZER(text_target="B").input_ids == [B]
    with pytest.raises(InputError, match="expected text or text_target, got neither"):
        TOKENIZER()


def test_offsets_need_a_fast_tokenizer():
    with pytest.raises(InputError, match="return_offsets_mapping needs a fast tokenizer"):
        TOKENIZER("A", return_offsets_mapping=True)
    with pytest.raises(InputError, match="word_ids needs a fast tokenizer"):
        TOKENIZER("A").word_ids()


def test_encode_takes_one_text():
    with pytest.raises(InputError, match="encode: expected one str, got list"):
        TOKENIZER.encode(["A"])


def test_pad_takes_rows_batches_and_lists_of_rows():
    rows = [{"input_ids": [A], "labels": [7]}, {"input_ids": torch.tensor([B, C]), "labels": [8]}]
    padded = TOKENIZER.pad(rows, return_tensors="pt")
    assert padded.input_ids.tolist() == [[A, 0], [B, C]]
    assert padded.attention_mask.tolist() == [[1, 0], [1, 1]]
    assert padded.labels.tolist() == [[7], [8]]
    assert rows[0] == {"input_ids": [A], "labels": [7]}  # not written to
    assert TOKENIZER.pad(TOKENIZER(["A", "BC"]), padding_side="left").input_ids == [[0, A], [B, C]]
    assert TOKENIZER.pad({"input_ids": [A]}, padding="max_length", max_length=3).attention_mask == [1, 0, 0]
    assert "attention_mask" not in TOKENIZER.pad({"input_ids": [[A], [B, C]]}, return_attention_mask=False)
    with pytest.raises(InputError, match="expected a field 'input_ids', got labels"):
        TOKENIZER.pad([{"labels": [1]}])
    with pytest.raises(InputError, match="at least one row"):
        TOKENIZER.pad([])


def test_tokenizers_do_not_import_torch():
    code = (
        "import sys; from modelwright.tokenization.byte_tokenizer import ByteTokenizer as T; t = T();"
        "t(['a', 'bc'], padding=True, return_tensors='np').input_ids; t.decode(t.encode('a'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
