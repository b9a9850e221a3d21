"""Steps of a call, special tokens in roles of their own, and bad ids, beside transformers 4.57.1."""

import itertools

import pytest
import transformers
from tokenizers import AddedToken

from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.models.gpt2.tokenization_gpt2_fast import GPT2TokenizerFast

pytestmark = pytest.mark.parity

EXTRA = {"image_token": AddedToken("<image>", lstrip=True, special=True, normalized=False), "boi_token": "<boi>"}
BOTH = [(BertTokenizer, transformers.BertTokenizer), (BertTokenizerFast, transformers.BertTokenizerFast)]


@pytest.mark.parametrize(("ours_class", "theirs_class"), BOTH)
def test_prepare_for_model(wordpiece_file, ours_class, theirs_class):
    ours, theirs = ours_class(wordpiece_file), theirs_class(wordpiece_file)
    lengths = itertools.product((0, 3, 9), (None, 0, 4), (False, True), (None, 8, 12))
    for first, second, special, limit in lengths:
        ids, pair_ids = list(range(10, 10 + first)), None if second is None else list(range(30, 30 + second))
        if not (first or second or special):
            continue  # theirs does not pad an empty row
        options = {
            "add_special_tokens": special,
            "return_special_tokens_mask": not theirs.is_fast,
            "return_length": True,
        }
        if limit is not None:
            options |= {"truncation": True, "max_length": limit, "padding": "max_length"}
        if not special:
            options |= {"return_token_type_ids": False}
        mine = ours.prepare_for_model(ids, pair_ids, **options)
        assert dict(mine) == dict(theirs.prepare_for_model(ids, pair_ids, **options)), (first, second, options)
        assert ours.prepare_for_model(ids, pair_ids, return_tensors="np", **options).input_ids.shape[0] == 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncate_sequences(wordpiece_file, side):
    ours, theirs = (each(wordpiece_file, truncation_side=side) for each in BOTH[0])
    for strategy in ("longest_first", "only_first", "only_second"):
        for second, removed, stride in itertools.product((None, 5), (0, 2, 4), (0, 2)):
            if strategy == "only_second" and second is None:
                continue
            pair_ids = None if second is None else list(range(30, 30 + second))
            options = {"num_tokens_to_remove": removed, "truncation_strategy": strategy, "stride": stride}
            expected = theirs.truncate_sequences(
                list(range(6)), None if pair_ids is None else list(pair_ids), **options
            )
            got = ours.truncate_sequences(list(range(6)), pair_ids, **options)
            assert got == expected, (strategy, options)


@pytest.mark.parametrize(("ours_class", "theirs_class"), BOTH)
def test_extra_special_tokens_both_ways(wordpiece_file, tmp_path, ours_class, theirs_class):
    options = {"extra_special_tokens": EXTRA, "additional_special_tokens": ["<a>"]}
    ours, theirs = ours_class(wordpiece_file, **options), theirs_class(wordpiece_file, **options)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    read = [
        ours_class.from_pretrained(tmp_path / "theirs"),
        AutoTokenizer.from_pretrained(tmp_path / "theirs"),
        ours_class.from_pretrained(tmp_path / "ours"),
        theirs_class.from_pretrained(tmp_path / "ours"),
    ]
    for each in (ours, *read):
        assert each.special_tokens_map == theirs.special_tokens_map
        assert sorted(each.all_special_tokens) == sorted(theirs.all_special_tokens)  # files are sorted
        assert sorted(each.all_special_ids) == sorted(theirs.all_special_ids)
        assert (each.image_token, each.image_token_id) == (theirs.image_token, theirs.image_token_id)
        assert len(each) == len(theirs)
        text = "a <image> b<boi>c <a>"
        assert each(text).input_ids == theirs(text).input_ids
        assert each.decode(each(text).input_ids, skip_special_tokens=True) == theirs.decode(
            theirs(text).input_ids, skip_special_tokens=True
        )
    assert list(ours.SPECIAL_TOKENS_ATTRIBUTES) == theirs.SPECIAL_TOKENS_ATTRIBUTES


@pytest.mark.parametrize(("ours_class", "theirs_class"), BOTH)
def test_sizes_and_lists(wordpiece_file, ours_class, theirs_class):
    options = {"model_max_length": 20, "mask_token": AddedToken("[MASK]", lstrip=True, special=True)}
    ours, theirs = ours_class(wordpiece_file, **options), theirs_class(wordpiece_file, **options)
    for name in (
        "max_len_single_sentence", "max_len_sentences_pair", "pad_token_type_id", "vocab_size", "special_tokens_map",
        "added_tokens_encoder", "all_special_ids", "model_input_names",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [str(each) for each in ours.all_special_tokens_extended] == theirs.all_special_tokens
    assert ours.special_tokens_map_extended["mask_token"].lstrip
    tokens = ["the", "[MASK]", "nowhere", "##s"]
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    ids = list(range(20))
    for skip in (False, True):
        assert ours.convert_ids_to_tokens(ids, skip) == theirs.convert_ids_to_tokens(ids, skip)
    assert ours.convert_tokens_to_string(["the", "cat", "##s"]) == theirs.convert_tokens_to_string(
        ["the", "cat", "##s"]
    )


def test_vocabulary_of_a_fast_one(byte_bpe_files):
    ours = GPT2TokenizerFast(**vars(byte_bpe_files))
    assert ours.vocab == transformers.GPT2TokenizerFast(**vars(byte_bpe_files)).vocab
