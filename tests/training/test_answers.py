"""Windows of long contexts and the best spans over them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from modelwright import BertTokenizer, BertTokenizerFast
from modelwright.core.errors import InputError
from modelwright.training.answers import QuestionKind, Window, best_answers
from modelwright.training.squad import Answer, Question

WORDS = ["red", "blue", "green", "round", "square", "small", "ball", "box", "sees", "takes", "##s", "?", "where"]
CONTEXT = "red balls sees blue box takes green round ball sees square small box"


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return str(tmp_path / "vocab.txt")


@pytest.fixture
def kind(vocabulary: str) -> QuestionKind:
    return QuestionKind(BertTokenizerFast(vocab_file=vocabulary), 12, stride=2, labelled=True)


def question(*answers: str, context: str = CONTEXT, text: str = "where ball ?", name: str = "a") -> Question:
    return Question(name, text, context, tuple(Answer(each, context.index(each)) for each in answers))


def test_windows_cover_the_context_and_overlap(kind: QuestionKind) -> None:
    items = [question("blue box"), question(context="red box")]
    encoded = kind.encode(items)
    assert [window.question for window in encoded.context] == [0, 0, 0, 1]
    # Three special tokens and three of the question leave six of the context's 14 tokens, two of them shared.
    assert [len(row["input_ids"]) for row in encoded.rows] == [12, 12, 12, 8]
    texts = []
    for window, row in zip(encoded.context[:3], encoded.rows, strict=False):
        texts.append([CONTEXT[first:last] for first, last in window.spans if first >= 0])
        assert len(window.spans) == len(row["input_ids"])
        assert (window.spans[:5] == -1).all()
    assert texts[0] == ["red", "ball", "s", "sees", "blue", "box"]
    assert texts[0][-2:] == texts[1][:2]
    assert texts[1][-2:] == texts[2][:2]
    assert texts[2][-1] == "box"


def test_answers_become_places_where_a_window_holds_all_of_them(kind: QuestionKind) -> None:
    encoded = kind.encode([question("blue box"), question("box takes"), question("balls"), question()])
    targets = [(each["start_positions"], each["end_positions"]) for each in encoded.targets]
    of_question = [
        [pair for pair, window in zip(targets, encoded.context, strict=True) if window.question == i] for i in range(4)
    ]
    assert of_question[0] == [(9, 10), (5, 6), (0, 0)]
    assert of_question[1] == [(0, 0), (6, 7), (0, 0)]
    # Pieces of a word count with it.
    assert of_question[2] == [(6, 7), (0, 0), (0, 0)]
    assert of_question[3] == [(0, 0)] * 3
    assert kind.encode([Question("a", "where ?", CONTEXT, None)]).targets == [{}] * 3


def test_long_questions_are_cut(vocabulary: str) -> None:
    kind = QuestionKind(BertTokenizerFast(vocab_file=vocabulary), 12, stride=2, labelled=True)
    encoded = kind.encode([question("red", text="where " * 50)])
    assert [int((window.spans[:, 0] < 0).sum()) for window in encoded.context] == [3 + 6] * len(encoded.context)
    assert all(len(row["input_ids"]) <= 12 for row in encoded.rows)


def test_what_cannot_work(vocabulary: str) -> None:
    with pytest.raises(InputError, match=r"in 0 to 2 of their 12 tokens \(--max-length\), got 3"):
        QuestionKind(BertTokenizerFast(vocab_file=vocabulary), 12, stride=3, labelled=True)
    with pytest.raises(InputError, match="expected a fast tokenizer, which knows the characters .* got BertTokenizer$"):
        QuestionKind(BertTokenizer(vocab_file=vocabulary), 12, stride=2, labelled=True)


def logits_for(kind: QuestionKind, items: list[Question], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(kind.encode(items).rows), kind.max_length, 2, generator=generator)


def test_the_best_span_of_all_windows_is_the_best_of_all_pairs(kind: QuestionKind) -> None:
    items = [question("blue box"), question(name="b", context="red box sees small ball")]
    encoded, logits = kind.encode(items), logits_for(kind, items)
    found = best_answers(items, encoded.context, logits.numpy(), may_have_none=False, longest=3)
    for number, item in enumerate(items):
        scores: dict[tuple[int, int], float] = {}
        for window, values in zip(encoded.context, logits, strict=True):
            if window.question == number:
                places = [i for i, span in enumerate(window.spans) if span[0] >= 0]
                for i, j in itertools.product(places, places):
                    if i <= j < i + 3:
                        key = (window.spans[i][0], window.spans[j][1])
                        score = float(values[i, 0] + values[j, 1])
                        scores[key] = max(score, scores.get(key, -np.inf))
        best = sorted(scores, key=lambda key: -scores[key])[:20]
        assert [each.text for each in found[number]] == [item.context[first:last] for first, last in best]
        assert [each.score for each in found[number]] == pytest.approx([scores[key] for key in best])
        assert sum(each.probability for each in found[number]) == pytest.approx(1)
        ratio = found[number][1].probability / found[number][0].probability
        assert ratio == pytest.approx(np.exp(scores[best[1]] - scores[best[0]]))


def test_no_answer_has_the_lowest_score_of_the_windows() -> None:
    windows = [Window(0, np.array([[-1, -1], span], dtype=np.int32)) for span in ([0, 3], [4, 7])]
    item = question(context="red box")
    logits = np.zeros((2, 2, 2), dtype=np.float32)
    logits[:, 0] = [[4, 4], [1, 1]]
    logits[:, 1] = [[0, 0], [1.5, 1]]
    (found,) = best_answers([item], windows, logits, may_have_none=True)
    assert [(each.text, each.score) for each in found] == [("box", 2.5), ("", 2.0), ("red", 0.0)]
    logits[1, 0] = 3
    assert best_answers([item], windows, logits, may_have_none=True)[0][0].text == ""
    assert best_answers([item], windows, logits, may_have_none=False)[0][0].text == "box"


def test_scores_of_perfect_logits(kind: QuestionKind) -> None:
    items = [question("blue box"), question("small box", name="b"), question("round ball", name="c")]
    encoded = kind.encode(items)
    logits = torch.zeros(len(encoded.rows), kind.max_length, 2)
    for row, target in enumerate(encoded.targets):
        if target["end_positions"]:
            logits[row, target["start_positions"], 0] = logits[row, target["end_positions"], 1] = 5
    assert kind.scores(items, encoded, logits.flatten(1)) == {"f1": 1.0, "exact": 1.0}
    assert kind.predictions(items, encoded, logits)["c"] == "round ball"
    without = [*items, question(name="d")]
    encoded = kind.encode(without)
    logits = torch.cat([logits, torch.zeros(len(encoded.rows) - len(logits), kind.max_length, 2)])
    logits[-3:, 0] = 1
    scores = kind.scores(without, encoded, logits)
    assert (scores["f1"], scores["no_answer_exact"]) == (1.0, 1.0)
