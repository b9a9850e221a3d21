"""Processors for tokens that are wanted more, less or not at all: biases, bad words, suppressed and allowed tokens.

Each takes input_ids [batch, tokens so far] and scores [batch, vocabulary] (float32 logits) and returns new scores.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import FORBIDDEN, LogitsProcessor, eos_ids, filled


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Add a bias to the score of the token that would complete a sequence of ids; of one id, always.

    sequence_bias: pairs of [ids, bias], or a mapping of tuples of ids to biases. A positive bias favours, minus
    infinity forbids. Raises InputError for anything else, and for an id outside the vocabulary.
    """

    def __init__(self, sequence_bias: Any) -> None:
        where = type(self).__name__
        pairs = list(sequence_bias.items() if isinstance(sequence_bias, Mapping) else _pairs(where, sequence_bias))
        if not pairs:
            raise InputError(f"{where}: expected a bias for one sequence or more, got none.")
        for ids, bias in pairs:
            if not isinstance(bias, (int, float)) or isinstance(bias, bool):
                raise InputError(f"{where}: expected the bias of {list(ids)} to be a number, got {bias!r}.")
        self.sequence_bias: dict[tuple[int, ...], float] = {_ids_of(where, ids): float(bias) for ids, bias in pairs}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the biases of all sequences that a token completes."""
        bias_BV = torch.zeros_like(scores)
        for ids, last_S, bias_S in self._by_length(scores):
            before_Sn = ids[:, :-1]
            known = before_Sn.shape[1]
            if known > input_ids.shape[1]:
                continue
            recent_B1n = input_ids[:, None, input_ids.shape[1] - known :]
            matches_BS = (recent_B1n == before_Sn).all(dim=-1)
            bias_BV.index_add_(1, last_S, torch.where(matches_BS, bias_S, 0.0))
        return scores + bias_BV

    def _by_length(self, scores: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Return for each length the sequences [S, length], their last ids [S] and their biases [S]."""
        groups: dict[int, list[tuple[int, ...]]] = {}
        for sequence in self.sequence_bias:
            if max(sequence) >= scores.shape[1]:
                raise InputError(
                    f"{type(self).__name__}: {list(sequence)} holds an id outside the vocabulary of {scores.shape[1]}."
                )
            groups.setdefault(len(sequence), []).append(sequence)
        for sequences in groups.values():
            ids = torch.tensor(sequences, device=scores.device)
            biases = [self.sequence_bias[each] for each in sequences]
            yield ids, ids[:, -1], torch.tensor(biases, dtype=scores.dtype, device=scores.device)


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """Forbid the token that would complete one of `bad_words_ids`, a list of lists of ids.

    A word that is only the end of the text is allowed. Raises InputError for something else than ids.
    """

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Any = None) -> None:
        where = type(self).__name__
        if not isinstance(bad_words_ids, (list, tuple)) or not bad_words_ids:
            raise InputError(f"{where}: expected bad_words_ids to be a list of lists of ids, got {bad_words_ids!r}.")
        words = [_ids_of(where, word) for word in bad_words_ids]
        ends = [] if eos_token_id is None else eos_ids(where, eos_token_id).tolist()
        self.bad_word_ids = bad_words_ids
        self.sequence_bias = {word: FORBIDDEN for word in words if not (len(word) == 1 and word[0] in ends)}


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Forbid `suppress_tokens` at every step."""

    def __init__(self, suppress_tokens: Iterable[int], device: Any = "cpu") -> None:
        self.suppress_tokens = torch.tensor(list(suppress_tokens), dtype=torch.long, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores with the tokens at minus infinity."""
        return filled(type(self).__name__, scores, self.suppress_tokens, FORBIDDEN)


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """Forbid `begin_suppress_tokens` at the step that follows `begin_index` tokens."""

    def __init__(self, begin_suppress_tokens: Iterable[int], begin_index: int, device: Any = "cpu") -> None:
        super().__init__(begin_suppress_tokens, device)
        self.begin_suppress_tokens, self.begin_index = self.suppress_tokens, begin_index

    def set_begin_index(self, begin_index: int) -> None:
        """Say anew after how many tokens the text begins."""
        self.begin_index = begin_index

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, the tokens at minus infinity where the text begins."""
        return super().__call__(input_ids, scores) if input_ids.shape[1] == self.begin_index else scores


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Allow only what `prefix_allowed_tokens_fn(batch item, ids so far [tokens])` lists (De Cao et al. 2021).

    num_beams: the rows of one item. Raises InputError when the function allows nothing.
    """

    def __init__(self, prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]], num_beams: int) -> None:
        self._prefix_allowed_tokens_fn, self._num_beams = prefix_allowed_tokens_fn, num_beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with all other tokens at minus infinity."""
        is_forbidden = torch.ones_like(scores, dtype=torch.bool)
        for row, ids in enumerate(input_ids):
            allowed = self._prefix_allowed_tokens_fn(row // self._num_beams, ids)
            if allowed is None or len(allowed) == 0:
                raise InputError(
                    f"prefix_allowed_tokens_fn allows nothing after {ids.tolist()} (batch item "
                    f"{row // self._num_beams}): return one id or more, such as the end of text."
                )
            try:
                is_forbidden[row, torch.as_tensor(allowed, device=scores.device)] = False
            except IndexError as error:
                raise InputError(
                    f"prefix_allowed_tokens_fn: expected ids from 0 to {scores.shape[1] - 1}, the vocabulary, got "
                    f"{max(allowed)} or less than 0 (batch item {row // self._num_beams})."
                ) from error
        return scores.masked_fill(is_forbidden, FORBIDDEN)


def _pairs(where: str, given: Any) -> list[Any]:
    good = isinstance(given, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], (list, tuple)) for pair in given
    )
    if not good:
        raise InputError(f"{where}: expected pairs of [ids, bias], or a mapping of tuples of ids, got {given!r}.")
    return list(given)


def _ids_of(where: str, ids: Any) -> tuple[int, ...]:
    good = isinstance(ids, (list, tuple)) and all(isinstance(each, int) and each >= 0 for each in ids)
    if not good or not ids:
        raise InputError(f"{where}: expected a sequence of one id or more, got {ids!r}.")
    return tuple(ids)
