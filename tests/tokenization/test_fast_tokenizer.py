import json
import pickle
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from modelwright.core.errors import ConfigError, InputError, RepoError
from modelwright.models.bert.tokenization_bert import BertTokenizer
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.models.gpt2.tokenization_gpt2 import GPT2Tokenizer
from modelwright.models.gpt2.tokenization_gpt2_fast import GPT2TokenizerFast
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "."]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in WORDS))
    return path


@pytest.fixture
def tokenizer(vocab_file):
    return BertTokenizerFast(vocab_file)


def test_alignment(tokenizer):
    encoded = tokenizer("The cats sat.", return_offsets_mapping=True)
    assert encoded.tokens() == ["[CLS]", "the", "cat", "##s", "sat", ".", "[SEP]"]
    assert encoded.offset_mapping[2:4] == [(4, 7), (7, 8)]
    assert encoded.word_ids() == [None, 0, 1, 1, 2, 3, None]
    assert encoded.char_to_token(7) == 3
    assert encoded.word_to_tokens(1) == (2, 4)
    assert encoded.token_to_chars(3).start == 7
    assert encoded[0].ids == encoded.input_ids
    assert pickle.loads(pickle.dumps(encoded)).word_ids() == encoded.word_ids()
    with pytest.raises(InputError, match="expected a row below 1, got 3"):
        encoded.word_ids(3)


def test_windows(tokenizer):
    encoded = tokenizer(
        ["the cat sat .", "cat"], max_length=4, stride=1, truncation=True, return_overflowing_tokens=True, padding=True
    )
    assert encoded.overflow_to_sample_mapping == [0, 0, 0, 1]
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in encoded.input_ids] == [
        "the cat", "cat sat", "sat.", "cat",
    ]  # fmt: skip


def test_calls_do_not_change_one_another(tokenizer):
    plain = tokenizer("the cat").input_ids
    assert len(tokenizer("the cat", padding="max_length", max_length=9).input_ids) == 9
    assert len(tokenizer("the cat", truncation=True, max_length=3).input_ids) == 3
    assert tokenizer("the cat").input_ids == plain
    assert pickle.loads(pickle.dumps(tokenizer))("the cat").input_ids == plain


def test_tokenizer_json_alone(tokenizer, tmp_path):
    folder = tmp_path / "alone"
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name != "tokenizer.json":
            path.unlink()
    for cls in (BertTokenizerFast, PreTrainedTokenizerFast):
        assert cls.from_pretrained(folder)("The cats").input_ids == tokenizer("The cats").input_ids
    stored = json.loads((folder / "tokenizer.json").read_text())
    assert stored["padding"] is None and stored["truncation"] is None


def test_bad_input(tokenizer, tmp_path):
    with pytest.raises(InputError, match="expected an id from 0 to 9, got 10"):
        tokenizer.decode([5, 10])
    with pytest.raises(InputError, match="expected an id from 0 to 9, got -100"):
        tokenizer.decode([5, -100])
    with pytest.raises(InputError, match="item 1 of the batch: expected a str or a pair, got int"):
        tokenizer(["the", 3])
    with pytest.raises(InputError, match="item 1 of the batch holds half of a surrogate pair"):
        tokenizer(["the", "\ud800"])
    with pytest.raises(InputError, match="leaves no room for the 2 special tokens"):
        tokenizer("the", truncation=True, max_length=1)
    with pytest.raises(InputError, match=r"max_length=4, stride=3"):
        tokenizer("the", truncation=True, max_length=4, stride=3)
    with pytest.raises(InputError, match="truncation='only_second' cannot reach 3"):
        tokenizer("the cat sat", truncation="only_second", max_length=3)
    with pytest.raises(InputError, match="`stride` must be strictly less than .*: lower stride or raise max_length"):
        tokenizer("the cat", "the cat sat the", truncation="only_second", max_length=7, stride=2)
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="no pad token"):
        tokenizer(["the", "the cat"], padding=True)
    with pytest.raises(RepoError, match=r"expected vocab.txt or tokenizer.json, got neither"):
        BertTokenizerFast()
    with pytest.raises(RepoError, match="expected a vocabulary file, but there is none at"):
        BertTokenizer(tmp_path / "none.txt")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="expected a tokenizer.json of the tokenizers library"):
        PreTrainedTokenizerFast(tokenizer_file=tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="expected tokenizer_file or tokenizer_object, got neither"):
        PreTrainedTokenizerFast()


