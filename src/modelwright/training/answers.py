"""Answers to questions about a context: windows of long contexts, and the best spans over the windows.

    [CLS] question [SEP] first window of the context [SEP]      windows of a context overlap in `stride` tokens
    [CLS] question [SEP]        second window        [SEP]

Legend: W windows, T tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.training.examples import Encoded, Scores
from modelwright.training.squad import Question, is_version_2, squad_scores

# As in BERT's own script for SQuAD: what is considered in a window, and the tokens of an answer and of a question.
BEST = 20
LONGEST_ANSWER = 30
LONGEST_QUESTION = 64
Spans = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a context: the number of its question, and for each token its first character and that behind it.

    `spans` is [T, 2]; tokens that are not of the context have -1.
    """

    question: int
    spans: Spans


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An answer that a model gives, "" for none: the sum of its two logits, and its share among the candidates."""

    text: str
    score: float
    probability: float


class QuestionKind:
    """Questions about contexts; the scores are those of SQuAD.

    max_length: tokens of a window. stride: tokens in which windows of a context overlap. Raises InputError for a
    tokenizer that does not tell the characters of its tokens, and for a stride that leaves no room.
    """

    item_name = "questions"

    def __init__(self, tokenizer: Any, max_length: int, *, stride: int, labelled: bool) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                f"questions: expected a fast tokenizer, which knows the characters of its tokens, got "
                f"{type(tokenizer).__name__}"
            )
        room = max_length - _most_of_question(max_length) - tokenizer.num_special_tokens_to_add(pair=True)
        if not 0 <= stride < room:
            raise InputError(
                f"questions: expected windows to overlap (--stride) in 0 to {room - 1} of their {max_length} tokens "
                f"(--max-length), got {stride}"
            )
        self.tokenizer, self.max_length, self.stride = tokenizer, max_length, stride
        self.measure = "f1" if labelled else None

    def group(self, item: Question) -> str:
        """Return the context."""
        return item.context

    def encode(self, items: Sequence[Question]) -> Encoded:
        """Return a row for each window of each question's context; `context` has the `Window`s."""
        rows, targets, windows = [], [], []
        for number, item in enumerate(items):
            encoding = self.tokenizer(
                self._shortened(item.question),
                item.context,
                truncation="only_second",
                max_length=self.max_length,
                stride=self.stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            offsets = encoding.pop("offset_mapping")
            encoding.pop("overflow_to_sample_mapping", None)
            for i, characters in enumerate(offsets):
                of_context = np.array([text == 1 for text in encoding.sequence_ids(i)])
                spans = np.where(of_context[:, None], np.array(characters, dtype=np.int32), -1)
                rows.append({name: values[i] for name, values in encoding.items()})
                windows.append(Window(number, spans))
                targets.append(_target(item, spans))
        return Encoded(rows, targets, windows)

    def scores(self, items: Sequence[Question], encoded: Encoded, outputs: Tensor) -> Scores:
        """Return the scores of SQuAD, F1 first; `outputs` are logits of starts and ends [W, T, 2], or flat."""
        if self.measure is None:
            return {}
        return squad_scores(items, self.predictions(items, encoded, outputs))

    def predictions(self, items: Sequence[Question], encoded: Encoded, outputs: Tensor) -> dict[str, str]:
        """Return the best answer for each question's id."""
        logits = outputs.reshape(len(encoded.rows), -1, 2).float().numpy()
        candidates = best_answers(items, encoded.context, logits, may_have_none=is_version_2(items))
        return {item.id: found[0].text for item, found in zip(items, candidates, strict=True)}

    def _shortened(self, question: str) -> str:
        most = _most_of_question(self.max_length)
        question = question.lstrip()
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def _most_of_question(max_length: int) -> int:
    return min(LONGEST_QUESTION, max_length // 2)


def _target(item: Question, spans: Spans) -> dict[str, int]:
    """Return the first and last token of the first answer in a window; place 0 for both if the window has not all."""
    if item.answers is None:
        return {}
    if item.answers:
        first, last = item.answers[0].start, item.answers[0].start + len(item.answers[0].text)
        starts = np.flatnonzero((spans[:, 0] <= first) & (first < spans[:, 1]))
        ends = np.flatnonzero((spans[:, 0] < last) & (last <= spans[:, 1]))
        if len(starts) and len(ends):
            return {"start_positions": int(starts[-1]), "end_positions": int(ends[0])}
    return {"start_positions": 0, "end_positions": 0}


def best_answers(
    questions: Sequence[Question],
    windows: Sequence[Window],
    logits_WT2: Any,
    *,
    may_have_none: bool,
    count: int = BEST,
    longest: int = LONGEST_ANSWER,
) -> list[list[Candidate]]:
    """Return for each question up to `count` answers, the best first.

    A span is in one window, starts at one of the `count` likeliest starts and ends at one of the likeliest ends, and
    has `longest` tokens at most; the same characters count once, with their best score. may_have_none: "no answer" is
    a candidate too, with the lowest score that place 0 has in a window of the question. A question without any span
    gets "no answer".
    """
    spans: list[dict[tuple[int, int], float]] = [{} for _ in questions]
    none: list[float] = [float("inf")] * len(questions)
    for window, logits in zip(windows, logits_WT2, strict=True):
        none[window.question] = min(none[window.question], float(logits[0].sum()))
        _collect(window, logits, spans[window.question], count, longest)
    found = []
    for question, own, score in zip(questions, spans, none, strict=True):
        scored = [(question.context[first:last], value) for (first, last), value in own.items()]
        if may_have_none or not scored:
            scored.append(("", score))
        found.append(_ranked(scored, count))
    return found


def _collect(window: Window, logits_T2: Any, into: dict[tuple[int, int], float], count: int, longest: int) -> None:
    """Add the spans of a window, by their characters."""
    inside = np.flatnonzero(window.spans[:, 0] >= 0)
    starts, ends = (inside[np.argsort(-logits_T2[inside, i], kind="stable")[:count]] for i in (0, 1))
    scores = logits_T2[starts, 0][:, None] + logits_T2[ends, 1][None]
    length = ends[None] - starts[:, None] + 1
    for i, j in zip(*np.nonzero((length >= 1) & (length <= longest)), strict=True):
        key = (int(window.spans[starts[i], 0]), int(window.spans[ends[j], 1]))
        into[key] = max(into.get(key, -np.inf), float(scores[i, j]))


def _ranked(scored: Sequence[tuple[str, float]], count: int) -> list[Candidate]:
    ranked = sorted(scored, key=lambda pair: -pair[1])[:count]
    weights = np.exp(np.array([score for _, score in ranked]) - ranked[0][1])
    shares = weights / weights.sum()
    return [Candidate(text, score, float(share)) for (text, score), share in zip(ranked, shares, strict=True)]
