"""Tokenizers of the hub: every file of a family, at a revision, in a subfolder, with a token, and without the hub."""

import pytest

from modelwright.core.errors import GatedRepoError, HubOfflineError, RepoError
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.models.gpt2.tokenization_gpt2_fast import GPT2TokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"]


def files_of(folder, prefix=""):
    return {f"{prefix}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def saved(tmp_path):
    """The files of a tokenizer that says `added` and has a chat template."""

    def call(added):
        vocabulary = tmp_path / "vocab.txt"
        vocabulary.write_text("".join(f"{word}\n" for word in WORDS))
        tokenizer = BertTokenizerFast(vocabulary, chat_template="{{ messages[0].content }}")
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(tmp_path / added)
        return tmp_path / added

    return call


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": tmp_path / "cache"}


@pytest.mark.parametrize("make", [AutoTokenizer, BertTokenizer, BertTokenizerFast])
def test_revision_and_subfolder(hub, saved, cache, make):
    repo = hub.add("org/toy", files_of(saved("main")))
    repo.commit(files_of(saved("older"), prefix="words/"), branch="v1")
    newest = make.from_pretrained("org/toy", **cache)
    assert newest("the main").input_ids == [2, 5, 7, 3]
    assert newest.name_or_path == "org/toy"
    assert newest.chat_template == "{{ messages[0].content }}"
    older = make.from_pretrained("org/toy", revision="v1", subfolder="words", **cache)
    assert older.convert_tokens_to_ids(["older", "main"]) == [7, 1]
    with pytest.raises(RepoError, match="words"):
        make.from_pretrained("org/toy", subfolder="words", **cache)


@pytest.mark.parametrize("make", [AutoTokenizer, BertTokenizer, BertTokenizerFast])
def test_token_and_local_files_only(hub, saved, cache, make):
    hub.add("org/gated", files_of(saved("main")), gated=True, readers=("hf_reader",))
    with pytest.raises(GatedRepoError):
        make.from_pretrained("org/gated", **cache)
    tokenizer = make.from_pretrained("org/gated", token="hf_reader", **cache)
    hub.requests()
    cached = make.from_pretrained("org/gated", local_files_only=True, **cache)
    assert hub.requests() == []
    assert cached.get_vocab() == tokenizer.get_vocab()
    assert cached.is_fast is tokenizer.is_fast
    with pytest.raises(HubOfflineError):
        make.from_pretrained("org/other", local_files_only=True, **cache)


def test_a_missing_vocabulary_is_named(hub, cache):
    hub.add("org/bare", {"tokenizer_config.json": '{"tokenizer_class": "BertTokenizer"}'})
    with pytest.raises(RepoError, match=r"org/bare .*BertTokenizer needs the vocabulary file vocab\.txt"):
        BertTokenizer.from_pretrained("org/bare", **cache)
    with pytest.raises(RepoError, match=r"expected vocab\.txt or tokenizer\.json"):
        BertTokenizerFast.from_pretrained("org/bare", **cache)
    with pytest.raises(RepoError, match=r"expected vocab\.json"):
        GPT2TokenizerFast.from_pretrained("org/bare", **cache)