@pytest.mark.parametrize("cls", [GPT2Tokenizer, GPT2TokenizerFast])
def test_vocabulary_and_merges_that_do_not_match(cls, tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "<|endoftext|>": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(ConfigError, match=r"line 2: the merge 'a b' needs the token 'ab', which the vocabulary of 3"):
        cls(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_train_new_from_iterator(tokenizer):
    texts = ["a dog runs", "a dog sleeps", "two dogs run"] * 5
    new = tokenizer.train_new_from_iterator(
        texts, 60, new_special_tokens=["<x>"], special_tokens_map={"[MASK]": "<mask>"}, show_progress=False
    )
    assert isinstance(new, BertTokenizerFast)
    assert len(new) <= 60
    assert new.decode(new("a dog").input_ids) == "[CLS] a dog [SEP]"
    assert (new.mask_token, new.additional_special_tokens) == ("<mask>", ["<x>"])
    assert new.unk_token_id not in new("dogs").input_ids
    with pytest.raises(InputError, match="expected vocab_size to be a whole number"):
        tokenizer.train_new_from_iterator(texts, 0)


def test_a_tokenizer_object_is_copied():
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    assert (len(tokenizer), backend.get_vocab_size()) == (3, 2)
    assert tokenizer("a b").input_ids == [0, 1]


TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ sep_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_chat_template(tokenizer, tmp_path):
    chat = [{"role": "user", "content": "the cat"}]
    with pytest.raises(InputError, match="has no chat template: set tokenizer.chat_template"):
        tokenizer.apply_chat_template(chat)
    tokenizer.chat_template = TEMPLATE
    text = "user: the cat[SEP]\nassistant:"
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == text
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True) == tokenizer.encode(
        text, add_special_tokens=False
    )
    assert tokenizer.apply_chat_template([chat, chat], return_dict=True, return_tensors="np").input_ids.shape[0] == 2
    tokenizer.save_pretrained(tmp_path / "chat")
    assert BertTokenizerFast.from_pretrained(tmp_path / "chat").chat_template == TEMPLATE
    for bad, message in (
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% for %}", "cannot be used"),
    ):
        with pytest.raises(InputError, match=message):
            tokenizer.apply_chat_template(chat, chat_template=bad)


def test_one_of_the_two_kinds_of_files(tokenizer, tmp_path):
    tokenizer.add_tokens("new")
    for legacy, files in ((True, {"vocab.txt", "added_tokens.json"}), (False, {"tokenizer.json"})):
        folder = tmp_path / str(legacy)
        written = {Path(path).name for path in tokenizer.save_pretrained(folder, legacy_format=legacy)}
        assert written == {"tokenizer_config.json", "special_tokens_map.json", *files}
        again = BertTokenizerFast.from_pretrained(folder)
        assert again("the new cats [MASK]").input_ids == tokenizer("the new cats [MASK]").input_ids
    with pytest.raises(InputError, match="legacy_format is a choice of fast tokenizers only"):
        BertTokenizer(tmp_path / "vocab.txt").save_pretrained(tmp_path / "slow", legacy_format=True)


def test_from_slow_reads_the_vocabulary_file(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "both")
    (tmp_path / "both" / "vocab.txt").write_text("".join(f"{word}\n" for word in [*WORDS, "dog"]))
    assert BertTokenizerFast.from_pretrained(tmp_path / "both").vocab_size == len(WORDS)
    assert BertTokenizerFast.from_pretrained(tmp_path / "both", from_slow=True).vocab_size == len(WORDS) + 1


@pytest.mark.parametrize("cls", [BertTokenizer, BertTokenizerFast])
@pytest.mark.parametrize("stride", [-1, "2", True])
def test_a_stride_is_a_number_of_tokens(cls, stride, vocab_file):
    with pytest.raises(InputError, match="expected stride to be a whole number of tokens, 0 or more; got"):
        cls(vocab_file)("the cat", stride=stride, truncation=True, max_length=4)
