"""A fast WordPiece tokenizer that was just loaded encodes its first short texts as the library with all tokens does."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from modelwright import BertTokenizerFast
from modelwright.tokenization.backend_file import read_backend
from modelwright.tokenization.wordpiece_supply import FREE_CHARACTERS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "aåbé日İσς.[]# "
PIECES = [letter for letter in LETTERS if letter != " "] + ["ab", "aba", "##a", "##b", "##ab", "##ba", "i̇", "##̇", "bbb"]


def file_of(folder, *, lowercase=True, longest=100, added=(), vocab=(*SPECIAL, *PIECES)):
    backend = Tokenizer(
        models.WordPiece(
            {token: index for index, token in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=longest
        )
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.add_special_tokens(SPECIAL)
    for token in added:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    path = folder / "tokenizer.json"
    backend.save(str(path))
    return path


def same(ours, theirs):
    names = ("ids", "tokens", "offsets", "type_ids", "word_ids", "special_tokens_mask", "attention_mask")
    return all(getattr(ours, name) == getattr(theirs, name) for name in names)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    settings = [{}, {"lowercase": False}, {"longest": 3}]
    return [file_of(tmp_path_factory.mktemp("wordpiece"), **each) for each in settings]


TEXT = st.one_of(st.text(LETTERS, max_size=20), st.text(max_size=20))


@given(texts=st.lists(st.tuples(TEXT, st.none() | TEXT), min_size=1, max_size=3), which=st.integers(0, 2))
def test_a_part_of_the_vocabulary_gives_what_the_whole_gives(files, texts, which):
    _, supply = read_backend(files[which])
    whole = Tokenizer.from_file(str(files[which]))
    ours = supply.encode(texts, add_special_tokens=True)
    theirs = whole.encode_batch([first if second is None else (first, second) for first, second in texts])
    if ours is None:  # an added token stands in a text
        assert any(token in text for pair in texts for text in pair if text for token in SPECIAL)
    else:
        assert all(same(*pair) for pair in zip(ours, theirs, strict=True))


def test_first_calls_need_no_whole_vocabulary_and_later_ones_have_it(files):
    tokenizer = BertTokenizerFast(tokenizer_file=str(files[0]))
    whole = Tokenizer.from_file(str(files[0]))
    for text in ("aba Ab", "b", "bbb éa"):
        assert tokenizer(text)["input_ids"] == whole.encode(text).ids
        assert tokenizer._supply is not None
    assert len(tokenizer) == len(SPECIAL) + len(PIECES)
    assert tokenizer._supply is None
    assert tokenizer("aba Ab")["input_ids"] == whole.encode("aba Ab").ids


@pytest.mark.parametrize(
    "use",
    [
        lambda tokenizer: tokenizer.decode([5, 6, 7]),
        lambda tokenizer: tokenizer.convert_tokens_to_ids(["ab", "none such", "[MASK]"]),
        lambda tokenizer: tokenizer.convert_ids_to_tokens([5, 20]),
        lambda tokenizer: tokenizer("aba [MASK] b").input_ids,
        lambda tokenizer: tokenizer("aba " * FREE_CHARACTERS, max_length=9, truncation=True).input_ids,
        lambda tokenizer: tokenizer(["aba", "ab"], is_split_into_words=True).input_ids,
        lambda tokenizer: tokenizer.add_tokens(["abab"]) and tokenizer("abab").input_ids,
        lambda tokenizer: tokenizer.get_vocab(),
        lambda tokenizer: tokenizer.vocab_size,
        lambda tokenizer: pickle.loads(pickle.dumps(tokenizer)).get_vocab(),
        lambda tokenizer: copy.deepcopy(tokenizer)("aba").input_ids,
        lambda tokenizer: json.loads(tokenizer.backend_tokenizer.to_str()),
        lambda tokenizer: tokenizer.train_new_from_iterator(["a b"], 12, show_progress=False).get_vocab(),
    ],
)
@pytest.mark.parametrize("called_before", [False, True])
def test_whatever_needs_the_vocabulary_has_it(files, use, called_before):
    fresh = BertTokenizerFast(tokenizer_file=str(files[0]))
    if called_before:
        fresh("bbb")
    complete = BertTokenizerFast(tokenizer_object=Tokenizer.from_file(str(files[0])))
    assert complete._supply is None
    assert use(fresh) == use(complete)


def test_saving_writes_the_whole(files, tmp_path):
    tokenizer = BertTokenizerFast(tokenizer_file=str(files[0]))
    tokenizer("ab")
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads(files[0].read_text())
    assert (tmp_path / "vocab.txt").read_text().splitlines() == [*SPECIAL, *PIECES]


@pytest.mark.parametrize(
    "settings",
    [
        {"added": [AddedToken("not there", special=True, normalized=False)]},
        {"added": [AddedToken("ab", special=True, normalized=True)]},
        {"added": [AddedToken("ab", special=False, normalized=False)]},
        {"vocab": ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "a"]},
        {"vocab": [*SPECIAL, "\\uD83D"]},
    ],
    ids=["outside the vocabulary", "normalized", "no special token", "no unknown token", "looks like half a letter"],
)
def test_other_vocabularies_are_handed_over_at_once(settings, tmp_path):
    path = file_of(tmp_path, **settings)
    backend, supply = read_backend(path)
    assert supply is None
    assert backend.to_str() == Tokenizer.from_file(str(path)).to_str()


def test_threads_share_a_new_tokenizer(files):
    whole = Tokenizer.from_file(str(files[0]))
    texts = ["aba", "bbb", "é", "ab ab", "σς", "a.b"] * 10
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            tokenizer = BertTokenizerFast(tokenizer_file=str(files[0]))
            rows = list(pool.map(lambda text, tokenizer=tokenizer: tokenizer(text)["input_ids"], texts))
            assert rows == [whole.encode(text).ids for text in texts]
