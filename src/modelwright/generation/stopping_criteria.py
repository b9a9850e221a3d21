"""When a row is finished: each criterion sees the ids so far and answers for every row."""
# ruff: noqa: ARG002 (all criteria take the same arguments)

import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import eos_ids

# U+FFFD, what decoders write for bytes that are not (yet) a whole character.
REPLACEMENT = "\ufffd"


class Decoder(Protocol):
    """The part of a tokenizer that turns ids into text."""

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Return the text of one row of ids."""


class StoppingCriteria:
    """Base of everything that ends a row."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return True for each finished row, [batch], given input_ids [batch, tokens] and the scores kept so far."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(input_ids, scores, **kwargs).")


class MaxLengthCriteria(StoppingCriteria):
    """Finish all rows at `max_length` tokens, prompt included."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        """Take the length in tokens; `max_position_embeddings` is the model's limit, which it must not pass."""
        if max_position_embeddings is not None and max_length > max_position_embeddings + 1:
            raise InputError(
                f"MaxLengthCriteria: expected a max_length of at most {max_position_embeddings + 1}, one more than the "
                f"model's positions, got {max_length}."
            )
        self.max_length, self.max_position_embeddings = max_length, max_position_embeddings

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return whether the rows are long enough, [batch]."""
        return _all_rows(input_ids, input_ids.shape[1] >= self.max_length)


class MaxTimeCriteria(StoppingCriteria):
    """Finish all rows once `max_time` seconds have passed since `initial_timestamp` (time.time(), now if None)."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return whether the time is over, [batch]."""
        return _all_rows(input_ids, time.time() - self.initial_timestamp > self.max_time)


class EosTokenCriteria(StoppingCriteria):
    """Finish a row whose last token is one of the ids that end a text."""

    def __init__(self, eos_token_id: int | list[int] | Tensor) -> None:
        self.eos_token_id = eos_ids("EosTokenCriteria", eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return whether each row's last token is an end, [batch]."""
        self.eos_token_id = self.eos_token_id.to(input_ids.device)
        return torch.isin(input_ids[:, -1], self.eos_token_id)


class StopStringCriteria(StoppingCriteria):
    """Finish a row whose last token completes one of `stop_strings` in the decoded text.

    What stands after the string in the same token is not taken off. A string that the prompt already ends with does not
    stop the first step.
    """

    def __init__(self, tokenizer: Decoder, stop_strings: str | Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not self.stop_strings or not all(isinstance(each, str) and each for each in self.stop_strings):
            raise InputError(f"StopStringCriteria: expected strings that are not empty, got {stop_strings!r}.")
        # A token is a byte of text at least; the few more are for tokens without text.
        self._window = max(len(each.encode("utf-8", "replace")) for each in self.stop_strings) + 8

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return whether each row has just completed a stop string, [batch]."""
        rows = input_ids[:, -self._window :].tolist()
        return torch.tensor([self._completed(row) for row in rows], dtype=torch.bool, device=input_ids.device)

    def _completed(self, ids: list[int]) -> bool:
        before = self.tokenizer.decode(ids[:-1]).rstrip(REPLACEMENT)
        after = self.tokenizer.decode(ids)
        # Only an occurrence that reaches into the last token's text counts.
        return any(after.find(stop, max(0, len(before) + 1 - len(stop))) >= 0 for stop in self.stop_strings)


class StoppingCriteriaList(list[Any]):
    """Criteria of which one is enough."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return whether any criterion ends each row, [batch]; a criterion may also answer with one bool for all."""
        done = _all_rows(input_ids, False)
        for criterion in self:
            answer = criterion(input_ids, scores, **kwargs)
            done = done | (answer.to(done.device) if isinstance(answer, Tensor) else bool(answer))
        return done

    @property
    def max_length(self) -> int | None:
        """The length in tokens of the MaxLengthCriteria in the list, None without one."""
        return next((each.max_length for each in self if isinstance(each, MaxLengthCriteria)), None)


def _all_rows(input_ids: Tensor, done: bool) -> Tensor:
    return torch.full((input_ids.shape[0],), done, dtype=torch.bool, device=input_ids.device)
