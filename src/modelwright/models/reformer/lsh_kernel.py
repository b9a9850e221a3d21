"""LSH attention without stored scores: the pure functions, forward and backward (Kitaev et al. 2020, section 2).

The output is one softmax over the keys of all hash rounds (equation 6 without its count of repeated keys). Each round
gives its own softmax and the logsumexp of its scores; a token's rounds are then weighted by the softmax of their
logsumexps. The backward needs those weights, the output and the sorted order, and neither scores nor round outputs:
the gradient of a score is  weight * p * (grad . v - grad . output),  p being the round's own probability.

Shapes: B batch, L tokens (a multiple of the chunk length), H heads, D head size, E = H*D, N hash rounds, G sequences
(row and head) taken at once, T places that the windows of a round cover, C chunks of a block, Q tokens of a chunk, W of
its window. Tensors are laid out as the projections leave them, (B, L, H*D).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modelwright.models.reformer.local_kernel import Windows
from modelwright.models.reformer.window_kernel import (
    BLOCK_TOKENS,
    add_windows,
    attend_block,
    attend_block_backward,
    block_ranges,
    joined,
    ring_slice,
    windows,
)
from modelwright.models.reformer.windows import MASKED_BIAS, SELF_BIAS
from modelwright.nn.precision import at_least_float32, without_autocast

KEY_EPSILON = 1e-6


def inverse_order(order: Tensor) -> Tensor:
    """Return the inverse of each permutation along the last dimension."""
    places = torch.arange(order.shape[-1], device=order.device, dtype=order.dtype)
    return torch.empty_like(order).scatter_(-1, order.long(), places.expand_as(order))


def key_scale(qk: Tensor) -> Tensor:
    """Return what a shared query-key vector is multiplied by to become a key, (..., 1).

    Keys have length 1 (epsilon inside the mean of squares): the paper's normalised key with attention's 1/sqrt(D)
    folded in, so that scores need no further scale.
    """
    # D times the mean is the sum, which is half of the work.
    scale: Tensor = torch.rsqrt(qk.square().sum(dim=-1, keepdim=True) + KEY_EPSILON * qk.shape[-1])
    return scale


def unit_keys_in_numpy(qk: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `qk * key_scale(qk)` of a few vectors, for which a call of torch costs more than the numbers do."""
    squares = qk[..., None, :] @ qk[..., None]
    squares += KEY_EPSILON * qk.shape[-1]
    keys: npt.NDArray[np.float32] = qk / np.sqrt(squares)[..., 0]
    return keys


def key_scale_backward(grad_keys: Tensor, qk: Tensor, scale: Tensor) -> Tensor:
    """Turn the gradient of the keys `qk * scale`, `scale` being `key_scale(qk)`, into that of `qk`, in place."""
    along = (grad_keys * qk).sum(dim=-1, keepdim=True)
    return grad_keys.addcmul_(qk, scale.square() * along, value=-1.0).mul_(scale)


