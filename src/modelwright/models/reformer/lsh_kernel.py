"""LSH attention without stored scores: the pure functions, forward and backward (Kitaev et al. 2020, section 2).

The output is one softmax over the keys of all hash rounds (equation 6 without its count of repeated keys). Each round
gives its own softmax and the logsumexp of its scores; a token's rounds are then weighted by the softmax of their
logsumexps. The backward needs those weights, the output and the sorted order, and neither scores nor round outputs:
the gradient of a score is  weight * p * (grad . v - grad . output),  p being the round's own probability.

Shapes: B batch, L tokens (a multiple of the chunk length), H heads, D head size, E = H*D, N hash rounds, G sequences
(row and head) taken at once, T places that the windows of a round cover, C chunks of a block, Q tokens of a chunk, W of
its window. Tensors are laid out as the projections leave them, (B, L, H*D).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.models.reformer.local_kernel import Windows
from modelwright.models.reformer.window_kernel import (
    BLOCK_TOKENS,
    attend_block,
    attend_block_backward,
    block_ranges,
    fold_windows,
    ring_add,
    ring_slice,
    windows,
)
from modelwright.models.reformer.windows import MASKED_BIAS, SELF_BIAS
from modelwright.nn.precision import at_least_float32, without_autocast

_EPSILON = 1e-6


def inverse_order(order: Tensor) -> Tensor:
    """Return the inverse of each permutation along the last dimension."""
    places = torch.arange(order.shape[-1], device=order.device, dtype=order.dtype)
    return torch.empty_like(order).scatter_(-1, order.long(), places.expand_as(order))


def take_rows(x_GLD: Tensor, index_GT: Tensor) -> Tensor:
    """Return x[g, index[g, t]] for all g and t, as one gather of rows."""
    groups, length, size = x_GLD.shape
    if groups > 1:
        index_GT = index_GT + torch.arange(groups, device=index_GT.device).unsqueeze(1) * length
    return x_GLD.reshape(-1, size).index_select(0, index_GT.flatten()).view(groups, -1, size)


def key_scale(qk: Tensor) -> Tensor:
    """Return what a shared query-key vector is multiplied by to become a key, (..., 1).

    Keys have length 1 (epsilon inside the mean of squares): the paper's normalised key with attention's 1/sqrt(D)
    folded in, so that scores need no further scale.
    """
    scale: Tensor = torch.rsqrt(qk.square().mean(dim=-1, keepdim=True) + _EPSILON) * qk.shape[-1] ** -0.5
    return scale


def key_scale_backward(grad_keys: Tensor, qk: Tensor, scale: Tensor) -> Tensor:
    """Return the gradient of `qk` from that of the keys `qk * key_scale(qk)`."""
    along = (grad_keys * qk).sum(dim=-1, keepdim=True)
    return scale * (grad_keys - qk * (scale.square() * along))


def score_bias(
    position_CQ: Tensor, position_CW: Tensor, *, causal: bool, key_mask_CW: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return what is added to the scores: a token itself is a last resort, the future and masked keys are ruled out.

    Further leading dimensions of both positions (..., C, Q) and (..., C, W) are kept; the result is (..., C, Q, W).
    """
    distance = position_CQ.to(dtype).unsqueeze(-1) - position_CW.to(dtype).unsqueeze(-2)
    if causal and key_mask_CW is None:
        # -1e5 at distance 0, 0 for the past, lower for the future: three passes over one tensor.
        return distance.sub_(1.0).mul_(-SELF_BIAS).clamp_(MASKED_BIAS, 0.0)
    bias = torch.zeros_like(distance)
    if causal:
        bias.masked_fill_(distance < 0, MASKED_BIAS)
    if key_mask_CW is not None:
        bias.masked_fill_(~key_mask_CW.unsqueeze(-2), MASKED_BIAS)
    return bias.masked_fill_(distance == 0, SELF_BIAS)


