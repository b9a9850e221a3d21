"""Functions on the next token's scores, applied in a row: the list, and the processors for every way of decoding.

Each takes input_ids [batch, tokens so far] and scores [batch, vocabulary] (float32 logits) and returns new scores.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError

FORBIDDEN = -float("inf")


def filled(where: str, scores: Tensor, ids: Tensor, value: float) -> Tensor:
    """Return the scores with `value` at the tokens `ids`; raise InputError for an id outside the vocabulary."""
    try:
        return scores.index_fill(1, ids.to(scores.device), value)
    except IndexError as error:
        raise InputError(f"{where}: {ids.tolist()} holds an id outside the vocabulary of {scores.shape[1]}.") from error


class LogitsProcessor:
    """Base of everything that changes the next token's scores."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores [batch, vocabulary]; `scores` itself is not written to.

        A class may also define `write_over(input_ids, scores)`, which writes them over `scores` and returns these.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__(input_ids, scores).")


class LogitsProcessorList(list[Any]):
    """Processors that are applied one after the other."""

    def __call__(self, input_ids: Tensor, scores: Tensor, *, may_write: bool = False, **kwargs: Any) -> Tensor:
        """Return the scores after the last processor.

        may_write: nobody else reads `scores`, so that they may be written over.
        kwargs: handed to the processors that take more than the two arguments; InputError if one needs a missing one.
        """
        for processor in self:
            # In the class itself: a subclass may call for something else.
            if may_write and "write_over" in vars(type(processor)):
                scores = processor.write_over(input_ids, scores)
                continue
            may_write = False  # A processor may keep what it is given, and what it returns.
            takes, needed = _further_arguments(processor.__class__)
            if missing := sorted(needed - kwargs.keys()):
                raise InputError(f"{type(processor).__name__} needs the arguments {', '.join(missing)}; pass them.")
            scores = processor(input_ids, scores, **{name: kwargs[name] for name in kwargs if name in takes})
        return scores


