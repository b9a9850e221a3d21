"""LSH self-attention: shared queries and keys, sorted by hash, attending within chunks (Kitaev et al. 2020, section 2).

Shapes: B batch, L tokens, H heads, D head size, N hash rounds, G = B*H, C chunks of all rounds together, Q tokens of a
chunk, W tokens of its window, E hidden size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modelwright.models.reformer import hashing
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.windows import (
    MASKED_BIAS,
    SELF_BIAS,
    attend_in_windows,
    look_around,
    merge_heads,
    split_heads,
)
from modelwright.nn.precision import at_least_float32


class _Permute(torch.autograd.Function):
    """Gather rows by indices whose inverse is known, so that the gradient is a gather too and needs no scatter.

    rows_RD (R = G*L), order_GNL token indices -> (G, N*L, D). `undo_GNL` holds each token's place in its round.
    """

    @staticmethod
    def forward(ctx: Any, rows_GLD: Tensor, order_GNL: Tensor, undo_GNL: Tensor) -> Tensor:
        ctx.save_for_backward(undo_GNL)
        return _take(rows_GLD.unsqueeze(1), order_GNL)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_GNLD: Tensor) -> tuple[Tensor, None, None]:
        (undo_GNL,) = ctx.saved_tensors
        return _take(grad_GNLD, undo_GNL).sum(dim=1), None, None


class _Unpermute(torch.autograd.Function):
    """The way back: (G, N, L, D) in sorted order -> in the order of the tokens."""

    @staticmethod
    def forward(ctx: Any, sorted_GNLD: Tensor, order_GNL: Tensor, undo_GNL: Tensor) -> Tensor:
        ctx.save_for_backward(order_GNL)
        return _take(sorted_GNLD, undo_GNL)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_GNLD: Tensor) -> tuple[Tensor, None, None]:
        (order_GNL,) = ctx.saved_tensors
        return _take(grad_GNLD, order_GNL), None, None


def _take(x_GNLD: Tensor, index_GNL: Tensor) -> Tensor:
    """x[g, n, index[g, n, l]] for all g, n, l, as one gather of rows; a size-1 N of x serves every round."""
    groups, rounds, length = index_GNL.shape
    per_group = x_GNLD.shape[1]
    base = torch.arange(groups * per_group, device=index_GNL.device, dtype=torch.int64) * length
    rows = index_GNL + base.view(groups, per_group, 1)
    taken = x_GNLD.reshape(-1, x_GNLD.shape[-1]).index_select(0, rows.flatten())
    return taken.view(groups, rounds, length, -1)


def _invert(order_GNL: Tensor) -> Tensor:
    """Return the inverse of each permutation along the last dimension."""
    places = torch.arange(order_GNL.shape[-1], device=order_GNL.device, dtype=order_GNL.dtype)
    return torch.empty_like(order_GNL).scatter_(-1, order_GNL.long(), places.expand_as(order_GNL))


def unit_keys(qk: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return the keys of shared query-key vectors: scaled to length 1 (epsilon inside the mean of squares), in fp32.

    This is the normalised key of the paper with attention's 1/sqrt(D) folded in: scores need no further scale.
    """
    x = at_least_float32(qk)
    inverse = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + epsilon) * qk.shape[-1] ** -0.5
    keys: Tensor = x * inverse
    return keys.to(qk.dtype)


def _score_bias(position_GCQ: Tensor, position_GCW: Tensor, *, causal: bool, key_mask_GCW: Tensor | None) -> Tensor:
    """Return what is added to the scores: a token itself is a last resort, the future and masked keys are ruled out."""
    distance = position_GCQ.float().unsqueeze(-1) - position_GCW.float().unsqueeze(-2)
    if causal and key_mask_GCW is None:
        # -1e5 at distance 0, 0 for the past, lower for the future: three passes over one tensor.
        return distance.sub_(1.0).mul_(-SELF_BIAS).clamp_(MASKED_BIAS, 0.0)
    bias = torch.zeros_like(distance)
    if causal:
        bias.masked_fill_(distance < 0, MASKED_BIAS)
    if key_mask_GCW is not None:
        bias.masked_fill_(~key_mask_GCW.unsqueeze(-2), MASKED_BIAS)
    return bias.masked_fill_(distance == 0, SELF_BIAS)


