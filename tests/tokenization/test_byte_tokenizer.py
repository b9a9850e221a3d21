import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelwright.core.errors import InputError, UnknownArgumentError
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()


def test_ids_are_bytes_plus_two():
    assert TOKENIZER.encode("Az\n") == [67, 124, 12]
    assert TOKENIZER.encode("é🙂") == [byte + 2 for byte in "é🙂".encode()]
    assert TOKENIZER("").input_ids == []
    assert (TOKENIZER.vocab_size, len(TOKENIZER), TOKENIZER.byte_offset) == (258, 258, 2)
    assert (TOKENIZER.pad_token, TOKENIZER.pad_token_id) == ("<pad>", 0)
    assert (TOKENIZER.eos_token, TOKENIZER.eos_token_id) == ("</s>", 1)
    assert TOKENIZER.all_special_ids == [1, 0]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert TOKENIZER.decode(TOKENIZER(text, return_tensors="np").input_ids[0], skip_special_tokens=True) == text
    assert TOKENIZER.convert_tokens_to_string(TOKENIZER.tokenize(text)) == text


@given(st.binary())
def test_every_byte_string_comes_back(data):
    assert TOKENIZER.decode_bytes(TOKENIZER.encode_bytes(data)) == data
    assert TOKENIZER.decode(TOKENIZER.encode_bytes(data)) == data.decode("utf-8", "replace")
    escaping = ByteTokenizer(errors="surrogateescape")
    assert bytes(i - 2 for i in escaping.encode(escaping.decode(escaping.encode_bytes(data)))) == data


@given(st.lists(st.integers(0, 257)))
def test_special_tokens_are_named_or_left_out(ids):
    pieces = [("<pad>", "</s>")[i].encode() if i < 2 else bytes([i - 2]) for i in ids]
    assert TOKENIZER.decode(ids) == b"".join(pieces).decode("utf-8", "replace")
    text = bytes(i - 2 for i in ids if i >= 2).decode("utf-8", "replace")
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


def test_errors_of_decode():
    half = TOKENIZER.encode("a€")[:-1]
    assert TOKENIZER.decode(half) == "a\ufffd"
    assert TOKENIZER.decode(half, errors="ignore") == "a"
    with pytest.raises(UnicodeDecodeError):
        ByteTokenizer(errors="strict").decode(half)
    with pytest.raises(
        InputError, match="errors: expected one of ignore, replace, strict, surrogateescape, got 'repl'"
    ):
        TOKENIZER.decode(half, errors="repl")
    with pytest.raises(InputError, match="errors: expected one of"):
        ByteTokenizer(errors=None)
    with pytest.raises(UnknownArgumentError, match="decode got an unknown keyword 'error'. Did you mean 'errors'"):
        TOKENIZER.decode(half, error="x")


def test_special_tokens_in_text_are_bytes():
    assert TOKENIZER.encode("<pad></s>") == [byte + 2 for byte in b"<pad></s>"]
    assert TOKENIZER.tokenize("</s>") == list("</s>")
    assert TOKENIZER.tokenize("é") == ["Ã", "©"]


def test_add_eos_ends_each_text():
    tokenizer = ByteTokenizer(add_eos=True)
    assert tokenizer.encode("A") == [67, 1]
    assert tokenizer.encode("A", "B") == [67, 1, 68, 1]
    assert tokenizer.encode("A", add_special_tokens=False) == [67]
    assert tokenizer.encode("ABCD", truncation=True, max_length=3) == [67, 68, 1]
    assert tokenizer("A", "B", return_special_tokens_mask=True).special_tokens_mask == [0, 1, 0, 1]
    assert tokenizer.num_special_tokens_to_add(pair=True) == 2
    with pytest.raises(InputError, match="add_eos=True needs an eos_token"):
        ByteTokenizer(add_eos=True, eos_token=None)


def test_ids_and_tokens_outside_the_vocabulary():
    for ids, wrong in (([67, 258], "258 at position 1"), ([-1], "-1 at position 0")):
        for decode in (TOKENIZER.decode, TOKENIZER.decode_bytes):
            with pytest.raises(InputError, match=f"expected ids from 0 to 257, got {wrong}"):
                decode(ids)
    with pytest.raises(InputError, match="expected an id from 0 to 257, got 300"):
        TOKENIZER.convert_ids_to_tokens([300])
    assert TOKENIZER.convert_tokens_to_ids(["A", "<pad>", "ab", "€"]) == [67, 0, None, None]
    with pytest.raises(InputError, match="'ab' is not a token"):
        TOKENIZER.convert_tokens_to_string(["a", "ab"])
    with pytest.raises(InputError, match=r"the special token '\[MASK\]' is not in its vocabulary"):
        ByteTokenizer(mask_token="[MASK]")


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(InputError, match=r"character 1 of the text, '\\ud800', is half of a surrogate"):
        TOKENIZER.encode("a\ud800")


def test_decode_takes_what_models_return():
    for ids in ([67, 68], (67, 68), np.array([67, 68], dtype=np.int32), torch.tensor([67, 68]), [torch.tensor(67), 68]):
        assert TOKENIZER.decode(ids) == "AB"
    assert TOKENIZER.decode(67) == TOKENIZER.decode(torch.tensor(67)) == "A"
    assert TOKENIZER.decode([]) == TOKENIZER.decode(torch.tensor([], dtype=torch.long)) == ""
    assert TOKENIZER.batch_decode(torch.tensor([[67, 1], [68, 0]]), skip_special_tokens=True) == ["A", "B"]
    for batch in (torch.tensor([[67]]), [[67], [68]], [[67], [68, 69]]):
        with pytest.raises(InputError, match="expected one row of ids, got a batch. Use batch_decode"):
            TOKENIZER.decode(batch)
    with pytest.raises(InputError, match="expected whole numbers, got float64"):
        TOKENIZER.decode([1.5])


def test_megabytes_are_a_matter_of_tenths_of_a_second():
    text = "fünf Megabyte " * 350_000
    start = time.perf_counter()
    encoded = TOKENIZER(text, return_tensors="pt")
    assert TOKENIZER.decode(encoded.input_ids[0], skip_special_tokens=True) == text
    # A loop over the bytes in Python takes many times this long; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 5
