import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.models.bert.tokenization_bert_fast import BertTokenizerFast
from modelwright.training.collators import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorForWholeWordMask,
    DataCollatorWithPadding,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "."]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return BertTokenizerFast(tmp_path / "vocab.txt")


def test_padding(tokenizer):
    rows = [{**tokenizer("the"), "label": 1}, {**tokenizer("the cat"), "label": 0}]
    batch = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)(rows)
    assert batch["input_ids"].shape == (2, 8)
    assert batch["labels"].tolist() == [1, 0]
    assert batch["attention_mask"].sum(1).tolist() == [3, 4]


def test_token_classification(tokenizer):
    rows = [{**tokenizer("the"), "labels": [1, 2, 3]}, {**tokenizer("the cat"), "labels": [4, 5, 6, 7]}]
    assert DataCollatorForTokenClassification(tokenizer)(rows)["labels"].tolist() == [[1, 2, 3, -100], [4, 5, 6, 7]]
    tokenizer.padding_side = "left"
    assert DataCollatorForTokenClassification(tokenizer)(rows)["labels"][0].tolist() == [-100, 1, 2, 3]
    rows[1]["labels"] = [1]
    with pytest.raises(InputError, match="example 1: expected a label for each of the 4 tokens, got 1"):
        DataCollatorForTokenClassification(tokenizer)(rows)


def test_seq2seq(tokenizer):
    class Model:
        def prepare_decoder_input_ids_from_labels(self, labels):
            return labels.roll(1, 1)

    rows = [{**tokenizer("the"), "labels": [1]}, {**tokenizer("the cat"), "labels": [4, 5]}]
    batch = DataCollatorForSeq2Seq(tokenizer, model=Model(), pad_to_multiple_of=3)(rows)
    assert batch["labels"].tolist() == [[1, -100, -100], [4, 5, -100]]
    assert batch["decoder_input_ids"].tolist() == [[-100, 1, -100], [-100, 4, 5]]


def test_causal(tokenizer):
    batch = DataCollatorForLanguageModeling(tokenizer, mlm=False)([tokenizer("the"), tokenizer("the cat")])
    assert batch["labels"].tolist() == [[2, 5, 3, -100], [2, 5, 6, 3]]


def test_masked(tokenizer):
    rows = [tokenizer("the cat sat . " * 50) for _ in range(8)]
    first, again = (DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=3)(rows) for _ in range(2))
    assert torch.equal(first["input_ids"], again["input_ids"])
    chosen = first["labels"] != -100
    original = torch.tensor([row["input_ids"] for row in rows])
    assert 0.4 < chosen.float().mean() < 0.6
    assert torch.equal(first["labels"][chosen], original[chosen])
    assert torch.equal(first["input_ids"][~chosen], original[~chosen])
    assert not chosen[:, 0].any()
    assert 0.75 < (first["input_ids"][chosen] == 4).float().mean() < 0.9


def test_whole_words(tokenizer):
    rows = [tokenizer("cats sats the " * 40) for _ in range(4)]
    collate = DataCollatorForWholeWordMask(tokenizer, mlm_probability=0.3, mask_replace_prob=1.0, random_replace_prob=0)
    batch = collate(rows)
    chosen = batch["labels"] != -100
    inside = torch.tensor([row["input_ids"] for row in rows]) == 8
    assert chosen.any()
    assert torch.equal(chosen[inside], chosen.roll(1, 1)[inside])


def test_bad_input(tokenizer):
    with pytest.raises(InputError, match="expected mlm_probability between 0 and 1, got 2"):
        DataCollatorForLanguageModeling(tokenizer, mlm_probability=2)
    tokenizer.mask_token = None
    with pytest.raises(InputError, match="has no mask token: add one with tokenizer.add_special_tokens"):
        DataCollatorForLanguageModeling(tokenizer)
