"""Awkward strings, small vocabularies trained on them, and what it means that two tokenizers agree."""

# ruff: noqa: E501 (one list of awkward strings)

import io
import random
import warnings
from types import SimpleNamespace

import pytest

PIECES = [
    "", " ", "  ", "\n", "\t", "\r\n", "a", "The cat sat on the mat.", "the", "Hello, World!", "don't", "we've", "I'm", "naïve café", "e\u0301",
    "A\u030a", "ÅÄÖ", "İstanbul", "ſtraße", "ǅ", "Ǆ", "ﬁ", "①②", "½", "👍", "👩‍👩‍👧", "🏳️‍🌈", "🇩🇪", "👍🏽", "中文字符", "日本語のテキスト", "한국어",
    "\u1112\u1161\u11ab", "العربية", "مَرْحَبًا", "עִבְרִית", "हिन्दी", "ไทย", "Ελληνικά ΣΑΣ", "Привет", "\x00", "\x01", "\x7f", "\x85", "\u200b",
    "\u200d", "\u200e", "\u2028", "\u2029", "\ufeff", "\ufffd", "\u00ad", "\u00a0", "\u3000", "\u2009", "\ue000", "x" * 101, "ab" * 150, "!?!?",
    "...", "-_-", "''\"\"``", "“quotes”", "$100.50", "1,234,567", "12:34", "#tag @user", "http://a.b/c?d=e&f=g", "C++ && C#", "<html>", "a<b>c",
    "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "[mask]", "x[MASK]y", "[MASK] [MASK]", "</s>", "<s>", "<pad>", "<unk>", "a</s>b", "<extra_id_0>",
    "<extra_id_1> x", "a <extra_id_5>b", "<|endoftext|>", "x<|endoftext|> y", "▁", "▁▁a", "a▁b", "##ing", "Ġ", "[X_SEP]", "\U000e0001", "𝔘𝔫𝔦", "𠀀",
    "￼", "ａｂｃ", "   lead", "trail   ", "in  side", "newline\nin", "\ttab", "a.b.c", "U.S.A.", "CamelCase", "ALL CAPS", "🙂text🙂", "test 123 abc456",
]  # fmt: skip


@pytest.fixture(scope="session")
def corpus():
    """Awkward pieces and two thousand mixtures of them, always the same."""
    chosen = random.Random(4)
    mixed = [chosen.choice(["", " ", "  "]).join(chosen.choices(PIECES, k=chosen.randint(2, 6))) for _ in range(2000)]
    return PIECES + mixed


@pytest.fixture(scope="session")
def training_text():
    chosen = random.Random(5)
    words = [piece for piece in PIECES if piece.strip() and "\x00" not in piece and len(piece) < 60]
    lines = [" ".join(chosen.choices(words, k=8)) for _ in range(300)]
    return [line.replace("\n", " ") for line in lines]


@pytest.fixture(scope="session")
def wordpiece_file(training_text, tmp_path_factory):
    from tokenizers import BertWordPieceTokenizer

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(training_text, vocab_size=400, show_progress=False, min_frequency=1)
    folder = tmp_path_factory.mktemp("wordpiece")
    trained.save_model(str(folder))
    return str(folder / "vocab.txt")


@pytest.fixture(scope="session")
def train_sentencepiece(training_text, tmp_path_factory):
    """A function that trains a SentencePiece model and returns its file."""
    import sentencepiece

    def train(name="spiece.model", **options):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(training_text), model_writer=model, minloglevel=2, num_threads=1,
            hard_vocab_limit=False, **{"vocab_size": 400, **options},
        )  # fmt: skip
        path = tmp_path_factory.mktemp("sentencepiece") / name
        path.write_bytes(model.getvalue())
        return str(path)

    return train


