"""Special tokens in roles of a tokenizer's own, and the forms in which special tokens are listed."""

import copy
import json
import pickle

import pytest
from tokenizers import AddedToken

from modelwright.core.errors import InputError, UnknownArgumentError
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]
EXTRA = {"image_token": "<image>", "boi_token": AddedToken("<boi>", lstrip=True)}


@pytest.fixture(params=[BertTokenizer, BertTokenizerFast])
def make(request, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in WORDS))
    return lambda **kwargs: request.param(str(vocabulary), **kwargs)


def test_extra_special_tokens_are_attributes(make):
    tokenizer = make(extra_special_tokens=EXTRA)
    assert (tokenizer.image_token, tokenizer.boi_token) == ("<image>", "<boi>")
    assert (tokenizer.image_token_id, tokenizer.boi_token_id) == (7, 8)
    assert tokenizer("the <image> cat", add_special_tokens=False).input_ids == [5, 7, 6]
    assert tokenizer.decode([5, 7, 6], skip_special_tokens=True) == "the cat"
    assert tokenizer.extra_special_tokens == {"image_token": "<image>", "boi_token": "<boi>"}
    assert tokenizer.SPECIAL_TOKENS_ATTRIBUTES[-3:] == ("additional_special_tokens", "image_token", "boi_token")
    assert tokenizer.all_special_tokens[-2:] == ["<image>", "<boi>"]
    assert make().SPECIAL_TOKENS_ATTRIBUTES[-1] == "additional_special_tokens"
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin.image_token_id == 7
    with pytest.raises(AttributeError, match="has no attribute 'video_token'"):
        _ = tokenizer.video_token


def test_they_can_be_set(make):
    tokenizer = make(extra_special_tokens=EXTRA)
    assert tokenizer.add_special_tokens({"image_token": "<picture>"}) == 1
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<picture>", 9)
    tokenizer.image_token_id = 6
    assert tokenizer.image_token == "cat"
    tokenizer.image_token = None
    assert (tokenizer.image_token, tokenizer.image_token_id) == (None, None)
    with pytest.raises(UnknownArgumentError, match="video_token"):
        tokenizer.add_special_tokens({"video_token": "<video>"})


def test_they_are_saved(make, tmp_path):
    make(extra_special_tokens=EXTRA).save_pretrained(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert stored["extra_special_tokens"] == {"image_token": "<image>", "boi_token": "<boi>"}
    for use_fast in (False, True):
        again = AutoTokenizer.from_pretrained(tmp_path / "saved", use_fast=use_fast)
        assert (again.image_token_id, again.boi_token_id, len(again)) == (7, 8, 9)
        assert again.added_tokens_decoder[8].lstrip


def test_files_of_5x(make, tmp_path):
    make().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    stored = json.loads(path.read_text()) | {"extra_special_tokens": ["<a>"], "image_token": "<image>"}
    path.write_text(json.dumps(stored | {"model_specific_special_tokens": {"image_token": "<image>"}}))
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.additional_special_tokens == ["<a>"]
    assert again.image_token == "<image>"


@pytest.mark.parametrize("make", [BertTokenizerFast], indirect=True)
def test_training_anew_keeps_them(make):
    tokenizer = make(extra_special_tokens={"image_token": "<image>"})
    again = tokenizer.train_new_from_iterator(["the cat"], 30, show_progress=False)
    assert again.image_token == "<image>"
    assert again("<image>", add_special_tokens=False).input_ids == [again.image_token_id]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["<image>"], "expected names and tokens, such as .* additional_special_tokens"),
        ({"decode": "<d>"}, "'decode' is an attribute of every tokenizer"),
        ({"chat_template": "<d>"}, "'chat_template' is an attribute of every tokenizer"),
        ({"image_token": 5}, "image_token: expected a string or an AddedToken, got 5"),
    ],
)
def test_bad_names(make, extra, message):
    with pytest.raises(InputError, match=message):
        make(extra_special_tokens=extra)


def test_forms_with_flags(make):
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    tokenizer = make(mask_token=mask, additional_special_tokens=["<a>", AddedToken("<b>", rstrip=True)])
    extended = tokenizer.special_tokens_map_extended
    assert extended["pad_token"] == "[PAD]"
    assert extended["mask_token"].lstrip
    assert [str(token) for token in extended["additional_special_tokens"]] == ["<a>", "<b>"]
    assert [str(token) for token in tokenizer.all_special_tokens_extended] == tokenizer.all_special_tokens
    assert tokenizer.all_special_tokens_extended[-1].rstrip
    assert tokenizer.pad_token_type_id == 0