@dataclass(frozen=True)
class _Group:
    """Some sequences (rows and heads of the batch) with what all their rounds share."""

    rows: slice
    heads: slice
    first: int
    order_GNL: Tensor
    key_mask_GL: Tensor | None

    def load(self, x_BLE: Tensor, num_heads: int) -> Tensor:
        """Return these sequences of a tensor as (G, L, D), in fp32 at least."""
        x_BLHD = x_BLE.view(*x_BLE.shape[:2], num_heads, -1)[self.rows, :, self.heads]
        return at_least_float32(x_BLHD.transpose(1, 2)).reshape(-1, x_BLE.shape[1], x_BLHD.shape[-1]).contiguous()

    def store(self, x_GLD: Tensor, into_BLE: Tensor, num_heads: int) -> None:
        """Write these sequences' part of a result."""
        into = into_BLE.view(*into_BLE.shape[:2], num_heads, -1)[self.rows, :, self.heads].transpose(1, 2)
        into.copy_(x_GLD.view(into.shape))


def _groups(order_BHNL: Tensor, key_mask_BL: Tensor | None) -> Iterator[_Group]:
    """Yield one sequence at a time, or several short ones together."""
    batch, heads, rounds, length = order_BHNL.shape
    row_step = max(1, BLOCK_TOKENS // (length * heads))
    head_step = heads if row_step > 1 else min(heads, max(1, BLOCK_TOKENS // length))
    for row in range(0, batch, row_step):
        for head in range(0, heads, head_step):
            taken = slice(row, row + row_step), slice(head, head + head_step)
            order_GNL = order_BHNL[taken].reshape(-1, rounds, length)
            mask_GL = None
            if key_mask_BL is not None:
                mask_BHL = key_mask_BL[taken[0], None].expand(-1, min(heads, head + head_step) - head, -1)
                mask_GL = mask_BHL.reshape(-1, length)
            yield _Group(*taken, row * heads + head, order_GNL, mask_GL)


@dataclass(frozen=True)
class _Round:
    """One hash round of a group in sorted order: what its tokens are and what they look at."""

    order_GL: Tensor
    seen_GT: Tensor
    start: int
    group: _Group
    shape: Windows

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield each block's first and last (excluded) place, and the settings that forward and backward share."""
        groups, length = self.order_GL.shape
        chunk, window = self.shape.chunk_length, self.shape.window
        for block, (start, stop) in enumerate(block_ranges(length, chunk, groups)):
            seen_GT = self.seen_GT[:, start : start + self.shape.span(0, stop - start)[1] - self.shape.span(0, 0)[0]]
            mask_CW = None
            if self.group.key_mask_GL is not None:
                mask_CW = windows(self.group.key_mask_GL.gather(1, seen_GT.long()), chunk, window)
            bias = score_bias(
                self.order_GL[:, start:stop].reshape(-1, chunk),
                windows(seen_GT, chunk, window),
                causal=self.shape.causal,
                key_mask_CW=mask_CW,
                dtype=dtype,
            )
            index = (self.group.first * self.group.order_GNL.shape[1] * length + self.start + start) // chunk
            generator = self.shape.generator(index, bias.device)
            yield start, stop, {"bias_NQW": bias, "generator": generator, "dropout": self.shape.dropout, "scale": 1.0}

    def windows(self, x_GTD: Tensor, start: int, stop: int) -> Tensor:
        """Return the windows (G*C, W, D) of the chunks from place `start` to `stop`."""
        low, high = self.shape.span(start, stop)
        offset = self.shape.span(0, 0)[0]
        return windows(x_GTD[:, low - offset : high - offset], self.shape.chunk_length, self.shape.window)


def _rounds(group: _Group, shape: Windows) -> Iterator[_Round]:
    """Yield the rounds; their chunks form one ring, so that a round's first chunk sees the last one of another round."""
    groups, rounds, length = group.order_GNL.shape
    ring_GR = group.order_GNL.reshape(groups, rounds * length)
    for start in range(0, rounds * length, length):
        seen_GT = ring_slice(ring_GR, *shape.span(start, start + length))
        yield _Round(ring_GR[:, start : start + length], seen_GT, start, group, shape)


@without_autocast
def lsh_attention(
    qk_BLE: Tensor, v_BLE: Tensor, order_BHNL: Tensor, key_mask_BL: Tensor | None, shape: Windows
) -> tuple[Tensor, Tensor]:
    """Attend among tokens that `order_BHNL` sorts next to each other, in fp32 at least.

    Returns the output (B, L, H*D) in the dtype of `v`, and the weights of the rounds (B, H, N, L) for the backward.
    """
    batch, heads, rounds, length = order_BHNL.shape
    out_BLE = torch.empty_like(v_BLE, memory_format=torch.contiguous_format)
    weights_BHNL = torch.ones(order_BHNL.shape, dtype=at_least_float32(qk_BLE[:0]).dtype, device=qk_BLE.device)
    for group in _groups(order_BHNL, key_mask_BL):
        qk_GLD, v_GLD = group.load(qk_BLE, heads), group.load(v_BLE, heads)
        keys_GLD = qk_GLD * key_scale(qk_GLD)
        outs, lses = [], []
        for turn in _rounds(group, shape):
            out_GLD, lse_GL = _attend_round(turn, qk_GLD, keys_GLD, v_GLD, need_lse=rounds > 1)
            undo_GL = inverse_order(turn.order_GL)
            outs.append(take_rows(out_GLD, undo_GL))
            if lse_GL is not None:
                lses.append(lse_GL.gather(1, undo_GL.long()))
        if rounds == 1:
            group.store(outs[0], out_BLE, heads)
            continue
        weights_GNL = torch.stack(lses, dim=1).softmax(dim=1)
        merged_GLD = outs[0].mul_(weights_GNL[:, 0].unsqueeze(-1))
        for index in range(1, rounds):
            merged_GLD.addcmul_(outs[index], weights_GNL[:, index].unsqueeze(-1))
        group.store(merged_GLD, out_BLE, heads)
        kept = weights_BHNL[group.rows, group.heads]
        kept.copy_(weights_GNL.view(kept.shape))
    return out_BLE, weights_BHNL


def _attend_round(
    turn: _Round, qk_GLD: Tensor, keys_GLD: Tensor, v_GLD: Tensor, *, need_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Return one round's output (G, L, D) and logsumexp (G, L), in sorted order."""
    q_GLD = take_rows(qk_GLD, turn.order_GL)
    k_GTD, v_GTD = take_rows(keys_GLD, turn.seen_GT), take_rows(v_GLD, turn.seen_GT)
    chunk, size = turn.shape.chunk_length, q_GLD.shape[-1]
    out_GLD = torch.empty_like(q_GLD)
    lse_GL = q_GLD.new_empty(q_GLD.shape[:2]) if need_lse else None
    for start, stop, settings in turn.blocks(qk_GLD.dtype):
        out_CQD, lse_CQ = attend_block(
            q_GLD[:, start:stop].reshape(-1, chunk, size),
            turn.windows(k_GTD, start, stop),
            turn.windows(v_GTD, start, stop),
            need_lse=need_lse,
            **settings,
        )
        out_GLD[:, start:stop] = out_CQD.view(-1, stop - start, size)
        if lse_GL is not None and lse_CQ is not None:
            lse_GL[:, start:stop] = lse_CQ.view(-1, stop - start)
    return out_GLD, lse_GL


@without_autocast
def lsh_attention_backward(
    grad_BLE: Tensor,
    qk_BLE: Tensor,
    v_BLE: Tensor,
    order_BHNL: Tensor,
    key_mask_BL: Tensor | None,
    out_BLE: Tensor,
    weights_BHNL: Tensor,
    shape: Windows,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `qk` and `v`; `out` and `weights` are what the forward returned."""
    heads, rounds = order_BHNL.shape[1:3]
    grad_qk_BLE, grad_v_BLE = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (qk_BLE, v_BLE))
    for group in _groups(order_BHNL, key_mask_BL):
        qk_GLD, v_GLD, grad_GLD = (group.load(x, heads) for x in (qk_BLE, v_BLE, grad_BLE))
        scale_GL1 = key_scale(qk_GLD)
        keys_GLD = qk_GLD * scale_GL1
        weights_GNL = delta_GL1 = None
        if rounds > 1:
            weights_GNL = weights_BHNL[group.rows, group.heads].reshape(-1, *weights_BHNL.shape[2:])
            delta_GL1 = (grad_GLD * group.load(out_BLE, heads)).sum(dim=-1, keepdim=True)
        totals = tuple(torch.zeros_like(qk_GLD) for _ in range(3))
        for index, turn in enumerate(_rounds(group, shape)):
            share_GLD, share_GL1 = grad_GLD, delta_GL1
            if weights_GNL is not None and delta_GL1 is not None:
                weight_GL1 = weights_GNL[:, index].unsqueeze(-1)
                share_GLD, share_GL1 = grad_GLD * weight_GL1, delta_GL1 * weight_GL1
            _attend_round_backward(turn, share_GLD, share_GL1, qk_GLD, keys_GLD, v_GLD, totals)
        grad_q_GLD, grad_keys_GLD, grad_v_GLD = totals
        group.store(grad_q_GLD.add_(key_scale_backward(grad_keys_GLD, qk_GLD, scale_GL1)), grad_qk_BLE, heads)
        group.store(grad_v_GLD, grad_v_BLE, heads)
    return grad_qk_BLE, grad_v_BLE


def _attend_round_backward(
    turn: _Round,
    grad_GLD: Tensor,
    delta_GL1: Tensor | None,
    qk_GLD: Tensor,
    keys_GLD: Tensor,
    v_GLD: Tensor,
    totals: tuple[Tensor, ...],
) -> None:
    """Add one round's gradients of queries, keys and values (G, L, D), in the order of the tokens, to `totals`."""
    shape, groups, length, size = turn.shape, *qk_GLD.shape
    q_GLD, g_GLD = take_rows(qk_GLD, turn.order_GL), take_rows(grad_GLD, turn.order_GL)
    k_GTD, v_GTD = take_rows(keys_GLD, turn.seen_GT), take_rows(v_GLD, turn.seen_GT)
    delta_GL = None if delta_GL1 is None else take_rows(delta_GL1, turn.order_GL).squeeze(-1)
    grad_q_GLD = torch.empty_like(q_GLD)
    grad_k_GTD, grad_v_GTD = torch.zeros_like(k_GTD), torch.zeros_like(v_GTD)
    for start, stop, settings in turn.blocks(qk_GLD.dtype):
        grad_q_CQD, *grads_CWD = attend_block_backward(
            g_GLD[:, start:stop].reshape(-1, shape.chunk_length, size),
            q_GLD[:, start:stop].reshape(-1, shape.chunk_length, size),
            turn.windows(k_GTD, start, stop),
            turn.windows(v_GTD, start, stop),
            delta_NQ=None if delta_GL is None else delta_GL[:, start:stop].reshape(-1, shape.chunk_length),
            **settings,
        )
        grad_q_GLD[:, start:stop] = grad_q_CQD.view(groups, stop - start, size)
        for total_GTD, grad_CWD in zip((grad_k_GTD, grad_v_GTD), grads_CWD, strict=True):
            ring_add(total_GTD, start, fold_windows(grad_CWD, groups, shape.chunk_length))
    undo_GL = inverse_order(turn.order_GL)
    totals[0].add_(take_rows(grad_q_GLD, undo_GL))
    before = shape.num_before * shape.chunk_length
    flat_G1 = torch.arange(groups, device=qk_GLD.device).unsqueeze(1) * length
    for total_GLD, grad_GTD in ((totals[1], grad_k_GTD), (totals[2], grad_v_GTD)):
        total_GLD.add_(take_rows(grad_GTD[:, before : before + length], undo_GL))
        for edge in (slice(0, before), slice(before + length, None)):
            # What the outer chunks saw of the rounds before and after.
            index = (turn.seen_GT[:, edge] + flat_G1).flatten()
            total_GLD.view(-1, size).index_add_(0, index, grad_GTD[:, edge].reshape(-1, size))
