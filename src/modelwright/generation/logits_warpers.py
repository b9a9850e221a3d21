"""Processors that shape the distribution a token is drawn from; greedy search has no use for them.

Each takes input_ids [batch, tokens so far] and scores [batch, vocabulary] (float32 logits) and returns new scores.
"""
# ruff: noqa: ARG002 (all processors take the same two arguments)

from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import FORBIDDEN, LogitsProcessor


def _check_kept(where: str, min_tokens_to_keep: int) -> int:
    if not isinstance(min_tokens_to_keep, int) or min_tokens_to_keep < 1:
        raise InputError(f"{where}: expected min_tokens_to_keep to be 1 or more, got {min_tokens_to_keep!r}.")
    return min_tokens_to_keep


def _share(where: str, name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and 0 <= value <= 1):
        raise InputError(f"{where}: expected {name} to be a number from 0 to 1, got {value!r}.")
    return float(value)


class TemperatureLogitsWarper(LogitsProcessor):
    """Divide the logits by `temperature`: below 1 sharpens the distribution, above 1 flattens it.

    Raises InputError for a temperature that is not above 0.
    """

    def __init__(self, temperature: float) -> None:
        if not (isinstance(temperature, (int, float)) and temperature > 0):
            raise InputError(
                f"TemperatureLogitsWarper: expected a temperature above 0, got {temperature!r}. For the most likely "
                "token at each step use do_sample=False."
            )
        self.temperature = float(temperature)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores divided by the temperature."""
        return scores / self.temperature


class TopKLogitsWarper(LogitsProcessor):
    """Keep the `top_k` likeliest tokens, and those that tie with the last of them (Fan et al. 2018, section 5.4).

    filter_value: the score of the others. Raises InputError for a top_k below 1.
    """

    def __init__(self, top_k: int, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1) -> None:
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise InputError(f"TopKLogitsWarper: expected a top_k of 1 or more, got {top_k!r}.")
        self.top_k = max(top_k, _check_kept("TopKLogitsWarper", min_tokens_to_keep))
        self.filter_value = filter_value

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with all but the likeliest tokens filtered."""
        lowest_kept = scores.topk(min(self.top_k, scores.shape[-1])).values[..., -1:]
        return scores.masked_fill(scores < lowest_kept, self.filter_value)


class TopPLogitsWarper(LogitsProcessor):
    """Keep the smallest set of likeliest tokens whose probability is at least `top_p` (Holtzman et al. 2020, 3.1).

    filter_value: the score of the others. Raises InputError for a top_p outside 0 to 1.
    """

    def __init__(self, top_p: float, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1) -> None:
        self.top_p = _share("TopPLogitsWarper", "top_p", top_p)
        self.filter_value = filter_value
        self.min_tokens_to_keep = _check_kept("TopPLogitsWarper", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the unlikely tail filtered."""
        # Summed from the unlikely end, as in 4.x: summed from the other end, rounding draws the line elsewhere.
        ascending, order = scores.sort(dim=-1)
        tail = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - self.top_p
        tail[..., -self.min_tokens_to_keep :] = False
        return scores.masked_fill(tail.scatter(-1, order, tail), self.filter_value)


class MinPLogitsWarper(LogitsProcessor):
    """Keep the tokens that are at least `min_p` times as likely as the likeliest one (Nguyen et al. 2024).

    filter_value: the score of the others. Raises InputError for a min_p outside 0 to 1.
    """

    def __init__(self, min_p: float, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1) -> None:
        self.min_p = _share("MinPLogitsWarper", "min_p", min_p)
        self.filter_value = filter_value
        self.min_tokens_to_keep = _check_kept("MinPLogitsWarper", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the tokens that are too unlikely filtered."""
        probabilities = scores.softmax(dim=-1)
        unlikely = probabilities < self.min_p * probabilities.amax(dim=-1, keepdim=True)
        kept = scores.topk(min(self.min_tokens_to_keep, scores.shape[-1])).indices
        return scores.masked_fill(unlikely.scatter(-1, kept, False), self.filter_value)


def _inner_share(where: str, name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and 0 < value < 1):
        raise InputError(f"{where}: expected {name} to be a number between 0 and 1, got {value!r}.")
    return float(value)


def _entropy(log_p: Tensor) -> Tensor:
    # Of a forbidden token, 0 times minus infinity: it adds nothing.
    return -(log_p.exp() * log_p).nansum(dim=-1, keepdim=True)


def _without(scores: Tensor, is_unlikely: Tensor, filter_value: float, min_tokens_to_keep: int) -> Tensor:
    """Return the scores with the unlikely tokens filtered, but for those that score as the last one to be kept."""
    lowest_kept = scores.topk(min(min_tokens_to_keep, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(is_unlikely & (scores < lowest_kept), filter_value)


class TypicalLogitsWarper(LogitsProcessor):
    """Keep the tokens whose surprise is nearest to the expected one, up to a share of `mass` (Meister et al. 2022).

    filter_value: the score of the others. Raises InputError for a mass outside 0 to 1.
    """

    def __init__(self, mass: float = 0.9, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1) -> None:
        self.mass = _inner_share("TypicalLogitsWarper", "typical_p", mass)
        self.filter_value = filter_value
        self.min_tokens_to_keep = _check_kept("TypicalLogitsWarper", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the tokens that say too much or too little filtered."""
        log_p = scores.log_softmax(dim=-1)
        distance = (-log_p - _entropy(log_p)).abs()
        nearest, order = distance.sort(dim=-1)
        reached = scores.gather(-1, order).softmax(dim=-1).cumsum(dim=-1)
        last = (reached < self.mass).sum(dim=-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        is_far = distance > nearest.gather(-1, last)
        is_far = is_far.scatter(-1, order[..., : self.min_tokens_to_keep], False)
        return scores.masked_fill(is_far, self.filter_value)


class EpsilonLogitsWarper(LogitsProcessor):
    """Keep the tokens of probability `epsilon` or more (Hewitt et al. 2022, section 3).

    filter_value: the score of the others. Raises InputError for an epsilon outside 0 to 1.
    """

    def __init__(self, epsilon: float, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1) -> None:
        self.epsilon = _inner_share("EpsilonLogitsWarper", "epsilon_cutoff", epsilon)
        self.filter_value = filter_value
        self.min_tokens_to_keep = _check_kept("EpsilonLogitsWarper", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the unlikely tokens filtered."""
        is_unlikely = scores.softmax(dim=-1) < self.epsilon
        return _without(scores, is_unlikely, self.filter_value, self.min_tokens_to_keep)


class EtaLogitsWarper(LogitsProcessor):
    """As EpsilonLogitsWarper with a cutoff that falls where many tokens are likely (Hewitt et al. 2022, section 4).

    The cutoff is the smaller of epsilon and sqrt(epsilon) * exp(-entropy). Raises InputError as there.
    """

    def __init__(
        self, epsilon: float, filter_value: float = FORBIDDEN, min_tokens_to_keep: int = 1, device: Any = "cpu"
    ) -> None:
        self.epsilon = torch.tensor(_inner_share("EtaLogitsWarper", "eta_cutoff", epsilon), device=device)
        self.filter_value = filter_value
        self.min_tokens_to_keep = _check_kept("EtaLogitsWarper", min_tokens_to_keep)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the unlikely tokens filtered."""
        log_p = scores.log_softmax(dim=-1)
        cutoff = torch.minimum(self.epsilon, self.epsilon.sqrt() * torch.exp(-_entropy(log_p)))
        return _without(scores, log_p.exp() < cutoff, self.filter_value, self.min_tokens_to_keep)