@pytest.fixture(scope="session")
def byte_bpe_files(training_text, tmp_path_factory):
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        training_text, vocab_size=500, show_progress=False, special_tokens=["<|endoftext|>"], min_frequency=1
    )
    folder = tmp_path_factory.mktemp("bpe")
    trained.save_model(str(folder))
    return SimpleNamespace(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"))


def texts_agree(ours, theirs, texts):
    """Ids, masks, types, offsets, words, tokens and decoded text of each text, with and without special tokens."""
    fast = theirs.is_fast
    options = {"return_special_tokens_mask": True, "return_token_type_ids": True, "verbose": False}
    if fast:
        options["return_offsets_mapping"] = True
    for add in (True, False):
        options["return_token_type_ids"] = fast or add
        mine, other = (each(texts, add_special_tokens=add, **options) for each in (ours, theirs))
        assert set(mine) == set(other)
        for index, text in enumerate(texts):
            for name in other:
                assert mine[name][index] == other[name][index], (text, name)
            if fast:
                assert mine.word_ids(index) == other.word_ids(index), text
                assert mine.tokens(index) == other.tokens(index), text
    for text, ids in zip(texts, theirs(texts, verbose=False)["input_ids"], strict=True):
        if not fast:
            assert ours.tokenize(text) == theirs.tokenize(text), text
        for options in ({}, {"skip_special_tokens": True}, {"clean_up_tokenization_spaces": True}):
            assert ours.decode(ids, **options) == theirs.decode(ids, **options), (text, ids, options)


def lengths_agree(ours, theirs, texts):
    """Pairs, padding, truncation and windows."""
    pairs = list(zip(texts, reversed(texts), strict=True))
    shared = {"return_special_tokens_mask": True, "return_token_type_ids": True, "verbose": False}
    for side in ("left", "right"):
        ours.truncation_side = theirs.truncation_side = side
        for truncation, batch in (("longest_first", pairs), ("longest_first", texts), ("only_first", texts)):
            options = {"truncation": truncation, "max_length": 9, "padding_side": side, **shared}
            if theirs.pad_token is not None:
                options |= {"padding": "max_length", "pad_to_multiple_of": 3}
            assert dict(ours(batch, **options)) == dict(theirs(batch, **options)), (side, truncation)
    if theirs.is_fast:
        options = {
            "max_length": 24,
            "truncation": "only_second",
            "stride": 2,
            "return_overflowing_tokens": True,
            "return_offsets_mapping": True,
        }
        shorts = [(first[:3], second) for first, second in pairs]
        mine, other = ours(shorts, **options, **shared), theirs(shorts, **options, **shared)
        assert dict(mine) == dict(other)
        assert [mine.word_ids(i) for i in range(len(mine.input_ids))] == [
            other.word_ids(i) for i in range(len(other.input_ids))
        ]
    else:
        for text in texts:
            options = {"max_length": 6, "truncation": True, "stride": 2, "return_overflowing_tokens": True}
            assert dict(ours(text, **options)) == dict(theirs(text, **options)), text
    words = [text.split() or ["x"] for text in texts]
    assert dict(ours(words, is_split_into_words=True, verbose=False)) == dict(
        theirs(words, is_split_into_words=True, verbose=False)
    )


@pytest.fixture(scope="session")
def agree(corpus):
    """A function that compares two tokenizers over the corpus."""
    from transformers.utils import logging as their_logging

    def compare(ours, theirs, *, lengths=True, texts=corpus):
        level = their_logging.get_verbosity()
        their_logging.set_verbosity(50)
        try:
            with warnings.catch_warnings(action="ignore"):
                texts_agree(ours, theirs, texts)
                if lengths:
                    lengths_agree(ours, theirs, texts[:300])
            assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
            assert ours.get_vocab() == theirs.get_vocab()
            assert ours.all_special_tokens == theirs.all_special_tokens
            assert ours.all_special_ids == theirs.all_special_ids
            for pair in (False, True):
                assert ours.num_special_tokens_to_add(pair) == theirs.num_special_tokens_to_add(pair)
        finally:
            their_logging.set_verbosity(level)
            ours.truncation_side = theirs.truncation_side = "right"

    return compare
