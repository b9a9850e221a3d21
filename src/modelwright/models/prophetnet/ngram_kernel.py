"""The n-gram attention as functions of queries, keys, values and the numbers of the buckets.

Every stream attends to the main stream's keys, a predict stream also to its own key, and there to no other: so its
scores are those of the main keys and one more, not those of twice as many keys.

Legend: B batch, G streams that ask, H heads, T query tokens, S main keys, D head size, N buckets, R rows of a product
(some of B, times H), U = S + 1 keys of a query, its own first, W = S + 2. K streams have keys: the main one and those
that predict, so K = G, or G + 1 where the main stream does not ask.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modelwright.models.prophetnet.streams import Diagonals, Places
from modelwright.nn.dropout import Source, seeded_generator, seeded_keep
from modelwright.nn.precision import at_least_float32
from modelwright.nn.products import is_watched

# Scores that are in memory at once: 8 MB in fp32.
_SCORES = 2**21
# Queries that are worked on at once, with the keys up to the last of them, so that of the scores of unseen keys hardly
# any are made. With fewer of them the products are too small.
_QUERIES = 64


@dataclass(frozen=True)
class Whole:
    """What a call of `attend_whole` needs beside its tensors; `seed` None means no dropout."""

    diagonals: Diagonals
    hidden: Tensor | None
    scale: float
    dropout: float
    seed: int | None


def attend_whole(q_BGHTD: Tensor, r_BGHTN: Tensor, k_BKHTD: Tensor, v_BKHTD: Tensor, call: Whole) -> Tensor:
    """Return the attended values (B, G, T, H, D) of a call without a past; no score outlives the call.

    Scores and probabilities are fp32, or wider, whatever the inputs are. The backward computes them again.
    Source: Qi et al. 2020, section 3.2; recomputation: Dao et al. 2022.
    """
    result: Tensor = _AttendWhole.apply(q_BGHTD, r_BGHTN, k_BKHTD, v_BKHTD, call)  # type: ignore[no-untyped-call]
    return result


class _AttendWhole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, r: Tensor, k: Tensor, v: Tensor, call: Whole) -> Tensor:
        ctx.save_for_backward(q, r, k, v)
        ctx.call = call
        B, G, H, T, D = q.shape
        attended = q.new_empty(B, G, T, H, D)
        with torch.autocast(q.device.type, enabled=False):
            for part in _parts(q, r, k, v, call):
                weights_RTU = part.weights()
                keep = part.keep(weights_RTU)
                if keep is not None:
                    weights_RTU.mul_(keep)
                values_RTD = torch.bmm(weights_RTU[:, :, 1:], part.main_v)
                if part.own_v is not None:
                    values_RTD.addcmul_(weights_RTU[:, :, :1], part.own_v)
                values_BHTD = values_RTD.view(-1, H, *values_RTD.shape[1:])
                attended[part.rows, part.stream, part.queries] = values_BHTD.transpose(1, 2)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, r, k, v = ctx.saved_tensors
        dq, dr, dk, dv = (torch.empty_like(x) for x in (q, r, k, v))
        H = q.shape[2]

        def put(target_BHTX: Tensor, x_RTX: Tensor) -> None:
            target_BHTX.copy_(x_RTX.view(-1, H, *x_RTX.shape[1:]))

        with torch.autocast(q.device.type, enabled=False):
            for part in _parts(q, r, k, v, ctx.call):
                rows, queries, scale = part.rows, part.queries, ctx.call.scale
                if part.is_first:
                    main_dk, main_dv = (part.q.new_zeros(len(part.q), *x.shape[3:]) for x in (k, v))
                keys = slice(part.main_k.shape[1])
                grad_RTD = _rows(grad[rows, part.stream, queries].transpose(1, 2))
                weights_RTU = part.weights()
                keep = part.keep(weights_RTU)
                used_RTU = weights_RTU if keep is None else weights_RTU * keep
                main_dv[:, keys] += torch.bmm(used_RTU[:, :, 1:].transpose(1, 2), grad_RTD)
                d_weights = torch.empty_like(weights_RTU)
                d_weights[:, :, 1:] = torch.bmm(grad_RTD, part.main_v.transpose(1, 2))
                if part.own_v is None:
                    d_weights[:, :, 0] = 0
                else:
                    d_weights[:, :, 0] = (grad_RTD * part.own_v).sum(dim=-1)
                    put(dv[rows, part.own, :, queries], grad_RTD * used_RTU[:, :, :1])
                if keep is not None:
                    d_weights.mul_(keep)
                # The fused w * (dw - sum(w * dw)).
                d_RTU = torch._softmax_backward_data(d_weights, weights_RTU, -1, weights_RTU.dtype)
                d_q = torch.bmm(d_RTU[:, :, 1:], part.main_k)
                main_dk[:, keys].add_(torch.bmm(d_RTU[:, :, 1:].transpose(1, 2), part.q), alpha=scale)
                if part.own_k is not None:
                    d_q.addcmul_(d_RTU[:, :, :1], part.own_k)
                    put(dk[rows, part.own, :, queries], (part.q * d_RTU[:, :, :1]).mul_(scale))
                put(dq[rows, part.stream, :, queries], d_q.mul_(scale))
                put(dr[rows, part.stream, :, queries], part.bucket_gradients(d_RTU))
                if part.is_last:
                    put(dk[rows, 0], main_dk)
                    put(dv[rows, 0], main_dv)
        return dq, dr, dk, dv, None


@dataclass(frozen=True)
class _Part:
    """Some queries of one stream of some rows of the batch, and the main keys up to the last of these queries.

    Tensors are in fp32: of the queries (R, T, ...), of the main keys (R, S, ...).
    """

    rows: slice
    queries: slice
    stream: int
    own: int | None  # Where among the streams with keys; None for the main one.
    is_first: bool
    is_last: bool
    q: Tensor
    r: Tensor
    main_k: Tensor
    main_v: Tensor
    own_k: Tensor | None
    own_v: Tensor | None
    call: Whole
    generator: Source | None

    def weights(self) -> Tensor:
        """Return the probabilities (R, T, U)."""
        R, S = self.main_k.shape[:2]
        diagonals = self.call.diagonals
        first = diagonals.closed.shape[1] - S  # The columns before it are of distances that these queries do not reach.
        closed_TW = diagonals.closed[self.place, self.queries, first:].to(self.r)
        buckets_NW = diagonals.buckets[self.place, :, first:].to(self.r)
        # What is added to the scores, by distance, and then a view of it as queries and keys.
        by_distance = torch.baddbmm(closed_TW, self.r, buckets_NW.expand(R, -1, -1))
        scores_RTU = _as_keys(by_distance)
        # Not baddbmm_, which multiplies one by one, three times as slow, where it adds to something with gaps.
        scores_RTU[:, :, 1:].add_(torch.bmm(self.q, self.main_k.transpose(1, 2)), alpha=self.call.scale)
        if self.own_k is None:
            # Not -inf: a query that sees no key gets zeros, never NaN.
            scores_RTU[:, :, 0] = torch.finfo(scores_RTU.dtype).min
        else:
            own_RT = (self.q * self.own_k).sum(dim=-1).mul_(self.call.scale)
            scores_RTU[:, :, 0] = own_RT.add_(self.r[:, :, 0])
        if self.call.hidden is not None:
            hidden_BS = self.call.hidden[self.rows, :S]
            scores_BHTS = scores_RTU.view(len(hidden_BS), -1, *scores_RTU.shape[1:])[..., 1:]
            scores_BHTS.masked_fill_(hidden_BS[:, None, None], float("-inf"))
        return F.softmax(scores_RTU, dim=-1)

    @property
    def place(self) -> int:
        """The number of the stream among all, the main one first."""
        return 0 if self.own is None else self.own

    def keep(self, weights_RTU: Tensor) -> Tensor | None:
        """Return what dropout multiplies the probabilities by, or None."""
        return seeded_keep(weights_RTU, self.call.dropout, self.generator)

    def bucket_gradients(self, d_RTU: Tensor) -> Tensor:
        """Return the gradient (R, T, N) of the numbers of the buckets, given that of the scores."""
        R, T, U = d_RTU.shape
        by_distance_RTW = d_RTU.new_empty(R, T, U + 1)
        by_distance_RTW.view(R, -1)[:, :T] = 0
        scores_RTU = _as_keys(by_distance_RTW)
        scores_RTU.copy_(d_RTU)
        scores_RTU[:, :, 0] = 0
        buckets_NW = self.call.diagonals.buckets[self.place, :, -(U + 1) :].to(d_RTU)
        result_RTN = torch.bmm(by_distance_RTW, buckets_NW.t().expand(R, -1, -1))
        if self.own is not None:
            result_RTN[:, :, 0] += d_RTU[:, :, 0]
        return result_RTN


def _parts(q: Tensor, r: Tensor, k: Tensor, v: Tensor, call: Whole) -> Iterator[_Part]:
    """Yield the work in parts of few enough scores, the streams of the same rows one after the other."""
    B, G, H, T, _ = q.shape
    K = k.shape[1]
    # One stream of numbers for all parts, the same in the forward and in the backward.
    generator = None if call.seed is None else seeded_generator(call.seed, 0, q.device)
    # A GPU would rather do all at once.
    step_T = math.ceil(T / math.ceil(T / _QUERIES)) if q.is_cpu else T
    step_B = max(1, _SCORES // (H * step_T * (T + 2)))
    for start in range(0, B, step_B):
        rows = slice(start, min(start + step_B, B))
        main_k, main_v = _rows(k[rows, 0]), _rows(v[rows, 0])
        for g, first in itertools.product(range(G), range(0, T, step_T)):
            place, last = g + K - G, min(first + step_T, T)
            queries = slice(first, last)
            yield _Part(
                rows=rows,
                queries=queries,
                stream=g,
                own=place or None,
                is_first=g == first == 0,
                is_last=g == G - 1 and last == T,
                q=_rows(q[rows, g, :, queries]),
                r=_rows(r[rows, g, :, queries]),
                main_k=main_k[:, :last],
                main_v=main_v[:, :last],
                own_k=_rows(k[rows, place, :, queries]) if place else None,
                own_v=_rows(v[rows, place, :, queries]) if place else None,
                call=call,
                generator=generator,
            )


def _rows(x_BHTX: Tensor) -> Tensor:
    """(some B, H, T, X) -> (R, T, X), in fp32 or wider, without gaps."""
    return at_least_float32(x_BHTX).reshape(-1, *x_BHTX.shape[2:])


def _as_keys(by_distance_RTW: Tensor) -> Tensor:
    """Return the view (R, T, U) of a tensor (R, T, W) without gaps, whose T queries are the last: see `Diagonals`."""
    R, T, W = by_distance_RTW.shape
    return by_distance_RTW.as_strided((R, T, W - 1), (T * W, W - 1, 1), T)


def attend_by_places(
    q_BGHTD: Tensor,
    r_BGHTN: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    own_k_BPHTD: Tensor,
    own_v_BPHTD: Tensor,
    places: Places,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return the attended values (B, G, T, H, D) and the probabilities (B, H, G, T, 1 + S), a stream's own key first.

    The first G - P streams are main ones and have no own key; its probability is 0. The scores are written out, so this
    is for few queries, and for all that `attend_whole` does not do: a past, the probabilities, second derivatives.
    """
    q_BHGTD, r_BHGTN = q_BGHTD.transpose(1, 2), r_BGHTN.transpose(1, 2)
    B, H, G, T, D = q_BHGTD.shape
    S, P = k_BHSD.shape[2], own_k_BPHTD.shape[1]
    q_BHQD = q_BHGTD.reshape(B, H, G * T, D) * scale
    scores = torch.matmul(q_BHQD, k_BHSD.transpose(2, 3)).view(B, H, G, T, S)
    index_GTS = places.buckets[-G:]
    scores = at_least_float32(scores) + r_BHGTN.gather(-1, index_GTS.expand(B, H, G, T, S))
    if places.visible is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~places.visible[:, :, -G:], lowest)
    predict_BHPTD = q_BHQD.view(B, H, G, T, D)[:, :, G - P :]
    own = (predict_BHPTD * own_k_BPHTD.transpose(1, 2)).sum(dim=-1) + r_BHGTN[:, :, G - P :, :, 0]
    own = F.pad(at_least_float32(own), (0, 0, G - P, 0), value=float("-inf"))
    weights = F.softmax(torch.cat([own[..., None], scores], dim=-1), dim=-1)
    if places.visible is not None:
        # A query that sees no key gets zeros, as from the other kernels.
        seen = places.visible[:, :, -G:].any(dim=-1, keepdim=True)
        seen[:, :, G - P :] = True
        weights = weights * seen
    weights = weights.to(v_BHSD.dtype)
    used = F.dropout(weights, dropout) if dropout else weights
    values = torch.matmul(used[..., 1:].reshape(B, H, G * T, S), v_BHSD).view(B, H, G, T, D)
    predict = values[:, :, G - P :] + used[:, :, G - P :, :, :1] * own_v_BPHTD.transpose(1, 2)
    attended = torch.cat([values[:, :, : G - P], predict], dim=2)
    return attended.permute(0, 2, 3, 1, 4), weights