@functools.cache
def _further_arguments(kind: type) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the arguments that processors of this class take beside the two, and of those they need."""
    parameters = list(inspect.signature(kind.__call__).parameters.values())[3:]
    plain = (each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD)
    return frozenset(each.name for each in parameters), frozenset(each.name for each in plain)


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Make tokens that are already there less likely (Keskar et al. 2019, arXiv 1909.05858, section 4.1).

    The logit of such a token is divided by `penalty` if positive and multiplied by it if negative; below 1 it rewards.
    Raises InputError for a penalty that is not above 0.
    """

    def __init__(self, penalty: float) -> None:
        if not (isinstance(penalty, (int, float)) and penalty > 0):
            raise InputError(f"RepetitionPenaltyLogitsProcessor: expected a penalty above 0, got {penalty!r}.")
        self.penalty = float(penalty)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the tokens of `input_ids` penalised, each once."""
        return penalised(scores, input_ids, self.penalty)


def penalised(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Return the scores [rows, vocabulary] with those of `ids` [rows, tokens] divided by the penalty, if positive, else
    multiplied by it; each once.
    """
    seen = scores.gather(1, ids)
    return scores.scatter(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Forbid every token that would complete an n-gram that the row already holds (Paulus et al. 2017, section 2.5).

    Raises InputError for a size below 1.
    """

    def __init__(self, ngram_size: int) -> None:
        self.ngram_size = check_ngram_size("NoRepeatNGramLogitsProcessor", ngram_size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the forbidden tokens at minus infinity."""
        return forbid_ngrams(input_ids, input_ids, scores, self.ngram_size)


def check_ngram_size(where: str, size: int) -> int:
    """Return the size; raises InputError for one below 1."""
    if not isinstance(size, int) or size < 1:
        raise InputError(f"{where}: expected an ngram_size of 1 or more, got {size!r}.")
    return size


def forbid_ngrams(source: Tensor, input_ids: Tensor, scores: Tensor, size: int) -> Tensor:
    """Return the scores with the tokens at minus infinity that, after `input_ids`, complete an n-gram of `source`.

    source [rows, tokens], input_ids [rows, tokens so far], scores [rows, vocabulary].
    """
    length = input_ids.shape[1]
    if source.shape[1] < size or length < size - 1:
        return scores
    ngrams_BNn = source.unfold(1, size, 1)
    beginning_B1n = input_ids[:, length - (size - 1) :].unsqueeze(1)
    repeated_BN = (ngrams_BNn[..., :-1] == beginning_B1n).all(dim=-1)
    row, start = repeated_BN.nonzero(as_tuple=True)
    forbidden = torch.zeros_like(scores, dtype=torch.bool)
    forbidden[row, ngrams_BNn[row, start, -1]] = True
    return scores.masked_fill(forbidden, FORBIDDEN)


def eos_ids(where: str, eos_token_id: int | list[int] | Tensor, device: Any = None) -> Tensor:
    """Return the ids that end a text, [ids]; raises InputError for something that is no id or list of ids."""
    ids = torch.as_tensor(eos_token_id, device=device).reshape(-1)
    if ids.numel() == 0 or ids.is_floating_point() or ids.dtype == torch.bool or bool((ids < 0).any()):
        raise InputError(f"{where}: expected eos_token_id to be an id or a list of ids, got {eos_token_id!r}.")
    return ids.to(torch.long)


class MinLengthLogitsProcessor(LogitsProcessor):
    """Forbid the end while a row, prompt included, has fewer than `min_length` tokens.

    Raises InputError for a length below 0 or an id that is none.
    """

    def __init__(self, min_length: int, eos_token_id: int | list[int] | Tensor, device: Any = "cpu") -> None:
        if not isinstance(min_length, int) or min_length < 0:
            raise InputError(f"MinLengthLogitsProcessor: expected a min_length of 0 or more, got {min_length!r}.")
        self.min_length, self.eos_token_id = min_length, eos_ids("MinLengthLogitsProcessor", eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, the ends at minus infinity while the row is too short."""
        return _without_end(scores, self.eos_token_id) if self._is_too_short(input_ids) else scores

    def write_over(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Write the same over `scores` and return them."""
        return _forbid_end_(scores, self.eos_token_id) if self._is_too_short(input_ids) else scores

    def _is_too_short(self, input_ids: Tensor) -> bool:
        return input_ids.shape[1] < self.min_length


class MinNewTokensLengthLogitsProcessor(LogitsProcessor):
    """Forbid the end until `min_new_tokens` tokens have followed the prompt's `prompt_length_to_skip`.

    Raises InputError for a count below 0 or an id that is none.
    """

    def __init__(
        self,
        prompt_length_to_skip: int,
        min_new_tokens: int,
        eos_token_id: int | list[int] | Tensor,
        device: Any = "cpu",
    ) -> None:
        where = "MinNewTokensLengthLogitsProcessor"
        for name, value in (("prompt_length_to_skip", prompt_length_to_skip), ("min_new_tokens", min_new_tokens)):
            if not isinstance(value, int) or value < 0:
                raise InputError(f"{where}: expected {name} to be 0 or more, got {value!r}.")
        self.prompt_length_to_skip, self.min_new_tokens = prompt_length_to_skip, min_new_tokens
        self.eos_token_id = eos_ids(where, eos_token_id, device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, the ends at minus infinity while too few tokens are new."""
        return _without_end(scores, self.eos_token_id) if self._is_too_short(input_ids) else scores

    def write_over(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Write the same over `scores` and return them."""
        return _forbid_end_(scores, self.eos_token_id) if self._is_too_short(input_ids) else scores

    def _is_too_short(self, input_ids: Tensor) -> bool:
        return input_ids.shape[1] - self.prompt_length_to_skip < self.min_new_tokens


def _without_end(scores: Tensor, ends: Tensor) -> Tensor:
    return scores.index_fill(1, ends.to(scores.device), FORBIDDEN)


def _forbid_end_(scores: Tensor, ends: Tensor) -> Tensor:
    return scores.index_fill_(1, ends.to(scores.device), FORBIDDEN)


class HammingDiversityLogitsProcessor(LogitsProcessor):
    """Make tokens less likely that earlier groups of beams chose at this step (Vijayakumar et al. 2016, section 3).

    The score of a token falls by `diversity_penalty` for each beam of the item that chose it.
    Raises InputError for a penalty that is not above 0 and for groups that do not divide the beams.
    """

    def __init__(self, diversity_penalty: float, num_beams: int, num_beam_groups: int) -> None:
        where = "HammingDiversityLogitsProcessor"
        if not (isinstance(diversity_penalty, (int, float)) and diversity_penalty > 0):
            raise InputError(f"{where}: expected a diversity_penalty above 0, got {diversity_penalty!r}.")
        if num_beam_groups < 2 or num_beams % num_beam_groups:
            raise InputError(
                f"{where}: expected num_beam_groups to be 2 or more and to divide num_beams, got {num_beam_groups} and "
                f"{num_beams}."
            )
        self.diversity_penalty, self.num_beams = float(diversity_penalty), num_beams
        self.group_size = num_beams // num_beam_groups

    def __call__(  # type: ignore[override]
        self,
        input_ids: Tensor,  # noqa: ARG002
        scores: Tensor,
        current_tokens: Tensor,
        beam_group_idx: int,
    ) -> Tensor:
        """Return the scores [items * beams of a group, vocabulary] of group number `beam_group_idx`.

        current_tokens [items * num_beams]: what each beam of the groups before has chosen at this step.
        """
        earlier_BJ = current_tokens.view(-1, self.num_beams)[:, : beam_group_idx * self.group_size]
        counts_BV = scores.new_zeros(len(earlier_BJ), scores.shape[1])
        counts_BV.scatter_add_(1, earlier_BJ, torch.ones_like(earlier_BJ, dtype=scores.dtype))
        return scores - self.diversity_penalty * counts_BV.repeat_interleave(self.group_size, dim=0)


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """Put 0 for what is no number, and the largest and smallest numbers of the dtype for the infinities."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores, all finite."""
        return scores.nan_to_num(nan=0.0)


class LogitNormalization(LogitsProcessor):
    """Make log probabilities of the scores: the last processor, for scores that are to be compared or added."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores as log probabilities."""
        return scores.log_softmax(dim=-1)
