"""Processors for how a text begins and ends: forced first and last tokens, and an end that grows likelier.

Each takes input_ids [batch, tokens so far] and scores [batch, vocabulary] (float32 logits) and returns new scores.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import FORBIDDEN, LogitsProcessor, eos_ids, filled


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """Let `bos_token_id` follow the first token: what an encoder-decoder's answer begins with after its start id."""

    def __init__(self, bos_token_id: int) -> None:
        self.bos_token_id = bos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores; after one token, 0 for the forced one and minus infinity for the others."""
        return (
            _only(type(self).__name__, scores, torch.tensor([self.bos_token_id])) if input_ids.shape[1] == 1 else scores
        )


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Let a row that reaches `max_length` tokens, prompt included, end with one of `eos_token_id`.

    Raises InputError for an id that is none.
    """

    def __init__(self, max_length: int, eos_token_id: int | list[int] | Tensor, device: Any = "cpu") -> None:
        self.max_length = max_length
        self.eos_token_id = eos_ids("ForcedEOSTokenLogitsProcessor", eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores; for the last token, 0 for the ends and minus infinity for the others."""
        return (
            _only(type(self).__name__, scores, self.eos_token_id)
            if input_ids.shape[1] == self.max_length - 1
            else scores
        )


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """Raise the score of the end, more with each token after the first few.

    exponential_decay_length_penalty: (start, factor): n tokens after `start` new ones, the ends gain their absolute
    score times factor ** n - 1. An end that is forbidden stays so. Raises InputError for something else than that.
    """

    def __init__(
        self,
        exponential_decay_length_penalty: tuple[int, float],
        eos_token_id: int | list[int] | Tensor,
        input_ids_seq_length: int,
    ) -> None:
        where, given = "ExponentialDecayLengthPenalty", exponential_decay_length_penalty
        if not (isinstance(given, (tuple, list)) and len(given) == 2 and isinstance(given[0], int)):
            raise InputError(f"{where}: expected (start, factor), a number of tokens and a factor, got {given!r}.")
        self.regulation_start, self.regulation_factor = given[0] + input_ids_seq_length, float(given[1])
        self.eos_token_id = eos_ids(where, eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with those of the ends raised."""
        beyond = input_ids.shape[1] - self.regulation_start
        if beyond <= 0:
            return scores
        ends = self.eos_token_id.to(scores.device)
        of_ends = scores[:, ends]
        gain = of_ends.abs() * (self.regulation_factor**beyond - 1)
        # Minus infinity plus infinity is no number.
        return scores.index_copy(1, ends, torch.where(of_ends == FORBIDDEN, of_ends, of_ends + gain))


def _only(where: str, scores: Tensor, ids: Tensor) -> Tensor:
    return filled(where, torch.full_like(scores, FORBIDDEN), ids, 0.0)
