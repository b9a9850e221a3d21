"""What beam search remembers: hypotheses that run on, and the best finished ones, of one group of beams.

Legend: B batch items, K beams of the group, C candidates of a step, V vocabulary, T tokens so far (prompt included),
N new tokens so far. Scores are sums of log probabilities; those of finished hypotheses are divided by N ** penalty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The score of what must not be chosen. Finite, so that it stays apart from tokens at minus infinity: when a processor
# allows one token only, the second beam takes that token again, and not a forbidden one.
DEAD = -1e9
# Below every hypothesis, those of dead beams too: a place where none has finished yet, and a candidate that has not.
_EMPTY = torch.finfo(torch.float32).min / 2
_UNFINISHED = torch.finfo(torch.float32).min


@dataclass
class Hypotheses:
    """Token ids [B, K, T], scores [B, K], and for each new token the row of the batch it was chosen from [B, K, N]."""

    ids: Tensor
    scores: Tensor
    rows: Tensor

    def take(self, index_BJ: Tensor) -> "Hypotheses":
        """Return the hypotheses that the index names for each item."""
        wide = index_BJ[..., None]
        return Hypotheses(
            self.ids.take_along_dim(wide, dim=1),
            self.scores.gather(1, index_BJ),
            self.rows.take_along_dim(wide, dim=1),
        )

    def grown(self, tokens: Tensor | int, rows: Tensor | int) -> "Hypotheses":
        """Return the hypotheses with one more token, and row, each ([B, K], or one number for all)."""
        return Hypotheses(_appended(self.ids, tokens), self.scores, _appended(self.rows, rows))

    def joined(self, other: "Hypotheses") -> "Hypotheses":
        """Return these and the others, side by side."""
        return Hypotheses(
            torch.cat([self.ids, other.ids], dim=1),
            torch.cat([self.scores, other.scores], dim=1),
            torch.cat([self.rows, other.rows], dim=1),
        )


@dataclass(frozen=True)
class BeamRules:
    """When a finished hypothesis is better, and when no better one can come.

    early_stopping: True stops as soon as each beam's place holds a finished hypothesis; False when the best running
    score, at its present length, does not reach the worst finished one; "never" when it could not at any length up to
    `most_new` tokens. with_ended: the best score looks at candidates that have just ended, too: the rule of 4.37, by
    which diverse groups were made. end_ids [ends]: the ids that end a text.
    """

    length_penalty: float
    early_stopping: bool | str
    most_new: int
    with_ended: bool
    end_ids: Tensor
    pad_id: int

    def score(self, sums: Tensor, new: int) -> Tensor:
        """Return the scores of hypotheses of `new` tokens, given their summed log probabilities."""
        return sums / float(new**self.length_penalty)

    def best_to_come(self, sums: Tensor, new: int) -> Tensor:
        """Return what the running hypotheses may still score, by the rule of `early_stopping`."""
        longest = self.early_stopping == "never" and self.length_penalty > 0
        return self.score(sums, self.most_new if longest else new)


class BeamGroup:
    """A search of its own for each item: K beams that run on, and the K best that are finished."""

    def __init__(self, prompt_BKT: Tensor, rules: BeamRules, rows_BK: Tensor) -> None:
        """Begin from a prompt that all beams of an item share; `rows_BK` are the beams' rows in the batch."""
        items, beams = rows_BK.shape
        self.rules, self._rows_BK = rules, rows_BK
        scores_BK = torch.zeros(items, beams, device=prompt_BKT.device)
        no_rows = rows_BK.new_empty(items, beams, 0)
        # All beams of an item begin alike: with the first one alone alive, each takes another token.
        first = scores_BK.clone()
        first[:, 1:] = DEAD
        self.running = Hypotheses(prompt_BKT, first, no_rows)
        self.finished = Hypotheses(prompt_BKT, scores_BK + _EMPTY, no_rows)
        self._is_finished_BK = torch.zeros_like(scores_BK, dtype=torch.bool)
        self.is_over_B = torch.zeros(items, dtype=torch.bool, device=prompt_BKT.device)

    def step(
        self,
        scores_BKV: Tensor,
        choose: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
        ends: Callable[[Tensor], Tensor],
    ) -> None:
        """Let each beam go on by one token, given the log probabilities of all.

        choose: log probabilities [B, K, V], what each beam had before [B, K], and a number C -> C sums of both and
        their places in [B, K * V]. ends: ids [rows, T] -> whether a row ends.
        """
        beams, vocabulary = scores_BKV.shape[1:]
        # If all the best ones end, there must be enough others to go on with.
        count = min(max(2, 1 + len(self.rules.end_ids)) * beams, beams * vocabulary)
        sums_BC, place_BC = choose(scores_BKV, self.running.scores, count)
        beam_BC = place_BC // vocabulary
        candidates = self.running.take(beam_BC).grown(place_BC % vocabulary, self._rows_BK.gather(1, beam_BC))
        candidates.scores = sums_BC
        ends_BC = ends(candidates.ids.flatten(0, 1)).view_as(place_BC)
        self._keep_finished(candidates, ends_BC)
        # Where nothing can go on, what does not end the text comes first, and better before worse: the tokens of this
        # group are what the next one must differ from.
        is_end_BC = torch.isin(candidates.ids[..., -1], self.rules.end_ids)
        candidates.scores = torch.where(ends_BC, torch.where(is_end_BC, 2 * DEAD, DEAD), sums_BC)
        self.running = candidates.take(candidates.scores.argsort(dim=1, descending=True, stable=True)[:, :beams])
        self._look_ahead(sums_BC.amax(dim=1) if self.rules.with_ended else self.running.scores[:, 0], ends_BC)

    def _keep_finished(self, candidates: Hypotheses, ends_BC: Tensor) -> None:
        """Let the candidates that end and are among the best K take the places of worse finished ones."""
        beams = self.finished.scores.shape[1]
        good_BC = ends_BC & ~self.is_over_B[:, None]
        good_BC[:, beams:] = False
        scores_BC = self.rules.score(candidates.scores, candidates.rows.shape[2])
        ended = Hypotheses(candidates.ids, torch.where(good_BC, scores_BC, _UNFINISHED), candidates.rows)
        both = self.finished.grown(self.rules.pad_id, -1).joined(ended)
        best_BK = both.scores.topk(beams, dim=1).indices
        self.finished = both.take(best_BK)
        self._is_finished_BK = torch.cat([self._is_finished_BK, good_BC], dim=1).gather(1, best_BK)

    def _look_ahead(self, best_B: Tensor, ends_BC: Tensor) -> None:
        """Note the items whose finished hypotheses will not change any more."""
        all_finished_B = self._is_finished_BK.all(dim=1)
        to_come_B = self.rules.best_to_come(best_B, self.running.rows.shape[2])
        over_B = all_finished_B & (to_come_B <= self.finished.scores.amin(dim=1))
        if self.rules.early_stopping is True:
            over_B = over_B | all_finished_B
        self.is_over_B = self.is_over_B | over_B | ends_BC.all(dim=1)


def _appended(values_BKT: Tensor, last: Tensor | int) -> Tensor:
    if isinstance(last, int):
        last = values_BKT.new_full(values_BKT.shape[:2], last)
    return torch.cat([values_BKT, last[..., None]], dim=2)
