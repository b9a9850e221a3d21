"""GPT-2's and ProphetNet's tokenizers beside transformers 4.57.1."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.models.gpt2.tokenization_gpt2 import GPT2Tokenizer
from modelwright.models.gpt2.tokenization_gpt2_fast import GPT2TokenizerFast
from modelwright.models.prophetnet.tokenization_prophetnet import ProphetNetTokenizer

pytestmark = pytest.mark.parity


OURS = {"GPT2Tokenizer": GPT2Tokenizer, "GPT2TokenizerFast": GPT2TokenizerFast}


def load(name, files, **options):
    paths = vars(files)
    return OURS[name](**paths, **options), getattr(transformers, name)(**paths, **options)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast"])
@pytest.mark.parametrize("options", [{"add_prefix_space": True}, {}], ids=str)
def test_gpt2(byte_bpe_files, agree, corpus, name, options):
    ours, theirs = load(name, byte_bpe_files, **options)
    split = "Fast" not in name or options.get("add_prefix_space", False)
    texts = corpus if split and options else corpus[:400]
    agree(ours, theirs, texts=texts, lengths=split)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast"])
def test_gpt2_with_a_first_token(byte_bpe_files, corpus, name):
    """Ids only: their slow one's token types leave that token out, so that they do not fit."""
    ours, theirs = load(name, byte_bpe_files, add_bos_token=True)
    for text in corpus[:100]:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours(text, "b").input_ids == theirs(text, "b").input_ids


def test_prophetnet(wordpiece_file, agree, corpus, tmp_path):
    ours, theirs = ProphetNetTokenizer(wordpiece_file), transformers.ProphetNetTokenizer(wordpiece_file)
    agree(ours, theirs)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    agree(ProphetNetTokenizer.from_pretrained(tmp_path / "theirs"), theirs, texts=corpus[:200])
    agree(ours, transformers.ProphetNetTokenizer.from_pretrained(tmp_path / "ours"), texts=corpus[:200])
    assert (tmp_path / "ours" / "prophetnet.tokenizer").is_file()
    assert ours.x_sep_token == theirs.init_kwargs["x_sep_token"] == "[X_SEP]"


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast"])
def test_files_both_ways(byte_bpe_files, agree, corpus, tmp_path, name):
    ours, theirs = load(name, byte_bpe_files, add_prefix_space=True)
    for each in (ours, theirs):
        assert each.add_special_tokens({"pad_token": "<pad>"}) == 1
        assert each.add_tokens(["newtoken"]) == 1
    texts = [*corpus[:150], "a newtoken b", "anewtokenb<pad>"]
    agree(ours, theirs, texts=texts)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert {each.name for each in (tmp_path / "ours").iterdir()} == {e.name for e in (tmp_path / "theirs").iterdir()}
    agree(type(ours).from_pretrained(tmp_path / "theirs"), theirs, texts=texts)
    agree(ours, type(theirs).from_pretrained(tmp_path / "ours"), texts=texts)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text(byte_bpe_files, text):
    if not _LOADED:
        _LOADED.extend(load(name, byte_bpe_files) for name in ("GPT2Tokenizer", "GPT2TokenizerFast"))
    for ours, theirs in _LOADED:
        ids = ours(text).input_ids
        assert ids == theirs(text).input_ids
        assert ours.decode(ids, clean_up_tokenization_spaces=False) == text


_LOADED = []