def lsh_attention(
    qk_BHLD: Tensor,
    v_BHLD: Tensor,
    order_BHNL: Tensor,
    *,
    chunk_length: int,
    num_before: int,
    num_after: int,
    causal: bool,
    key_mask_BL: Tensor | None,
    head_mask_H: Tensor | None,
    dropout: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Attend among tokens that `order_BHNL` sorts next to each other; return (B, H, L, D) and the probabilities.

    Rounds follow each other in one ring of N*L/Q chunks and are combined by their logsumexp: the result is one softmax
    over the keys of all rounds (equation 6 without its count of repeated keys). Probabilities: (B, H, C, Q, W).
    """
    batch, heads, rounds, length = order_BHNL.shape
    groups = batch * heads
    order_GNL = order_BHNL.reshape(groups, rounds, length)
    undo_GNL = _invert(order_GNL)

    def chunked(x: Tensor) -> Tensor:
        return x.reshape(groups, rounds * length // chunk_length, chunk_length, *x.shape[3:])

    q_GCQD = chunked(_Permute.apply(qk_BHLD.flatten(0, 1), order_GNL, undo_GNL))  # type: ignore[no-untyped-call]
    v_GCQD = chunked(_Permute.apply(v_BHLD.flatten(0, 1), order_GNL, undo_GNL))  # type: ignore[no-untyped-call]
    position_GCQ = chunked(order_GNL)
    position_GCW = look_around(position_GCQ, num_before, num_after)
    key_mask_GCW = None
    if key_mask_BL is not None:
        mask_GL = key_mask_BL.repeat_interleave(heads, dim=0)
        key_mask_GCW = mask_GL.gather(1, position_GCW.flatten(1).long()).view(position_GCW.shape)
    out_GCQD, lse_GCQ, probs_GCQW = attend_in_windows(
        q_GCQD,
        look_around(unit_keys(q_GCQD), num_before, num_after),
        look_around(v_GCQD, num_before, num_after),
        _score_bias(position_GCQ, position_GCW, causal=causal, key_mask_GCW=key_mask_GCW),
        dropout=dropout,
        generator=generator,
        head_scale_G=None if head_mask_H is None else head_mask_H.repeat(batch),
        need_lse=rounds > 1,
    )
    out_GNLD = _Unpermute.apply(out_GCQD.view(groups, rounds, length, -1), order_GNL, undo_GNL)  # type: ignore[no-untyped-call]
    if lse_GCQ is None:
        out_GLD = out_GNLD.squeeze(1)
    else:
        lse_GNL1 = _Unpermute.apply(lse_GCQ.view(groups, rounds, length, 1), order_GNL, undo_GNL)  # type: ignore[no-untyped-call]
        out_GLD = (out_GNLD * lse_GNL1.softmax(dim=1)).sum(dim=1).to(out_GNLD.dtype)
    return out_GLD.view(batch, heads, length, -1), probs_GCQW.view(batch, heads, *probs_GCQW.shape[1:])


class LSHSelfAttention(nn.Module):
    """LSH self-attention with its projections: one for queries and keys together, one for values, without biases.

    Shapes: (B, L, E) -> (B, L, H*D). Sequences no longer than a chunk are attended in full, without hashing.
    """

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.chunk_length = config.lsh_attn_chunk_length
        self.num_before = config.lsh_num_chunks_before
        self.num_after = config.lsh_num_chunks_after
        self.causal = config.is_decoder
        self.dropout = config.lsh_attention_probs_dropout_prob
        self.hash_seed = config.hash_seed
        width = config.num_attention_heads * config.attention_head_size
        self.query_key = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.value = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)

    def forward(self, x_BLE: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor]:
        """Return the output and the probabilities; `layer.order` is set by the first call and reused by a replay."""
        qk_BHLD = split_heads(self.query_key(x_BLE), self.num_heads)
        v_BHLD = split_heads(self.value(x_BLE), self.num_heads)
        whole = x_BLE.shape[1] <= self.chunk_length
        if layer.order is None:
            layer.order = self._whole_order(qk_BHLD) if whole else self._hash_order(qk_BHLD.detach(), call, layer)
        out_BHLD, probs = lsh_attention(
            qk_BHLD,
            v_BHLD,
            layer.order,
            chunk_length=x_BLE.shape[1] if whole else self.chunk_length,
            num_before=0 if whole else self.num_before,
            num_after=0 if whole else self.num_after,
            causal=self.causal,
            key_mask_BL=call.key_mask,
            head_mask_H=layer.head_mask,
            dropout=self.dropout,
            generator=layer.generator(call, "attention_probs", x_BLE.device),
        )
        return merge_heads(out_BHLD), probs.squeeze(2) if whole else probs

    @staticmethod
    def _whole_order(qk_BHLD: Tensor) -> Tensor:
        batch, heads, length, _ = qk_BHLD.shape
        return torch.arange(length, device=qk_BHLD.device, dtype=torch.int32).expand(batch, heads, 1, length)

    def _hash_order(self, qk_BHLD: Tensor, call: ForwardCall, layer: LayerCall) -> Tensor:
        assert call.num_buckets is not None
        factors = hashing.bucket_factors(call.num_buckets)
        if self.hash_seed is None:
            generator = layer.seeded(call, "hash", qk_BHLD.device)
        else:
            generator = torch.Generator(qk_BHLD.device).manual_seed(self.hash_seed)
        rotations_HDNR = hashing.draw_rotations(
            num_heads=self.num_heads,
            head_size=qk_BHLD.shape[-1],
            num_hashes=call.num_hashes,
            factors=factors,
            like=qk_BHLD,
            generator=generator,
        )
        buckets_BHNL = hashing.hash_vectors(qk_BHLD, rotations_HDNR, factors)
        return hashing.sort_by_bucket(buckets_BHNL, call.key_mask, math.prod(factors))
