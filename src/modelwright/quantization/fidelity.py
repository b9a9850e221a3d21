"""How much of a float model is left in a quantized one, and how much has to be: cosines, or a score of the task."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fidelity:
    """How close outputs are to the float model's: the mean and the lowest cosine over the texts.

    score, float_score: of the task, of these outputs and of the float model's, where a `ScoreBar` has measured.
    """

    mean: float
    minimum: float
    score: float | None = None
    float_score: float | None = None

    @classmethod
    def of(cls, outputs: Tensor, reference: Tensor) -> "Fidelity":
        """Return that of outputs [texts, ...] and the float model's."""
        cosines = torch.cosine_similarity(outputs.flatten(1).double(), reference.flatten(1).double(), dim=-1)
        return cls(float(cosines.mean()), float(cosines.min()))


class AccuracyBar(Protocol):
    """What is accurate enough."""

    def judge(self, outputs: Tensor, reference: Tensor) -> Fidelity:
        """Return what is measured of outputs [texts, ...] and the float model's."""
        ...

    def shortfall(self, fidelity: Fidelity) -> float:
        """Return how much is lost, as a share of what may be: up to 1 is enough."""
        ...


@dataclass(frozen=True)
class Bar:
    """What is accurate enough: a mean cosine, and a lowest one that may be 2.5 times as far from 1."""

    mean: float = 0.998

    @property
    def minimum(self) -> float:
        """The lowest cosine that is accurate enough."""
        return 1 - 2.5 * (1 - self.mean)

    def judge(self, outputs: Tensor, reference: Tensor) -> Fidelity:
        """Return the cosines."""
        return Fidelity.of(outputs, reference)

    def shortfall(self, fidelity: Fidelity) -> float:
        """Return how far from 1 the worse of the two figures is, as a share of what is allowed: up to 1 is enough."""
        return max((1 - fidelity.mean) / (1 - self.mean), (1 - fidelity.minimum) / (1 - self.minimum))


@dataclass(frozen=True)
class ScoreBar:
    """What is accurate enough: a share of the float model's score, which is higher the better.

    score: takes outputs [texts, ...]. kept: 0.99 is within a hundredth of the float model, as in Wu et al. 2020.
    """

    score: Callable[[Tensor], float]
    kept: float = 0.99

    def judge(self, outputs: Tensor, reference: Tensor) -> Fidelity:
        """Return the cosines and the two scores."""
        return replace(Fidelity.of(outputs, reference), score=self.score(outputs), float_score=self.score(reference))

    def shortfall(self, fidelity: Fidelity) -> float:
        """Return the part of the score that is lost, as a share of what may be; 0 if nothing is."""
        assert fidelity.score is not None
        assert fidelity.float_score is not None
        lost = fidelity.float_score - fidelity.score
        return max(0.0, lost) / ((1 - self.kept) * max(fidelity.float_score, 1e-12))
