"""The scores of the tokens that were chosen, out of the scores of all tokens at each step."""

import torch
from torch import Tensor

from modelwright.core.errors import InputError


def transition_scores(
    sequences: Tensor, scores: tuple[Tensor, ...], beam_indices: Tensor | None, *, normalize_logits: bool
) -> Tensor:
    """Return the score of each new token, [rows, new tokens], 0 after the end of a hypothesis.

    sequences [rows, tokens]; scores: of each step, [rows of the batch that ran, vocabulary]; beam_indices [rows, new
    tokens]: the row of the batch that a token was chosen from, -1 after the end, None if row and row agree.
    normalize_logits: make log probabilities of the scores first. Raises InputError for parts of different runs.
    """
    if beam_indices is None:
        beam_indices = torch.arange(len(sequences), device=sequences.device)[:, None].expand(-1, len(scores))
    new = int((beam_indices >= 0).sum(dim=1).max())
    if new > len(scores) or new > sequences.shape[1]:
        raise InputError(
            f"compute_transition_scores: {new} new tokens, but scores of {len(scores)} steps and sequences of "
            f"{sequences.shape[1]} tokens; pass the parts of one output of generate."
        )
    beam_indices = beam_indices[:, :new]
    tokens = sequences[:, sequences.shape[1] - new :]
    steps = (each.log_softmax(dim=-1) if normalize_logits else each for each in scores[:new])
    chosen = [step[row.clamp(min=0), token] for step, row, token in zip(steps, beam_indices.T, tokens.T, strict=True)]
    return torch.stack(chosen, dim=1).masked_fill(beam_indices < 0, 0.0)
