"""Files in the format of SQuAD and its scores; expected scores are worked out by hand from the definitions."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelwright.core.errors import InputError
from modelwright.training.squad import Answer, Question, exact_match, normalized, read_squad, squad_scores, word_f1

CONTEXT = "The red ball is in the old box. The box is green."


def entry(**changes: Any) -> dict[str, Any]:
    answer = {"text": "the old box", "answer_start": 19}
    return {"id": "a", "question": "Where is the ball?", "answers": [answer]} | changes


def write(path: Path, *questions: Any, context: Any = CONTEXT) -> Path:
    path.write_text(
        json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]})
    )
    return path


def test_questions_in_order(tmp_path: Path) -> None:
    impossible = entry(id=7, answers=[], is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}])
    found = read_squad("--calib", write(tmp_path / "a.json", entry(), impossible))
    assert found[0] == Question("a", "Where is the ball?", CONTEXT, (Answer("the old box", 19),))
    assert found[1].answers == ()
    assert found[1].id == "7"
    unknown = read_squad("--calib", write(tmp_path / "a.json", entry(answers=None), {"id": "b", "question": "Why?"}))
    assert [each.answers for each in unknown] == [None, None]
    marked = tmp_path / "marked.json"
    marked.write_text((tmp_path / "a.json").read_text(), encoding="utf-8-sig")
    assert read_squad("--calib", marked) == unknown


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([entry(question=" ")], r'data\[0\].paragraphs\[0\].qas\[0\]: expected an object with the text "question"'),
        ([entry(), "what"], r"qas\[1\]: expected an object with the text \"question\".*got 'what'"),
        ([entry(id=None)], r'expected an "id" as text, got None'),
        ([entry(answers="x")], r"expected an object with the list \"answers\".*got 'x'"),
        (
            [entry(answers=[{"text": "box"}])],
            r'answers\[0\]: expected "answer_start", a number of characters, got None',
        ),
        (
            [entry(answers=[{"text": "old box", "answer_start": 19}])],
            r"answers\[0\]: expected 'old box' at character 19 of the context, found 'the old'; answer_start counts",
        ),
        ([entry(), entry()], r"expected an id once, found 'a' again \(1 such ids\)"),
        ([entry(), entry(id="b", answers=None)], "1 of 2 questions have no \"answers\", the first is 'b'"),
    ],
)
def test_the_place_of_an_error_is_named(tmp_path: Path, questions: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=f"--calib: .*a.json.*{message}"):
        read_squad("--calib", write(tmp_path / "a.json", *questions))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON in the format of SQuAD"),
        ("[1]", r'expected an object with the list "data" .*got \[1\]'),
        ('{"version": "1.1", "rows": []}', r'the list "data" .*got one with version, rows'),
        ('{"data": [{"title": "t"}]}', r'data\[0\]: expected an object with the list "paragraphs".*got one with title'),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r'paragraphs\[0\]: expected an object with the text "context"'),
    ],
)
def test_other_formats(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_squad("--calib", tmp_path / "a.json")
    with pytest.raises(InputError, match="there is none at"):
        read_squad("--calib", tmp_path / "none.json")


def test_words_count_without_case_punctuation_and_articles() -> None:
    assert normalized("The  Red-ball, an\tOLD box!") == "redball old box"
    assert exact_match("the box.", "A Box") == 1
    assert exact_match("box", "boxes") == 0
    # Two of three predicted words are among two wanted ones: precision 2/3, recall 1.
    assert word_f1("in old box", "the old box", version_2=False) == pytest.approx(0.8)
    # A word counts as often as both have it.
    assert word_f1("box box", "box", version_2=False) == pytest.approx(2 / 3)
    assert [word_f1("", "the", version_2=each) for each in (False, True)] == [0, 1]
    assert [word_f1("x", "", version_2=each) for each in (False, True)] == [0, 0]


def question(name: str, *answers: str) -> Question:
    return Question(name, "?", CONTEXT, tuple(Answer(each, 0) for each in answers))


def test_the_best_of_several_answers_counts() -> None:
    questions = [question("a", "red ball", "old box"), question("b", "green")]
    scores = squad_scores(questions, {"a": "the old red box", "b": "blue"})
    assert scores == {"f1": pytest.approx(0.8 / 2), "exact": 0.0}
    assert squad_scores(questions, {"a": "Old box", "b": "green"}) == {"f1": 1.0, "exact": 1.0}


def test_questions_without_answer_are_scored_as_in_2_0() -> None:
    questions = [question("a", "the", "old box"), question("b"), question("c")]
    scores = squad_scores(questions, {"a": "box", "b": "", "c": "ball"})
    assert scores == {
        "f1": pytest.approx((2 / 3 + 1) / 3),
        "exact": pytest.approx(1 / 3),
        "has_answer_f1": pytest.approx(2 / 3),
        "has_answer_exact": 0.0,
        "no_answer_f1": 0.5,
        "no_answer_exact": 0.5,
    }
    # An answer of articles alone is none in 2.0, and text in 1.1.
    assert squad_scores([question("a", "the"), question("b")], {"a": "", "b": ""})["f1"] == 1
    assert squad_scores([question("a", "the")], {"a": ""}) == {"f1": 0.0, "exact": 1.0}