def suits_one(q_BGHTD: Tensor, places: Places) -> bool:
    """Tell whether `attend_one` takes these: one token that sees all keys, in fp32, and no gradients."""
    sees_all = places.visible is None and q_BGHTD.shape[3] == 1
    return sees_all and q_BGHTD.dtype == torch.float32 and not (torch.is_grad_enabled() or is_watched(q_BGHTD))


def attend_one(
    q_BGH1D: Tensor,
    r_BGH1N: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    own_k_BPH1D: Tensor,
    own_v_BPH1D: Tensor,
    places: Places,
    scale: float,
) -> Tensor:
    """Return the attended values (B, G, 1, H, D) as `attend_by_places` does, for what `suits_one`.

    A decoding step is many small operations, of which this takes half as many.
    """
    tensors = (q_BGH1D, r_BGH1N, own_k_BPH1D, own_v_BPH1D)
    q_BHGD, r_BHGN, own_k_BHPD, own_v_BHPD = (each[:, :, :, 0].transpose(1, 2) for each in tensors)
    B, H, G, D = q_BHGD.shape
    main = G - own_k_BHPD.shape[2]  # How many main streams ask, none or one.
    k_RSD, v_RSD = k_BHSD.flatten(0, 1), v_BHSD.flatten(0, 1)
    scores_BHGU = r_BHGN.gather(-1, places.with_own[-G:].expand(B, H, G, -1))
    # Not baddbmm_, as in `_Part.weights`.
    products_RGS = torch.bmm(q_BHGD.flatten(0, 1), k_RSD.transpose(1, 2))
    scores_BHGU.flatten(0, 1)[..., 1:].add_(products_RGS, alpha=scale)
    scores_BHGU[:, :, main:, 0].add_((q_BHGD[:, :, main:] * own_k_BHPD).sum(dim=-1), alpha=scale)
    scores_BHGU[:, :, :main, 0] = float("-inf")
    weights_BHGU = scores_BHGU.softmax(dim=-1)
    attended_BHGD = torch.bmm(weights_BHGU.flatten(0, 1)[..., 1:], v_RSD).view(B, H, G, D)
    attended_BHGD[:, :, main:].addcmul_(weights_BHGU[:, :, main:, :1], own_v_BHPD)
    return attended_BHGD.transpose(1, 2)[:, :, None]
