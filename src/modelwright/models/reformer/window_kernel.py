"""Attention from chunks of queries to overlapping windows of keys, one cache-sized block at a time, with its gradient.

A block's scores live only inside these functions: nothing of the size of all scores is ever stored.

Shapes: N chunks of the block, Q tokens of a chunk, W tokens of its window, D head size, R rows (batch x heads),
T tokens that the block's windows cover.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from modelwright.nn.dropout import Source, seeded_keep

# Tokens of one block whose windows are two chunks (wider ones make shorter blocks): its scores stay in cache.
BLOCK_TOKENS = 2048


def block_ranges(length: int, chunk_length: int, window: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last (excluded) token of each block of whole chunks, `rows` rows being taken at once."""
    step = max(1, 2 * BLOCK_TOKENS // (window * rows)) * chunk_length
    for start in range(0, length, step):
        yield start, min(start + step, length)


def ring_slice(x: Tensor, start: int, stop: int, dim: int = 1) -> Tensor:
    """Return places `start` to `stop` of a dimension that closes to a ring; a view unless the range runs over the end.

    A range longer than the ring repeats it, as chunks do that look further than the sequence is long.
    """
    length = x.shape[dim]
    if start >= 0 and stop <= length:
        return x.narrow(dim, start, stop - start)
    parts, place = [], start
    while place < stop:
        inside = place % length
        step = min(stop - place, length - inside)
        parts.append(x.narrow(dim, inside, step))
        place += step
    return torch.cat(parts, dim=dim)


def windows(x_RT: Tensor, chunk_length: int, window: int) -> Tensor:
    """Return the windows (R*N, W, ...) that start every `chunk_length` places of dimension 1; a view if R is 1."""
    unfolded = x_RT.unfold(1, window, chunk_length)  # (R, N, ..., W)
    if x_RT.dim() == 3:
        unfolded = unfolded.transpose(2, 3)
    return unfolded.flatten(0, 1)


def add_windows(total_RLD: Tensor, start: int, grad_NWD: Tensor, chunk_length: int) -> None:
    """Add windows (R*N, W, D), the first of which starts at place `start` of a ring along dimension 1, in place.

    This is the gradient of `windows(ring_slice(...))`. All windows' first chunks are added at once, then their second
    ones, and so on.
    """
    rows, length, size = total_RLD.shape
    parts = grad_NWD.view(rows, -1, grad_NWD.shape[1] // chunk_length, chunk_length, size)
    for index in range(parts.shape[2]):
        part_RTD = parts[:, :, index].reshape(rows, -1, chunk_length, size)
        place, taken = start + index * chunk_length, 0
        while taken < part_RTD.shape[1]:
            inside = (place + taken * chunk_length) % length
            count = min(part_RTD.shape[1] - taken, (length - inside) // chunk_length)
            into_RTD = total_RLD[:, inside : inside + count * chunk_length]
            into_RTD.view(rows, count, chunk_length, size).add_(part_RTD[:, taken : taken + count])
            taken += count


def joined(grad_NWD: Tensor, rows: int, chunk_length: int) -> Tensor:
    """Add up windows (R*N, W, D) where they overlap, (R, T, D): the gradient of `windows`."""
    parts = grad_NWD.view(rows, -1, grad_NWD.shape[1] // chunk_length, chunk_length, grad_NWD.shape[2])
    count, after = parts.shape[1], parts.shape[2] - 1
    total = parts.new_empty(rows, count + after, *parts.shape[3:])
    total[:, :count] = parts[:, :, 0]
    total[:, count:] = 0.0
    for index in range(1, after + 1):
        total[:, index : index + count].add_(parts[:, :, index])
    return total.flatten(1, 2)


def _scores(q_NQD: Tensor, k_NWD: Tensor, bias_NQW: Tensor, scale: float, overwrites_bias: bool) -> Tensor:
    multiply = bias_NQW.baddbmm_ if overwrites_bias else bias_NQW.baddbmm
    return multiply(q_NQD, k_NWD.transpose(1, 2), alpha=scale)


def _probabilities(scores_NQW: Tensor) -> Tensor:
    """Return the softmax of the scores, in their memory: another block of that size would push them out of cache."""
    return torch.softmax(scores_NQW, dim=-1, out=scores_NQW)


def attend_block(
    q_NQD: Tensor,
    k_NWD: Tensor,
    v_NWD: Tensor,
    bias_NQW: Tensor,
    *,
    scale: float,
    dropout: float,
    generator: Source | None,
    overwrites_bias: bool = False,
    need_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the output (N, Q, D) and, if asked, the logsumexp (N, Q) of the scores q k^T scale + bias.

    `overwrites_bias`: the scores may take its place.
    """
    scores_NQW = _scores(q_NQD, k_NWD, bias_NQW, scale, overwrites_bias)
    top_NQ = scores_NQW.amax(dim=-1) if need_lse else None
    probs_NQW = _probabilities(scores_NQW)
    # The largest probability is exp(largest score - logsumexp): no second pass of exponentials.
    lse_NQ = None if top_NQ is None else top_NQ - probs_NQW.amax(dim=-1).log()
    keep = seeded_keep(probs_NQW, dropout, generator)
    if keep is not None:
        probs_NQW = probs_NQW.mul_(keep)
    return torch.bmm(probs_NQW, v_NWD), lse_NQ


def attend_block_backward(
    grad_NQD: Tensor,
    q_NQD: Tensor,
    k_NWD: Tensor,
    v_NWD: Tensor,
    bias_NQW: Tensor,
    *,
    scale: float,
    dropout: float,
    generator: Source | None,
    overwrites_bias: bool = False,
    delta_NQ: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q (N, Q, D), and of k and v per window (N, W, D).

    If the softmax of which these scores are a part has other parts (hash rounds), `grad` carries this part's share of
    it and `delta` the inner product of the whole output and its gradient, times that share.
    """
    probs_NQW = _probabilities(_scores(q_NQD, k_NWD, bias_NQW, scale, overwrites_bias))
    grad_probs_NQW = torch.bmm(grad_NQD, v_NWD.transpose(1, 2))
    keep = seeded_keep(probs_NQW, dropout, generator)
    if keep is None:
        grad_v_NWD = torch.bmm(probs_NQW.transpose(1, 2), grad_NQD)
    else:
        grad_probs_NQW = grad_probs_NQW.mul_(keep)
        grad_v_NWD = torch.bmm((probs_NQW * keep).transpose(1, 2), grad_NQD)
    if delta_NQ is None:
        grad_scores = torch._softmax_backward_data(grad_probs_NQW, probs_NQW, -1, probs_NQW.dtype)
    else:
        grad_scores = grad_probs_NQW.sub_(delta_NQ.unsqueeze(-1)).mul_(probs_NQW)
    grad_q_NQD = torch.bmm(grad_scores, k_NWD)
    grad_k_NWD = torch.bmm(grad_scores.transpose(1, 2), q_NQD)
    if scale != 1.0:
        grad_q_NQD, grad_k_NWD = grad_q_NQD.mul_(scale), grad_k_NWD.mul_(scale)
    return grad_q_NQD, grad_k_NWD, grad_v_NWD
