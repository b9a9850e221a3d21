"""The scores of SQuAD 2.0 against those of transformers 4.57.1, on awkward texts."""

import random
from types import SimpleNamespace

import pytest

from modelwright.training.squad import Answer, Question, squad_scores

pytestmark = pytest.mark.parity


def test_scores_of_awkward_texts(corpus):
    from transformers.data.metrics.squad_metrics import squad_evaluate

    generator = random.Random(2)
    words = [*["a", "an", "the", "The", "red", "ball,", "box.", "old-box", '"An"', "it's"], *corpus[:80]]

    def text():
        return " ".join(generator.choices(words, k=generator.randint(0, 4)))

    answers = {str(i): [text() for _ in range(generator.randint(0, 3))] for i in range(600)}
    predictions = {
        name: generator.choice([*own, *(f"the {each}" for each in own), text(), ""]) for name, own in answers.items()
    }
    questions = [Question(name, "?", "", tuple(Answer(each, 0) for each in own)) for name, own in answers.items()]
    theirs = squad_evaluate(
        [SimpleNamespace(qas_id=name, answers=[{"text": each} for each in own]) for name, own in answers.items()],
        predictions,
    )
    names = {"f1": "f1", "exact": "exact"}
    names |= {
        f"{mine}_{each}": f"{kind}_{each}"
        for mine, kind in (("has_answer", "HasAns"), ("no_answer", "NoAns"))
        for each in ("f1", "exact")
    }
    found = squad_scores(questions, predictions)
    assert set(found) == set(names)
    for mine, other in names.items():
        assert 100 * found[mine] == pytest.approx(theirs[other], abs=1e-9), mine
    assert 0.2 < found["f1"] < 0.9
