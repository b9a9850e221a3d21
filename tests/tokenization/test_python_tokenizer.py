"""A tokenizer written for 4.x's hooks: words of a vocabulary file, special tokens around them."""

import json
from pathlib import Path

import pytest

from modelwright.core.errors import InputError, RepoError, UnknownArgumentError
from modelwright.tokenization.python_tokenizer import PreTrainedTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."]


class WordTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "vocab.txt"}

    def __init__(self, vocab_file, do_lower_case=True, unk_token="[UNK]", pad_token="[PAD]", **kwargs):
        self.words = Path(vocab_file).read_text().split()
        self.ids = {word: index for index, word in enumerate(self.words)}
        self.do_lower_case = do_lower_case
        super().__init__(do_lower_case=do_lower_case, unk_token=unk_token, pad_token=pad_token, **kwargs)

    @property
    def vocab_size(self):
        return len(self.words)

    def get_vocab(self):
        return dict(self.ids)

    def _tokenize(self, text):
        return (text.lower() if self.do_lower_case else text).split()

    def _convert_token_to_id(self, token):
        return self.ids.get(token, self.ids.get(self.unk_token))

    def _convert_id_to_token(self, index):
        return self.words[index]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        row = [self.cls_token_id, *token_ids_0, self.sep_token_id]
        return row if token_ids_1 is None else [*row, *token_ids_1, self.sep_token_id]

    def save_vocabulary(self, save_directory, filename_prefix=None):
        path = Path(save_directory) / ((f"{filename_prefix}-" if filename_prefix else "") + "vocab.txt")
        path.write_text("\n".join(self.words))
        return (str(path),)


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return WordTokenizer(tmp_path / "vocab.txt", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def test_special_tokens_surround_and_split(tokenizer):
    assert tokenizer.tokenize("The[MASK] cat") == ["the", "[MASK]", "cat"]
    encoded = tokenizer("The cat", "sat dog", return_special_tokens_mask=True)
    assert encoded.tokens() == ["[CLS]", "the", "cat", "[SEP]", "sat", "[UNK]", "[SEP]"]
    assert encoded.token_type_ids == [0, 0, 0, 0, 1, 1, 1]
    # As in 4.x, an unknown word is a special token too.
    assert encoded.special_tokens_mask == [1, 0, 0, 1, 0, 1, 1]
    assert tokenizer("the", add_special_tokens=False).token_type_ids == [0]
    assert tokenizer.num_special_tokens_to_add() == 2
    assert tokenizer.num_special_tokens_to_add(pair=True) == 3


def test_special_tokens_count_in_truncation_and_padding(tokenizer):
    encoded = tokenizer(["the cat sat .", "the"], truncation=True, max_length=4, padding=True)
    assert encoded.tokens(0) == ["[CLS]", "the", "cat", "[SEP]"]
    assert encoded.tokens(1) == ["[CLS]", "the", "[SEP]", "[PAD]"]
    assert encoded.token_type_ids == [[0] * 4] * 2


def test_decode(tokenizer):
    ids = tokenizer("the cat sat .").input_ids
    assert tokenizer.decode(ids) == "[CLS] the cat sat . [SEP]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the cat sat ."
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == "the cat sat."
    tokenizer.clean_up_tokenization_spaces = True
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the cat sat."
    assert tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True) == ["the", "cat", "sat", "."]
    with pytest.raises(UnknownArgumentError, match="WordTokenizer.decode got an unknown keyword 'errors'"):
        tokenizer.decode(ids, errors="ignore")


def test_special_token_attributes(tokenizer):
    assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", 4)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == (None, None)
    tokenizer.bos_token_id = 2
    assert tokenizer.bos_token == "[CLS]"
    tokenizer.additional_special_tokens = ["."]
    assert tokenizer.additional_special_tokens_ids == [8]
    assert tokenizer.special_tokens_map["additional_special_tokens"] == ["."]
    assert tokenizer.all_special_tokens == ["[CLS]", "[UNK]", "[SEP]", "[PAD]", "[MASK]", "."]
    assert tokenizer.get_special_tokens_mask([2, 5, 8], already_has_special_tokens=True) == [1, 0, 1]
    with pytest.raises(InputError, match="pad_token: expected a string or an AddedToken, got 3"):
        tokenizer.pad_token = 3
    with pytest.raises(InputError, match="expected an id from 0 to 8, got 9"):
        tokenizer.eos_token_id = 9


def test_a_word_outside_without_an_unknown_token_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_text("the")
    tokenizer = WordTokenizer(tmp_path / "vocab.txt", unk_token=None, pad_token=None)
    with pytest.raises(InputError, match="the token 'dog' is not in the vocabulary, and there is no unk_token"):
        tokenizer.encode("the dog", add_special_tokens=False)


def test_files(tokenizer, tmp_path):
    tokenizer.do_lower_case = False
    paths = tokenizer.save_pretrained(tmp_path / "saved")
    assert [Path(path).name for path in paths] == ["tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    stored = json.loads(Path(paths[0]).read_text())
    assert "vocab_file" not in stored
    assert stored["do_lower_case"] is True  # what it was made with
    again = WordTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("The cat") == tokenizer.encode("the cat")
    assert again.special_tokens_map == tokenizer.special_tokens_map
    (tmp_path / "saved" / "vocab.txt").unlink()
    with pytest.raises(RepoError, match="WordTokenizer needs the vocabulary file vocab.txt, but it is not there"):
        WordTokenizer.from_pretrained(tmp_path / "saved")


def test_a_tokenizer_is_true_and_sized(tokenizer):
    assert bool(tokenizer)
    assert len(tokenizer) == 9
    assert "vocab_size=9" in repr(tokenizer)
    assert tokenizer.get_vocab()["cat"] == 6
