"""T5, Reformer and Llama tokenizers beside transformers 4.57.1, on models that sentencepiece trains here."""

import warnings

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.models.llama.tokenization_llama import LlamaTokenizer
from modelwright.models.llama.tokenization_llama_fast import LlamaTokenizerFast
from modelwright.models.reformer.tokenization_reformer import ReformerTokenizer
from modelwright.models.reformer.tokenization_reformer_fast import ReformerTokenizerFast
from modelwright.models.t5.tokenization_t5 import T5Tokenizer
from modelwright.models.t5.tokenization_t5_fast import T5TokenizerFast

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def t5_file(train_sentencepiece):
    return train_sentencepiece(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


@pytest.fixture(scope="module")
def reformer_file(train_sentencepiece):
    return train_sentencepiece(model_type="bpe")


@pytest.mark.parametrize(
    "options", [{}, {"legacy": False}, {"legacy": False, "add_prefix_space": False}, {"extra_ids": 3}], ids=str
)
def test_t5_slow(t5_file, agree, corpus, options):
    texts = [text for text in corpus[: 400 if options else None] if "</s>" not in text]
    agree(T5Tokenizer(t5_file, **options), transformers.T5Tokenizer(t5_file, **options), texts=texts)


def test_t5_slow_with_an_end_in_the_text(t5_file):
    """Their masks then have one entry too many; ids agree, and our masks fit them."""
    ours, theirs = T5Tokenizer(t5_file), transformers.T5Tokenizer(t5_file)
    for text in ("a</s>", "</s>", "a </s> "):
        mine = ours(text, "b", return_special_tokens_mask=True)
        with pytest.warns(UserWarning, match="already has </s>"):
            assert mine.input_ids == theirs(text, "b").input_ids
        assert len(mine.special_tokens_mask) == len(mine.input_ids)


@pytest.mark.parametrize("options", [{}, {"extra_ids": 3}], ids=str)
def test_t5_fast(t5_file, agree, corpus, options):
    texts = corpus[:400] if options else corpus
    # Without the keyword, theirs drops the space that the slow one puts before a text.
    theirs = transformers.T5TokenizerFast(t5_file, add_prefix_space=True, **options)
    agree(T5TokenizerFast(t5_file, **options), theirs, texts=texts)


def test_reformer_slow(reformer_file, t5_file, agree, corpus):
    agree(ReformerTokenizer(reformer_file), transformers.ReformerTokenizer(reformer_file))
    agree(ReformerTokenizer(t5_file), transformers.ReformerTokenizer(t5_file), texts=corpus[:400])


def test_reformer_fast(reformer_file, t5_file, agree, corpus):
    agree(ReformerTokenizerFast(reformer_file), transformers.ReformerTokenizerFast(reformer_file))
    agree(ReformerTokenizerFast(t5_file), transformers.ReformerTokenizerFast(t5_file), texts=corpus[:400])


def load(name, path):
    options = {"add_prefix_space": True} if name == "T5TokenizerFast" else {}
    return globals()[name](path, **options), getattr(transformers, name)(path, **options)


@pytest.fixture(scope="module")
def llama_file(train_sentencepiece):
    return train_sentencepiece(
        "tokenizer.model", model_type="bpe", byte_fallback=True, normalization_rule_name="identity", vocab_size=700,
        remove_extra_whitespaces=False,
    )  # fmt: skip


LLAMA = [{}, {"legacy": False}, {"add_bos_token": False, "add_eos_token": True}]


@pytest.mark.parametrize("options", LLAMA, ids=str)
def test_llama_slow(llama_file, agree, corpus, options):
    texts = corpus[:400] if options else corpus
    agree(LlamaTokenizer(llama_file, **options), transformers.LlamaTokenizer(llama_file, **options), texts=texts)


@pytest.mark.parametrize("options", LLAMA, ids=str)
def test_llama_fast(llama_file, agree, corpus, options):
    texts = corpus[:400] if options else corpus
    # Without the keyword, theirs drops the space that the slow one puts before a text.
    options = {"add_prefix_space": True, **options}
    ours, theirs = LlamaTokenizerFast(llama_file, **options), transformers.LlamaTokenizerFast(llama_file, **options)
    agree(ours, theirs, texts=texts)


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast"])
def test_llama_files_both_ways(llama_file, agree, corpus, tmp_path, name):
    ours_class, theirs_class = globals()[name], getattr(transformers, name)
    ours, theirs = (each(llama_file, add_prefix_space=True) for each in (ours_class, theirs_class))
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    agree(ours_class.from_pretrained(tmp_path / "theirs"), theirs, texts=corpus[:150])
    agree(ours_class.from_pretrained(tmp_path / "ours"), theirs, texts=corpus[:150])
    agree(ours, theirs_class.from_pretrained(tmp_path / "ours"), texts=corpus[:150])


FAMILIES = ["T5Tokenizer", "T5TokenizerFast", "ReformerTokenizer", "ReformerTokenizerFast"]


@pytest.mark.parametrize("name", FAMILIES)
def test_files_both_ways(t5_file, agree, corpus, tmp_path, name):
    ours_class, theirs_class = globals()[name], getattr(transformers, name)
    ours, theirs = load(name, t5_file)
    for each in (ours, theirs):
        assert each.add_special_tokens({"mask_token": "[MASK]"}) == 1
        assert each.add_tokens(["newtoken", "zwei Wörter"]) == 2
    plain = [text for text in corpus[:150] if "</s>" not in text]
    texts = [*plain, "a newtoken b", "anewtokenb", "x[MASK] y", "zwei Wörter"]
    agree(ours, theirs, texts=texts)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert {each.name for each in (tmp_path / "ours").iterdir()} == {e.name for e in (tmp_path / "theirs").iterdir()}
    agree(ours_class.from_pretrained(tmp_path / "theirs"), theirs, texts=texts)
    agree(ours_class.from_pretrained(tmp_path / "ours"), theirs, texts=texts)
    agree(ours, theirs_class.from_pretrained(tmp_path / "ours"), texts=texts)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text(t5_file, text):
    cache = _loaded(t5_file)
    for ours, theirs in cache:
        with warnings.catch_warnings(action="ignore"):
            expected = theirs(text, verbose=False).input_ids
        assert ours(text, verbose=False).input_ids == expected, type(ours).__name__


_CACHE = {}


def _loaded(path):
    if path not in _CACHE:
        _CACHE[path] = [load(name, path) for name in FAMILIES]
    return _CACHE[path]
