"""What both attention types share: cutting a sequence into chunks that look at their neighbours, and attending there.

Shapes: G independent sequences (batch x heads), C chunks, Q tokens of a chunk, W tokens of its window, D head size.
The chunks form a ring, as in the original: the first looks back at the last. What a causal mask does not forbid there
is part of what trained checkpoints learned.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modelwright.nn.dropout import seeded_dropout
from modelwright.nn.precision import at_least_float32

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


class _SoftmaxWithLogSumExp(torch.autograd.Function):
    """Softmax and logsumexp of the same scores, saving only the probabilities for the gradient of both."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> tuple[Tensor, Tensor]:
        probs = scores.softmax(dim=-1)
        ctx.save_for_backward(probs)
        return probs, scores.logsumexp(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_probs: Tensor, grad_lse: Tensor) -> Tensor:
        (probs,) = ctx.saved_tensors
        grad = grad_probs * probs
        mean = grad.sum(dim=-1, keepdim=True)
        scores_grad: Tensor = grad.addcmul_(probs, grad_lse.unsqueeze(-1) - mean)
        return scores_grad


def attend_in_windows(
    q_GCQD: Tensor,
    k_GCWD: Tensor,
    v_GCWD: Tensor,
    bias_GCQW: Tensor | None,
    *,
    dropout: float,
    generator: torch.Generator | None,
    head_scale_G: Tensor | None,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Attend from each chunk to its window; return the output (G, C, Q, D), logsumexp (G, C, Q) and probabilities.

    `bias_GCQW` is added to the scores and broadcasts; the scores are not scaled here. `head_scale_G` multiplies the
    probabilities (a head mask). Softmax and logsumexp are in fp32 whatever the dtype of q.
    """
    scores = torch.matmul(q_GCQD, k_GCWD.transpose(-1, -2))
    scores = at_least_float32(scores)
    if bias_GCQW is not None:
        scores = scores.add_(bias_GCQW)
    lse = None
    if need_lse:
        probs, lse = _SoftmaxWithLogSumExp.apply(scores)  # type: ignore[no-untyped-call]
    else:
        probs = F.softmax(scores, dim=-1)
    probs = seeded_dropout(probs, dropout, generator)
    if head_scale_G is not None:
        probs = probs * head_scale_G[:, None, None, None]
    return torch.matmul(probs.to(v_GCWD.dtype), v_GCWD), lse, probs


def split_heads(x_BLE: Tensor, num_heads: int) -> Tensor:
    """(B, L, H*D) -> (B, H, L, D)."""
    batch, length, width = x_BLE.shape
    return x_BLE.view(batch, length, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x_BHLD: Tensor) -> Tensor:
    """(B, H, L, D) -> (B, L, H*D)."""
    return x_BHLD.transpose(1, 2).flatten(2)
