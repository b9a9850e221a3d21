"""BertTokenizer and BertTokenizerFast beside transformers 4.57.1."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast

pytestmark = pytest.mark.parity

OPTIONS = [
    {},
    {"do_lower_case": False},
    {"tokenize_chinese_chars": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
]
EXTRA = [AddedToken("NewTok", single_word=True), AddedToken("<ent>", lstrip=True, rstrip=True), "lower Case"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_slow(wordpiece_file, agree, corpus, options):
    texts = corpus[:500] if options else corpus
    agree(BertTokenizer(wordpiece_file, **options), transformers.BertTokenizer(wordpiece_file, **options), texts=texts)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fast(wordpiece_file, agree, corpus, options):
    texts = corpus[:500] if options else corpus
    ours, theirs = (each(wordpiece_file, **options) for each in (BertTokenizerFast, transformers.BertTokenizerFast))
    agree(ours, theirs, texts=texts)


@pytest.mark.parametrize("options", [{"do_basic_tokenize": False}, {"never_split": ["don't", "U.S.A."]}], ids=str)
def test_options_of_the_slow_one(wordpiece_file, agree, corpus, options):
    ours, theirs = (each(wordpiece_file, **options) for each in (BertTokenizer, transformers.BertTokenizer))
    agree(ours, theirs, texts=corpus[:500])


@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast"])
def test_added_tokens_and_files_both_ways(wordpiece_file, corpus, agree, tmp_path, name):
    ours_class = {"BertTokenizer": BertTokenizer, "BertTokenizerFast": BertTokenizerFast}[name]
    theirs_class = getattr(transformers, name)
    ours, theirs = ours_class(wordpiece_file), theirs_class(wordpiece_file)
    for each in (ours, theirs):
        assert each.add_tokens(EXTRA) == 3
        assert each.add_special_tokens({"bos_token": "[BOS]", "additional_special_tokens": ["<S1>", "<S2>"]}) == 3
    assert ours.add_tokens(["the"]) == theirs.add_tokens(["the"])
    texts = [
        *corpus[:150],
        "a NewTok b",
        "aNewTok",
        "x <ent> y",
        "x<ent>y <ent><ent>",
        "LOWER CASE lower Case",
        "<S1>a[BOS] <S2>",
        "NewTok NewTok<S1>NewTok",
    ]
    agree(ours, theirs, texts=texts)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert {each.name for each in (tmp_path / "ours").iterdir()} == {e.name for e in (tmp_path / "theirs").iterdir()}
    agree(ours_class.from_pretrained(tmp_path / "theirs"), theirs, texts=texts)
    agree(ours_class.from_pretrained(tmp_path / "ours"), theirs, texts=texts)
    agree(ours, theirs_class.from_pretrained(tmp_path / "ours"), texts=texts)


def test_lookups(wordpiece_file, corpus):
    ours, theirs = (each(wordpiece_file) for each in (BertTokenizerFast, transformers.BertTokenizerFast))
    for text in corpus[:300]:
        mine, other = ours(text, "a pair"), theirs(text, "a pair")
        for index in range(len(text)):
            assert mine.char_to_token(index) == other.char_to_token(index)
            assert mine.char_to_word(index) == other.char_to_word(index)
        for index in range(len(mine.input_ids)):
            assert mine.token_to_chars(index) == other.token_to_chars(index)
            assert mine.token_to_word(index) == other.token_to_word(index)
            assert mine.token_to_sequence(index) == other.token_to_sequence(index)
        for index in {word for word in mine.word_ids() if word is not None}:
            for sequence in (0, 1):
                assert mine.word_to_tokens(index, sequence_index=sequence) == other.word_to_tokens(
                    index, sequence_index=sequence
                )
        assert mine.sequence_ids() == other.sequence_ids()


@pytest.fixture(scope="module")
def quartet(wordpiece_file):
    return [
        each(wordpiece_file)
        for each in (BertTokenizer, BertTokenizerFast, transformers.BertTokenizer, transformers.BertTokenizerFast)
    ]


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text(quartet, text):
    slow, fast, their_slow, their_fast = quartet
    assert slow(text).input_ids == their_slow(text).input_ids
    assert fast(text).input_ids == their_fast(text).input_ids
