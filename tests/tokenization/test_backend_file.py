"""A WordPiece tokenizer.json is built from its parts: never another tokenizer than the library's own parse gives."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from modelwright.core.errors import ConfigError
from modelwright.tokenization import backend_file
from modelwright.tokenization.backend_file import backend_of_json, read_backend

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", 'a"b', "\\", "été", "日", "}", " ", "ca t"]
SENTENCES = ["The cats [MASK] <new> été", "Cat [X] [x]cat", 'a"b \\ }', "日 ##s ca t", ""]


def wordpiece(**options):
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", **options))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def added():
    backend = wordpiece(max_input_chars_per_word=3, continuing_subword_prefix="@@")
    backend.add_special_tokens(["[PAD]", AddedToken("[MASK]", lstrip=True, special=True)])
    backend.add_tokens([AddedToken("<new>", normalized=True), AddedToken("Cat", single_word=True, rstrip=True)])
    backend.add_special_tokens([AddedToken("[X]", normalized=False)])
    backend.enable_padding(length=9)
    backend.enable_truncation(5)
    return backend


def gaps():
    backend = json.loads(wordpiece().to_str())
    backend["model"]["vocab"] = {"[UNK]": 7, "cat": 3, "été": 900}
    return Tokenizer.from_str(json.dumps(backend))


@pytest.mark.parametrize("make", [wordpiece, added, gaps])
@pytest.mark.parametrize("pretty", [False, True])
def test_the_parts_make_what_the_library_makes(make, pretty, monkeypatch):
    text = make().to_str(pretty=pretty)
    expected = Tokenizer.from_str(text)
    monkeypatch.setattr(backend_file, "Tokenizer", _NoWholeParse)
    built = backend_of_json(text)
    assert json.loads(built.to_str()) == json.loads(expected.to_str())
    for pair in (None, "the cats"):
        for one in SENTENCES:
            ours, theirs = built.encode(one, pair), expected.encode(one, pair)
            assert (ours.ids, ours.type_ids, ours.offsets) == (theirs.ids, theirs.type_ids, theirs.offsets)
    assert built.get_vocab() == expected.get_vocab()


class _NoWholeParse:
    @staticmethod
    def from_str(text):
        assert json.loads(text)["model"]["vocab"] == {}
        return Tokenizer.from_str(text)


def changed(**model):
    content = json.loads(added().to_str())
    content["model"] = {name: value for name, value in (content["model"] | model).items() if value is not ...}
    return content


@pytest.mark.parametrize(
    "content",
    [
        changed(dropout=0.1),
        changed(type=...),
        changed(type="WordLevel", continuing_subword_prefix=..., max_input_chars_per_word=...),
        {name: value for name, value in changed().items() if name != "added_tokens"},
        json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "WordPiece": 3}, [("a", "b")])).to_str()),
    ],
    ids=["unknown field", "no type", "another model", "no added tokens", "a token of that name"],
)
def test_other_content_is_left_to_the_library(content):
    text = json.dumps(content)
    assert backend_of_json(text).to_str() == Tokenizer.from_str(text).to_str()


@pytest.mark.parametrize(
    "content",
    [
        changed(vocab={"[UNK]": -1}),
        changed(vocab={"[UNK]": 2**40}),
        changed(vocab={"[UNK]": 1.5}),
        changed(vocab=["[UNK]"]),
        changed(vocab={"\ud800": 1}),
        changed(unk_token=3),
        changed(max_input_chars_per_word=...),
        changed() | {"normalizer": {"type": "None such"}},
        changed() | {"added_tokens": [{"id": 3}]},
    ],
    ids=[
        "negative",
        "too large",
        "a fraction",
        "a list",
        "half a pair",
        "no text",
        "no length",
        "a normalizer",
        "an added token",
    ],
)
def test_what_the_library_refuses_is_refused_with_its_words(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Exception) as theirs:
        Tokenizer.from_str(path.read_text())
    with pytest.raises(ConfigError) as ours:
        read_backend(path)
    assert str(ours.value).startswith(f"{path}: expected a tokenizer.json")
    assert str(theirs.value) in str(ours.value)


def test_a_panic_of_the_library_names_the_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed(type="BPE", vocab={"a": 0, "b": 1, "ab": 2}, merges=[["a", "b"]])))
    with pytest.raises(ConfigError, match=r"tokenizer\.json: expected a tokenizer\.json"):
        read_backend(path)
