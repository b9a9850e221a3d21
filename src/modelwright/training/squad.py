"""Questions about texts from a file in the format of SQuAD, and the scores of that data set.

    {"data": [{"paragraphs": [{"context": text, "qas": [
        {"id": ..., "question": text, "is_impossible": false, "answers": [{"text": ..., "answer_start": 17}]}]}]}]}

`answer_start` counts characters of the context.

A file with questions that have no answer (`is_impossible`) is scored as SQuAD 2.0, any other as SQuAD 1.1. Sources:
Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822); what the two official scripts compute.
"""

import collections
import dataclasses
import json
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.core.errors import InputError

_FORM = 'the format of SQuAD: {"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers"}]}]}]}'
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A part of a context: its text, and the character at which it starts."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a context. `answers`: any of them is right; () if there is none; None if it is not known."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None


def read_squad(option: str, path: Path) -> list[Question]:
    """Return the questions of a file, in its order.

    Raises InputError, which names `option`, the file and the place in it, for another format, an answer that is not
    where the file says, an id that is there twice, and answers for a part of the questions only.
    """
    if not path.is_file():
        raise InputError(f"{option}: expected a file in {_FORM}; there is none at {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option}: {path}: expected JSON in {_FORM}: {error}") from error
    where = f"{option}: {path}"
    questions = []
    for i, article in enumerate(_list(where, content, "data")):
        for j, paragraph in enumerate(_list(f"{where}: data[{i}]", article, "paragraphs")):
            place = f"{where}: data[{i}].paragraphs[{j}]"
            context = _text(place, paragraph, "context")
            for k, entry in enumerate(_list(place, paragraph, "qas")):
                questions.append(_question(f"{place}.qas[{k}]", entry, context))
    _check(where, questions)
    return questions


def _question(where: str, entry: Any, context: str) -> Question:
    question = _text(where, entry, "question")
    identity = entry.get("id")
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        raise InputError(f'{where}: expected an "id" as text, got {identity!r:.60}')
    if entry.get("is_impossible"):
        return Question(str(identity), question, context, ())
    if entry.get("answers") is None:
        return Question(str(identity), question, context, None)
    answers = []
    for i, answer in enumerate(_list(where, entry, "answers")):
        place = f"{where}.answers[{i}]"
        text, start = _text(place, answer, "text"), answer.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise InputError(f'{place}: expected "answer_start", a number of characters, got {start!r:.60}')
        if not context.startswith(text, start):
            found = context[start : start + len(text)]
            raise InputError(
                f"{place}: expected {text!r:.60} at character {start} of the context, found {found!r:.60}; "
                "answer_start counts characters from 0"
            )
        answers.append(Answer(text, start))
    return Question(str(identity), question, context, tuple(answers))


def _list(where: str, values: Any, name: str) -> list[Any]:
    found = values.get(name) if isinstance(values, dict) else None
    if not isinstance(found, list):
        raise InputError(f'{where}: expected an object with the list "{name}" ({_FORM}), got {_shown(values, found)}')
    return found


def _text(where: str, values: Any, name: str) -> str:
    found = values.get(name) if isinstance(values, dict) else None
    if not isinstance(found, str) or not found.strip():
        raise InputError(f'{where}: expected an object with the text "{name}" ({_FORM}), got {_shown(values, found)}')
    return found


def _shown(values: Any, found: Any) -> str:
    if not isinstance(values, dict):
        return f"{values!r:.60}"
    return f"{found!r:.60}" if found is not None else f"one with {', '.join(map(str, values)) or 'nothing'}"


def _check(where: str, questions: Sequence[Question]) -> None:
    twice = [name for name, count in collections.Counter(each.id for each in questions).items() if count > 1]
    if twice:
        raise InputError(f"{where}: expected an id once, found {twice[0]!r} again ({len(twice)} such ids)")
    unknown = [each.id for each in questions if each.answers is None]
    if unknown and len(unknown) < len(questions):
        raise InputError(
            f'{where}: {len(unknown)} of {len(questions)} questions have no "answers", the first is {unknown[0]!r}; '
            'expected them for each ("is_impossible": true if there is none), or for none'
        )


def normalized(text: str) -> str:
    """Return a text in lower case without punctuation, articles and more than single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """Return 1 if the two texts are the same but for case, punctuation, articles and spaces, else 0."""
    return float(normalized(prediction) == normalized(answer))


def word_f1(prediction: str, answer: str, *, version_2: bool) -> float:
    """Return the F1, 0 to 1, of the words of `prediction` against those of `answer`.

    version_2: where one of them has no words, 1 if neither has any; SQuAD 1.1 has 0 there.
    """
    predicted, wanted = normalized(prediction).split(), normalized(answer).split()
    if version_2 and not (predicted and wanted):
        return float(predicted == wanted)
    same = sum((collections.Counter(predicted) & collections.Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def is_version_2(questions: Sequence[Question]) -> bool:
    """Tell whether some of the questions are known to have no answer."""
    return any(each.answers == () for each in questions)


def squad_scores(questions: Sequence[Question], predictions: Mapping[str, str]) -> dict[str, float]:
    """Return {"f1", "exact"}, means over the questions, 0 to 1 (the official scripts print hundredths).

    predictions: a text for each id, "" for no answer. With questions that have no answer also the scores of the two
    kinds of questions alone, "has_answer_f1", "no_answer_exact", ... as far as there are such questions.
    """
    version_2 = is_version_2(questions)
    found = [_best(each, predictions[each.id], version_2=version_2) for each in questions]
    scores = dict(zip(("f1", "exact"), _means(found), strict=True))
    if version_2:
        for name, wanted in (("has_answer", True), ("no_answer", False)):
            part = [pair for pair, each in zip(found, questions, strict=True) if bool(each.answers) == wanted]
            if part:
                scores |= dict(zip((f"{name}_f1", f"{name}_exact"), _means(part), strict=True))
    return scores


def _best(question: Question, prediction: str, *, version_2: bool) -> tuple[float, float]:
    """Return F1 and exact match against the answer that fits best."""
    assert question.answers is not None
    answers = [answer.text for answer in question.answers]
    if version_2:
        answers = [answer for answer in answers if normalized(answer)] or [""]
    return (
        max(word_f1(prediction, answer, version_2=version_2) for answer in answers),
        max(exact_match(prediction, answer) for answer in answers),
    )


def _means(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [sum(values) / len(pairs) for values in zip(*pairs, strict=True)]
