"""What both attention types share: cutting a sequence into chunks that look at their neighbours, and attending there.

Shapes: G independent sequences (batch x heads), C chunks, Q tokens of a chunk, W tokens of its window, D head size.
The chunks form a ring, as in the original: the first looks back at the last. What a causal mask does not forbid there
is part of what trained checkpoints learned.

This is the plain form, which stores all probabilities because the caller wants them; `window_kernel` is the lean one.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from modelwright.nn.dropout import Source, seeded_dropout
from modelwright.nn.precision import at_least_float32
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer

# Added to a score: the first is beyond every real score, the second beyond the first, so that a token which sees
# nothing else sees itself, and masked keys only where there is nothing at all. Both are added in fp32.
SELF_BIAS = -1e5
MASKED_BIAS = -1e9


def look_around(chunks_GCQ: Tensor, num_before: int, num_after: int) -> Tensor:
    """Return each chunk's window (G, C, W, ...): `num_before` chunks, itself, `num_after` chunks, along dimension 2."""
    if num_before == num_after == 0:
        return chunks_GCQ
    shifts = [
        chunks_GCQ.roll(-offset, dims=1) if offset else chunks_GCQ for offset in range(-num_before, num_after + 1)
    ]
    return torch.cat(shifts, dim=2)


def attend_in_windows(
    q_GCQD: Tensor,
    k_GCWD: Tensor,
    v_GCWD: Tensor,
    bias_GCQW: Tensor | None,
    *,
    dropout: float,
    generator: Source | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend from each chunk to its window; return the output (G, C, Q, D), logsumexp (G, C, Q) and probabilities.

    `bias_GCQW` is added to the scores and broadcasts; the scores are not scaled here. Softmax and logsumexp are in fp32
    whatever the dtype of q.
    """
    scores = at_least_float32(torch.matmul(q_GCQD, k_GCWD.transpose(-1, -2)))
    if bias_GCQW is not None:
        scores = scores + bias_GCQW
    probs = seeded_dropout(scores.softmax(dim=-1), dropout, generator)
    return torch.matmul(probs.to(v_GCWD.dtype), v_GCWD), scores.logsumexp(dim=-1), probs


def pruned(
    module: nn.Module, projections: Sequence[str], heads: Sequence[bool], gone: Iterable[int]
) -> tuple[list[bool], Tensor]:
    """Cut heads out of a self-attention's projections; return which are left, and the indices of the old output.

    `heads` tells which of the original heads were left; `gone` are numbered among the original ones.
    """
    already = {head for head, left in enumerate(heads) if not left}
    width = getattr(module, projections[0]).weight.shape[0]
    new, index = find_pruneable_heads_and_indices(gone, sum(heads), width // sum(heads), already)
    if new:
        for name in projections:
            setattr(module, name, prune_linear_layer(getattr(module, name), index))
    return [left and head not in new for head, left in enumerate(heads)], index


def split_heads(x_BLE: Tensor, num_heads: int) -> Tensor:
    """(B, L, H*D) -> (B, H, L, D)."""
    batch, length, width = x_BLE.shape
    return x_BLE.view(batch, length, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x_BHLD: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, H*D)."""
    return x_BHLD.transpose(1, 2).flatten(2)
