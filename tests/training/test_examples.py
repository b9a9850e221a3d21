"""Labelled texts of a file, and examples through a model: every vector is that of its text alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from modelwright.core.errors import InputError
from modelwright.training.examples import Examples, TextKind, mean_embedding, split
from modelwright.training.labelled import LabelledKind, LabelledText, read_labelled

LABELS = {0: "no", 1: "yes", 2: "maybe"}
SIZES = {
    "vocab_size": 15,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "num_labels": 3,
}


@pytest.fixture
def texts(words: list[str]) -> list[str]:
    return [" ".join(words[(3 * i + j) % 10] for j in range(1 + 7 * i % 13)) for i in range(20)]


@pytest.mark.parametrize(
    "kind", [BertModel, BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering]
)
def test_a_vector_for_each_text_whatever_its_batch(tokenizer: Any, texts: list[str], kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(BertConfig(**SIZES)).eval()
    examples = Examples(TextKind(tokenizer, 10), texts)
    found = examples(model)
    for text, vector in zip(texts, found, strict=True):
        batch = tokenizer(text, truncation=True, max_length=10, return_tensors="pt")
        with torch.no_grad():
            output = model(**batch)
        if kind is BertModel:
            expected = mean_embedding(output[0], batch["attention_mask"])[0]
        elif kind is BertForQuestionAnswering:
            expected = torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1).flatten()
        else:
            expected = output.logits[0].flatten()
        torch.testing.assert_close(vector[: len(expected)], expected, atol=1e-5, rtol=1e-4)
        assert not vector[len(expected) :].any()


def test_some_of_the_examples(tokenizer: Any, texts: list[str]) -> None:
    examples = Examples(TextKind(tokenizer, 10), texts)
    assert examples.at_most(20) is examples
    assert examples.at_most(3).items == [texts[0], texts[6], texts[13]]
    with pytest.raises(InputError, match="expected a model that returns states or logits, got x"):
        examples(lambda **_: {"x": 1})


def test_a_split_keeps_groups_together() -> None:
    class Kind:
        def group(self, item: str) -> str:
            return item[0]

    seen, out = split(Kind(), ["a1", "b1", "a2", "c1", "d1", "e1", "b2", "e2"], 4)  # type: ignore[arg-type]
    assert out == ["a1", "a2", "e1", "e2"]
    assert seen == ["b1", "c1", "d1", "b2"]


def read(path: Path, *lines: Any) -> list[LabelledText]:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return read_labelled("--calib", path, LABELS)


def test_labels_by_name_and_by_number(tmp_path: Path) -> None:
    found = read(
        tmp_path / "a", {"text": "red", "label": "yes"}, "", {"text": "box", "label": 2, "text_pair": "ball", "id": 3}
    )
    assert found == [LabelledText("red", None, 1), LabelledText("box", "ball", 2)]
    assert read(tmp_path / "a", {"text": "red"}, {"text": "box", "label": None})[1].label is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("red box", r"line 2: expected \{\"text\": text, \"label\": name or number\}.*got 'red box'"),
        ("[1]", r"line 2: expected \{\"text\""),
        ({"text": " ", "label": 1}, 'line 2: .*got "text": \' \', "text_pair": None'),
        ({"text": "red", "text_pair": 3, "label": 1}, 'got "text": \'red\', "text_pair": 3'),
        (
            {"text": "red", "label": "of course"},
            r"line 2: expected one of the model's 3 labels, 0 \(no\), 1 \(yes\), 2 \(maybe\), got 'of course'",
        ),
        ({"text": "red", "label": 3}, "got 3"),
        ({"text": "red", "label": True}, "got True"),
        ({"text": "red"}, "1 of 2 texts have no label, the first is text 2; expected a label for each"),
    ],
)
def test_lines_that_do_not_fit_are_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"--calib: .*{message}"):
        read(tmp_path / "a", {"text": "red", "label": 0}, line)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file of JSON lines, .* there is none at"):
        read_labelled("--calib", tmp_path / "none", LABELS)
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="expected text in UTF-8"):
        read_labelled("--calib", tmp_path / "latin", LABELS)


def test_accuracy_of_texts_and_pairs(tokenizer: Any) -> None:
    kind = LabelledKind(tokenizer, 10, labelled=True)
    items = [LabelledText("red box", None, 1), LabelledText("red", "ball box", 0), LabelledText("blue", None, 2)]
    encoded = kind.encode(items)
    assert encoded.rows[1]["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert encoded.targets == [{"labels": 1}, {"labels": 0}, {"labels": 2}]
    assert kind.scores(items, encoded, torch.eye(3)[[1, 2, 2]]) == {"accuracy": pytest.approx(2 / 3)}
    assert LabelledKind(tokenizer, 10, labelled=False).scores(items, encoded, torch.eye(3)) == {}
