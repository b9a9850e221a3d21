"""How `modelwright quantize` judges a quantized model: held-out examples, the float model's outputs, a bar."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelwright.cli.quantize_task import Subject
from modelwright.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from modelwright.quantization.fidelity import AccuracyBar

# On how many held-out items what to do is decided, at most.
MOST_DECIDING = 256
# Items on which the layers are measured one at a time, which takes as many forward passes as there are layers.
FEW = 16


class Judge:
    """The held-out examples with the float model's outputs for them, and the bar that quantized ones are held to.

    bar: as the command takes it, None for the default. Raises InputError for a float model that gets nothing right.
    """

    def __init__(self, subject: Subject, bar: float | None) -> None:
        from modelwright.quantization.fidelity import Bar, ScoreBar

        self.float_model = copy.deepcopy(subject.model)
        self.held_out = subject.held_out
        self.reference = self.held_out(self.float_model)
        self.deciding = self.held_out.at_most(MOST_DECIDING)
        self.few = self.held_out.at_most(FEW)
        self.measure = subject.kind.measure
        self.bar: AccuracyBar = Bar() if bar is None else Bar(bar)
        self.deciding_bar: AccuracyBar = self.bar
        if self.measure is not None:
            kept = ScoreBar.kept if bar is None else bar
            self.bar, self.deciding_bar = (ScoreBar(self._score(each), kept) for each in (self.held_out, self.deciding))
            if self._score(self.deciding)(self.deciding(self.float_model)) == 0:
                raise InputError(
                    f"--calib: the float model's {self.measure} is 0 on {len(self.deciding)} {subject.kind.item_name} "
                    "that are to judge it; are the labels those of this model?"
                )

    def _score(self, examples: Any) -> "Callable[[Tensor], float]":
        return lambda outputs: examples.scores(outputs)[self.measure]

    def figures(self, model: Any) -> tuple[dict[str, Any], bool]:
        """Return what is measured of a model, PyTorch's or exported, and whether the bar holds."""
        outputs = self.held_out(model)
        fidelity = self.bar.judge(outputs, self.reference)
        scores = self.held_out.scores(outputs)
        figures = {"mean": fidelity.mean, "minimum": fidelity.minimum}
        return figures | ({"scores": scores} if scores else {}), self.bar.shortfall(fidelity) <= 1

    def bar_figures(self) -> dict[str, Any]:
        """Return what the bar asks for."""
        from modelwright.quantization.fidelity import Bar, ScoreBar

        if isinstance(self.bar, ScoreBar):
            float_score = self.bar.score(self.reference)
            return {"measure": self.measure, "kept": self.bar.kept, "least": self.bar.kept * float_score}
        assert isinstance(self.bar, Bar)
        return {"measure": "cosine", "mean": self.bar.mean, "minimum": self.bar.minimum}