def score_bias(
    position_CQ: Tensor, position_CW: Tensor, *, causal: bool, key_mask_CW: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return what is added to the scores: a token itself is a last resort, the future and masked keys are ruled out.

    Further leading dimensions of both positions (..., C, Q) and (..., C, W) are kept; the result is (..., C, Q, W).
    """
    if causal and key_mask_CW is None:
        # -1e5 at distance 0, 0 for the past, lower for the future: three passes over one tensor.
        before = (position_CQ.to(dtype) - 1.0).unsqueeze(-1) - position_CW.to(dtype).unsqueeze(-2)
        return before.mul_(-SELF_BIAS).clamp_(MASKED_BIAS, 0.0)
    distance = position_CQ.to(dtype).unsqueeze(-1) - position_CW.to(dtype).unsqueeze(-2)
    bias = torch.zeros_like(distance)
    if causal:
        bias.masked_fill_(distance < 0, MASKED_BIAS)
    if key_mask_CW is not None:
        bias.masked_fill_(~key_mask_CW.unsqueeze(-2), MASKED_BIAS)
    return bias.masked_fill_(distance == 0, SELF_BIAS)


@dataclass(frozen=True)
class _Group:
    """Some sequences (rows and heads of the batch) with what all their rounds share.

    `ids` (G, 1) is the place of each sequence's first vector among the rows of a (B*L*H, D) view, where token t's is
    H*t further: rows are gathered for the sorted order straight from there.
    """

    rows: slice
    heads: slice
    num_heads: int
    ids: Tensor
    order: Tensor
    key_mask: Tensor | None

    def rows_of(self, index_GT: Tensor) -> Tensor:
        """Return the places (G, T) of the vectors of the tokens `index_GT` among the rows of a (B*L*H, D) view."""
        return index_GT * self.num_heads + self.ids

    def take(self, x_BLE: Tensor, rows_GT: Tensor) -> Tensor:
        """Return the vectors at these places, (G, T, D), in fp32 at least; gathered before they are cast."""
        x_RD = x_BLE.view(-1, x_BLE.shape[-1] // self.num_heads)
        return at_least_float32(x_RD.index_select(0, rows_GT.flatten())).view(*rows_GT.shape, -1)

    def put(self, x_BLE: Tensor, rows_GT: Tensor, vectors_GTD: Tensor) -> None:
        """Write vectors to these places, each of which is there once, of a contiguous tensor."""
        x_RD = x_BLE.view(-1, x_BLE.shape[-1] // self.num_heads)
        x_RD.index_copy_(0, rows_GT.flatten(), vectors_GTD.reshape(-1, x_RD.shape[-1]).to(x_RD.dtype))

    def part(self, x_BLE: Tensor) -> Tensor:
        """Return these sequences of a tensor, a view (rows, heads, L, D)."""
        return x_BLE.view(*x_BLE.shape[:2], self.num_heads, -1)[self.rows, :, self.heads].transpose(1, 2)


def _groups(order_BHNL: Tensor, key_mask_BL: Tensor | None) -> Iterator[_Group]:
    """Yield one sequence at a time, or several short ones together."""
    batch, heads, rounds, length = order_BHNL.shape
    row_step = max(1, BLOCK_TOKENS // (length * heads))
    head_step = heads if row_step > 1 else min(heads, max(1, BLOCK_TOKENS // length))
    ids_BH = torch.arange(batch, device=order_BHNL.device).unsqueeze(1) * (length * heads)
    ids_BH = ids_BH + torch.arange(heads, device=order_BHNL.device)
    for row in range(0, batch, row_step):
        for head in range(0, heads, head_step):
            taken = slice(row, row + row_step), slice(head, head + head_step)
            ids_G1 = ids_BH[taken].reshape(-1, 1)
            mask_GL = None
            if key_mask_BL is not None:
                mask_GL = key_mask_BL[ids_G1.squeeze(1) // (length * heads)]
            yield _Group(*taken, heads, ids_G1, order_BHNL[taken].reshape(-1, rounds, length), mask_GL)


@dataclass(frozen=True)
class _Round:
    """One hash round of a group in sorted order: its tokens, the tokens that its windows cover, and all vectors.

    The chunks of all rounds form one ring, so that a round's first chunk sees the last one of the round before:
    `seen` (G, T) is `order` (G, L) with those chunks in front and behind. Of what is seen, `rows` are the places of the
    vectors (see `_Group.rows_of`), `positions` the tokens as numbers of the scores' dtype, and `scale` the keys'
    (see `key_scale`). Vectors, (B, L, H*D) each, are gathered block by block: a block of them stays in cache, and
    nothing of the length of the text is sorted.
    """

    index: int
    group: _Group
    shape: Windows
    order: Tensor
    seen: Tensor
    rows: Tensor
    positions: Tensor
    scale: Tensor
    qk: Tensor
    v: Tensor

    @property
    def own(self) -> slice:
        """Where the round's own tokens are among those that it sees."""
        before = self.shape.num_before * self.shape.chunk_length
        return slice(before, before + self.order.shape[1])

    @property
    def own_rows(self) -> Tensor:
        """The places of the own tokens' vectors, (G, L)."""
        return self.rows[:, self.own]

    def empty(self, *sizes: int) -> Tensor:
        """Return vectors of one head, (*sizes, D), in fp32 at least, with any content."""
        return at_least_float32(self.qk[:0]).new_empty(*sizes, self.qk.shape[-1] // self.group.num_heads)

    def blocks(self) -> Iterator[tuple[int, int, Tensor, tuple[Tensor, ...], dict[str, Any]]]:
        """Yield each block's first and last (excluded) place, the vectors qk of what it sees, and the kernel's input.

        That is q, k, v and bias, and settings.
        """
        groups, length = self.order.shape
        chunk, window, own = self.shape.chunk_length, self.shape.window, self.own.start
        for start, stop in block_ranges(length, chunk, window, groups):
            seen = slice(start, stop + window - chunk)
            rows_GT, position_GT = self.rows[:, seen], self.positions[:, seen]
            qk_GTD, v_GTD = self.group.take(self.qk, rows_GT), self.group.take(self.v, rows_GT)
            mask_CW = None
            if self.group.key_mask is not None:
                mask_CW = windows(self.group.key_mask.gather(1, self.seen[:, seen].long()), chunk, window)
            asks = slice(own, own + stop - start)
            bias_CQW = score_bias(
                position_GT[:, asks].reshape(-1, chunk),
                windows(position_GT, chunk, window),
                causal=self.shape.causal,
                key_mask_CW=mask_CW,
                dtype=position_GT.dtype,
            )
            q_CQD = qk_GTD[:, asks].reshape(-1, chunk, qk_GTD.shape[-1])
            k_CWD, v_CWD = (windows(x, chunk, window) for x in (qk_GTD * self.scale[:, seen], v_GTD))
            first = int(self.group.rows.start) * self.group.num_heads + int(self.group.heads.start)
            block = ((first * self.group.order.shape[1] + self.index) * length + start) // chunk
            generator = self.shape.generator(block, q_CQD.device)
            settings = {"scale": 1.0, "dropout": self.shape.dropout, "generator": generator, "overwrites_bias": True}
            yield start, stop, qk_GTD, (q_CQD, k_CWD, v_CWD, bias_CQW), settings


def _of_vectors(function: Callable[..., Tensor], num_heads: int, *tensors_BLE: Tensor) -> Tensor:
    """Return the function's result for all vectors, (B*L*H, D) each, in fp32 at least; a part at a time, in cache."""
    rows_RD = (x.reshape(-1, x.shape[-1] // num_heads) for x in tensors_BLE)
    parts = zip(*(torch.split(x_RD, num_heads * BLOCK_TOKENS) for x_RD in rows_RD), strict=True)
    return torch.cat([function(*map(at_least_float32, part)) for part in parts])


@dataclass(frozen=True)
class _Texts:
    """The vectors of all sequences, (B, L, H*D) each and contiguous, with the scale of their keys, one a row."""

    qk: Tensor
    v: Tensor
    scale: Tensor

    @classmethod
    def of(cls, qk_BLE: Tensor, v_BLE: Tensor, num_heads: int) -> "_Texts":
        """Return them with their scale."""
        return cls(qk_BLE, v_BLE, _of_vectors(key_scale, num_heads, qk_BLE))

    def rounds(self, group: _Group, shape: Windows) -> Iterator[_Round]:
        """Yield the rounds of a group."""
        groups, rounds, length = group.order.shape
        ring_GR = group.order.reshape(groups, rounds * length)
        for index in range(rounds):
            start = index * length
            seen_GT = ring_slice(ring_GR, *shape.span(start, start + length))
            rows_GT = group.rows_of(seen_GT)
            scale_GT1 = self.scale.index_select(0, rows_GT.flatten()).view(*rows_GT.shape, 1)
            yield _Round(
                index,
                group,
                shape,
                order=ring_GR[:, start : start + length],
                seen=seen_GT,
                rows=rows_GT,
                positions=seen_GT.to(self.scale.dtype),
                scale=scale_GT1,
                qk=self.qk,
                v=self.v,
            )


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=-1)


def _unsort(x_GLD: Tensor, undo_GL: Tensor, into_GLD: Tensor) -> Tensor:
    """Return the vectors in the order of the tokens, in the memory of `into`, without gaps."""
    groups, length, size = x_GLD.shape
    offset_G1 = torch.arange(groups, device=x_GLD.device).unsqueeze(1) * length
    index_R = (undo_GL + offset_G1).flatten()
    torch.index_select(x_GLD.reshape(-1, size), 0, index_R, out=into_GLD.view(-1, size))
    return into_GLD


@without_autocast
def lsh_attention(
    qk_BLE: Tensor,
    v_BLE: Tensor,
    order_BHNL: Tensor,
    key_mask_BL: Tensor | None,
    shape: Windows,
    *,
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend among tokens that `order_BHNL` sorts next to each other, in fp32 at least.

    Returns the output (B, L, H*D) in the dtype of `v`, and the weights of the rounds (B, H, N, L) for the backward. The
    output is written to the contiguous tensor `into` if there is one, which may be `qk`.
    """
    # A group's blocks read each other's places, other groups never do.
    at_once = into is not qk_BLE
    out_BLE = torch.empty_like(v_BLE, memory_format=torch.contiguous_format) if into is None else into
    texts = _Texts.of(qk_BLE.contiguous(), v_BLE.contiguous(), order_BHNL.shape[1])
    weights_BHNL = torch.ones(order_BHNL.shape, dtype=at_least_float32(qk_BLE[:0]).dtype, device=qk_BLE.device)
    room: Tensor | None = None
    for group in _groups(order_BHNL, key_mask_BL):
        rounds = list(texts.rounds(group, shape))
        if len(rounds) == 1:
            for turn in rounds:
                out_GLD = None if at_once else turn.empty(*turn.order.shape)
                for start, stop, _, operands, settings in turn.blocks():
                    out_CQD, _ = attend_block(*operands, **settings)
                    if out_GLD is None:
                        group.put(out_BLE, turn.own_rows[:, start:stop], out_CQD)
                    else:
                        out_GLD[:, start:stop] = out_CQD.view(-1, stop - start, out_GLD.shape[-1])
                if out_GLD is not None:
                    group.put(out_BLE, turn.own_rows, out_GLD)
            continue
        if room is None:  # of the first group, than which none is larger
            room = rounds[0].empty(1 + len(rounds), *rounds[0].order.shape)
        merged_GLD, weights_GNL = _merged(rounds, room[:, : len(rounds[0].order)])
        into_BHLD, kept = group.part(out_BLE), weights_BHNL[group.rows, group.heads]
        into_BHLD.copy_(merged_GLD.view(into_BHLD.shape))
        kept.copy_(weights_GNL.view(kept.shape))
    return out_BLE, weights_BHNL


def _merged(rounds: list[_Round], room: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (G, L, D) of several rounds, in the order of the tokens, and their weights (G, N, L).

    `room`, (1 + N, G, L, D), is memory for one output after the other as it is sorted, and for all as they are not.
    """
    out_GLD, *outs = room
    lses = []
    for turn in rounds:
        lse_GL = out_GLD.new_empty(out_GLD.shape[:2])
        for start, stop, _, operands, settings in turn.blocks():
            out_CQD, lse_CQ = attend_block(*operands, need_lse=True, **settings)
            assert lse_CQ is not None
            out_GLD[:, start:stop] = out_CQD.view(-1, stop - start, out_GLD.shape[-1])
            lse_GL[:, start:stop] = lse_CQ.view(-1, stop - start)
        undo_GL = inverse_order(turn.order)
        _unsort(out_GLD, undo_GL, outs[turn.index])
        lses.append(lse_GL.gather(1, undo_GL.long()))
    weights_GNL = torch.stack(lses, dim=1).softmax(dim=1)
    merged_GLD = outs[0].mul_(weights_GNL[:, 0].unsqueeze(-1))
    for index in range(1, len(rounds)):
        merged_GLD.addcmul_(outs[index], weights_GNL[:, index].unsqueeze(-1))
    return merged_GLD, weights_GNL


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
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `qk` and `v`; `out` and `weights` are what the forward returned.

    `in_place` writes them over `qk` and `v`, which must be contiguous.
    """
    grad_BLE, qk_BLE, v_BLE, out_BLE = (x.contiguous() for x in (grad_BLE, qk_BLE, v_BLE, out_BLE))
    grads_BLE = (qk_BLE, v_BLE) if in_place else (torch.empty_like(qk_BLE), torch.empty_like(v_BLE))
    texts = _Texts.of(qk_BLE, v_BLE, order_BHNL.shape[1])
    rounds = order_BHNL.shape[2]
    room = totals = along_R = None
    if rounds > 1:
        # The product of output and gradient is the same for all rounds but for their weight.
        along_R = _of_vectors(_inner, order_BHNL.shape[1], grad_BLE, out_BLE)
    for group in _groups(order_BHNL, key_mask_BL):
        for turn in texts.rounds(group, shape):
            weight_GL = delta_GL = None
            if along_R is not None:
                weight_GL = weights_BHNL[group.rows, group.heads, turn.index].reshape(turn.order.shape)
                weight_GL = weight_GL.gather(1, turn.order.long())
                delta_GL = along_R.index_select(0, turn.own_rows.flatten()).view(turn.order.shape).mul_(weight_GL)
            if room is None:  # of the first group, than which none is larger
                room = turn.empty(2, *turn.seen.shape)
                totals = turn.empty(3, *turn.order.shape) if rounds > 1 else None
            parts = _attend_round_backward(turn, grad_BLE, weight_GL, delta_GL, room)
            if totals is not None:
                _add_tokens(turn, parts, totals[:, : len(turn.order)])
            else:
                for part_GTD, into in zip(parts, grads_BLE, strict=True):
                    group.put(into, turn.own_rows, _folded(turn, part_GTD))
        if totals is not None:
            for total_GLD, grad in zip(totals[:2], grads_BLE, strict=True):
                into_BHLD = group.part(grad)
                into_BHLD.copy_(total_GLD[: len(group.order)].view(into_BHLD.shape))
    return grads_BLE


def _attend_round_backward(
    turn: _Round, grad_BLE: Tensor, weight_GL: Tensor | None, delta_GL: Tensor | None, room: Tensor
) -> tuple[Tensor, Tensor]:
    """Return one round's gradients of shared queries and keys, and of values, for all places that it sees (G, T, D).

    `weight` is the round's share of each token's output, in the round's order; None is all of it. `room`, (2, G or
    more, T, D), is memory for the gradients.
    """
    chunk, own = turn.shape.chunk_length, turn.own.start
    grad_qk_GTD, grad_v_GTD = room[:, : len(turn.order)]
    shared = turn.shape.window - chunk
    for start, stop, qk_GTD, operands, settings in turn.blocks():
        grad_GLD = turn.group.take(grad_BLE, turn.own_rows[:, start:stop])
        if weight_GL is not None:
            grad_GLD.mul_(weight_GL[:, start:stop].unsqueeze(-1))
        grad_q_CQD, grad_k_CWD, grad_v_CWD = attend_block_backward(
            grad_GLD.view(-1, chunk, grad_GLD.shape[-1]),
            *operands,
            delta_NQ=None if delta_GL is None else delta_GL[:, start:stop].reshape(-1, chunk),
            **settings,
        )
        # What this block's keys give their vectors, and then its queries: each block's share by itself, in cache.
        seen = slice(start, start + qk_GTD.shape[1])
        part_GTD = key_scale_backward(joined(grad_k_CWD, len(qk_GTD), chunk), qk_GTD, turn.scale[:, seen])
        part_GTD[:, own : own + stop - start].add_(grad_q_CQD.view(grad_GLD.shape))
        parts = (grad_qk_GTD[:, seen], part_GTD), (grad_v_GTD[:, seen], joined(grad_v_CWD, len(qk_GTD), chunk))
        for into_GTD, part_GTD in parts:
            if start:  # The block before wrote to the places that both see.
                part_GTD[:, :shared].add_(into_GTD[:, :shared])
            into_GTD.copy_(part_GTD)
    return grad_qk_GTD, grad_v_GTD


def _folded(turn: _Round, x_GTD: Tensor) -> Tensor:
    """Add what the outer chunks of a ring of one round saw to the same tokens within, in place; return those."""
    own = turn.own
    inner_GLD = x_GTD[:, own]
    for place, edge in ((-own.start, slice(0, own.start)), (turn.order.shape[1], slice(own.stop, None))):
        outer_GED = x_GTD[:, edge]
        if outer_GED.shape[1]:
            add_windows(inner_GLD, place, outer_GED.contiguous(), turn.shape.chunk_length)
    return inner_GLD


def _add_tokens(turn: _Round, parts_GTD: tuple[Tensor, Tensor], totals: Tensor) -> None:
    """Add what a round gives to all that it sees to the totals in the order of the tokens; the first begins them.

    `totals`, (3, G, L, D), are that of both parts, and memory for one of a round.
    """
    groups, length = turn.order.shape
    undo_GL, own = inverse_order(turn.order), turn.own
    offset_G1 = torch.arange(groups, device=undo_GL.device).unsqueeze(1) * length
    for total_GLD, x_GTD in zip(totals[:2], parts_GTD, strict=True):
        if turn.index:
            total_GLD.add_(_unsort(x_GTD[:, own], undo_GL, totals[2]))
        else:
            _unsort(x_GTD[:, own], undo_GL, total_GLD)
        for edge in (slice(0, own.start), slice(own.stop, None)):
            # What the outer chunks saw of the rounds before and after: few tokens, some of them twice.
            index_R = (turn.seen[:, edge] + offset_G1).flatten()
            total_GLD.view(-1, x_GTD.shape[-1]).index_add_(0, index_R, x_GTD[:, edge].reshape(-1, x_GTD.shape[-1]))
