"""Windowed attention on a GPU: what one program of Triton does, forward and backward, for both types of attention.

LSH attention reads its tokens in the order in which a round sorts them, and its queries are its keys (`SHARED`); local
attention reads them as they stand. A program has a tile of queries of one chunk and reads the keys of the chunk's
window, tile by tile, with a running softmax (Dao 2022): scores live in registers only. Launched by `triton_attention`.

Shapes: Q queries of a tile, K keys of a tile, D head size (loaded as the next power of two); tensors (B, L, H, D) are
contiguous. A place is a token's place in the ring of all rounds. `kept` (B, H, N, L, 2) is, in the order of the tokens,
the largest score of a query in a round and the logarithm of the sum of what the others are relative to it: their sum is
the logsumexp, and apart they stay exact beside a bias of -1e9.
"""

import triton
import triton.language as tl

from modelwright.models.reformer.lsh_kernel import KEY_EPSILON
from modelwright.models.reformer.windows import MASKED_BIAS, SELF_BIAS

_MASKED = tl.constexpr(MASKED_BIAS)
_SELF = tl.constexpr(SELF_BIAS)
_EPSILON = tl.constexpr(KEY_EPSILON)


@triton.jit
def _first_place(turn, length, chunk_number, chunk, ring):
    """Return the place in the ring where a chunk of a round begins, whose number may be negative or beyond the last."""
    # Triton's remainder has the sign of what is divided.
    return ((turn * length + chunk_number * chunk) % ring + ring) % ring


@triton.jit
def _tokens(order_ptr, group, place, ring, ok, SHARED: tl.constexpr):
    """Return the tokens at these places of the sequence `group` (row and head)."""
    if SHARED:
        return tl.load(order_ptr + group.to(tl.int64) * ring + place, mask=ok, other=0)
    return place


@triton.jit
def _offsets(group, token, heads, length, SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return where the vectors of these tokens are in a tensor (B, L, H, D)."""
    row = (group // heads).to(tl.int64) * length + token
    return (row * heads + group % heads)[:, None] * SIZE + tl.arange(0, BLOCK_D)[None, :]


@triton.jit
def _load(pointer, offsets, ok, SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    return tl.load(pointer + offsets, mask=ok[:, None] & (tl.arange(0, BLOCK_D) < SIZE)[None, :], other=0.0)


@triton.jit
def _store(pointer, offsets, ok, value, adds, SIZE: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store vectors, or add them to what is there: within a launch nobody else has these tokens."""
    inside = ok[:, None] & (tl.arange(0, BLOCK_D) < SIZE)[None, :]
    if adds:
        value += tl.load(pointer + offsets, mask=inside, other=0.0)
    tl.store(pointer + offsets, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def _key_scale(k, scale, SHARED: tl.constexpr, SIZE: tl.constexpr):
    """Return what the scores of each key are multiplied by; see `lsh_kernel.key_scale`."""
    if SHARED:
        wide = k.to(tl.float32)
        return tl.rsqrt(tl.sum(wide * wide, axis=1) / SIZE + _EPSILON) * scale
    return tl.full((k.shape[0],), scale, tl.float32)


@triton.jit
def _visible(mask_ptr, group, token, heads, length, ok, HAS_MASK: tl.constexpr):
    """Return whether these keys may be attended to."""
    if HAS_MASK:
        return tl.load(mask_ptr + (group // heads).to(tl.int64) * length + token, mask=ok, other=0) != 0
    return ok


@triton.jit
def _key_tile(
    k_ptr, v_ptr, order_ptr, mask_ptr, group, start, number_K, heads, length, ring, window, scale,
    SHARED: tl.constexpr, HAS_MASK: tl.constexpr, SIZE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Return the keys with these numbers of the window that begins at place `start`.

    Their tokens, whether they are in the window, whether they may be attended to, their vectors, and the keys' scale.
    """
    ok_K = number_K < window
    token_K = _tokens(order_ptr, group, (start + number_K) % ring, ring, ok_K, SHARED)
    offsets = _offsets(group, token_K, heads, length, SIZE, BLOCK_D)
    k = _load(k_ptr, offsets, ok_K, SIZE, BLOCK_D)
    v = _load(v_ptr, offsets, ok_K, SIZE, BLOCK_D)
    visible_K = _visible(mask_ptr, group, token_K, heads, length, ok_K, HAS_MASK)
    return token_K, ok_K, visible_K, k, v, _key_scale(k, scale, SHARED, SIZE)


@triton.jit
def _own_tile(order_ptr, turn, length, ring, chunk, SHARED: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Return which tile of tokens this program has: sequence, chunk, numbers in it, whether inside, places, tokens."""
    tiles = tl.cdiv(chunk, BLOCK_Q)
    of_group = length // chunk * tiles
    group, tile = tl.program_id(0) // of_group, tl.program_id(0) % of_group
    number = tile // tiles
    inner_Q = tile % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    ok_Q = inner_Q < chunk
    place_Q = turn * length + number * chunk + inner_Q
    return group, number, inner_Q, ok_Q, place_Q, _tokens(order_ptr, group, place_Q, ring, ok_Q, SHARED)


@triton.jit
def _scores(
    q, k, scale_K, token_Q, token_K, visible_K,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the scores (Q, K) with their bias; see `lsh_kernel.score_bias`."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_K[None, :]
    bias = tl.zeros_like(scores)
    # As floating-point numbers, exact up to 2**24 tokens: of integers Triton tells from how they were computed that 16
    # neighbours compare alike, which its version 3.6 got wrong for nested remainders.
    position_Q = token_Q.to(tl.float32)[:, None]
    position_K = token_K.to(tl.float32)[None, :]
    if CAUSAL:
        bias = tl.where(position_Q < position_K, _MASKED, bias)
    if HAS_MASK:
        bias = tl.where(visible_K[None, :], bias, _MASKED)
    if SHARED:
        bias = tl.where(position_Q == position_K, _SELF, bias)
    return scores + bias


@triton.jit
def _keep(seed, group, place_Q, number_QK, levels, gain):
    """Return what dropout multiplies probabilities by: a function of the query's place and the key's number there."""
    number = number_QK.to(tl.uint32)
    place = tl.broadcast_to(place_Q[:, None], number_QK.shape).to(tl.uint32)
    first, _, _, _ = tl.philox(seed, number, place, number * 0 + group.to(tl.uint32), number * 0)
    return tl.where((first >> 16).to(tl.int32) >= levels, gain, 0.0)


@triton.jit
def _merge(total_ptr, at_Q, ok_Q, turn, rounds, top_Q, log_Q):
    """Return what the output of the rounds before and this one's count in one softmax over the keys of all."""
    own_Q = tl.full(top_Q.shape, 1.0, tl.float32)
    before_Q = tl.zeros_like(top_Q)
    if turn > 0:
        top_before_Q = tl.load(total_ptr + at_Q * 2, mask=ok_Q, other=0.0)
        log_before_Q = tl.load(total_ptr + at_Q * 2 + 1, mask=ok_Q, other=0.0)
        highest_Q = tl.maximum(top_before_Q, top_Q)
        before_Q = tl.exp(top_before_Q - highest_Q + log_before_Q)
        own_Q = tl.exp(top_Q - highest_Q + log_Q)
        both_Q = before_Q + own_Q
        before_Q /= both_Q
        own_Q /= both_Q
        top_Q = highest_Q
        log_Q = tl.log(both_Q)
    if turn + 1 < rounds:
        tl.store(total_ptr + at_Q * 2, top_Q, mask=ok_Q)
        tl.store(total_ptr + at_Q * 2 + 1, log_Q, mask=ok_Q)
    return before_Q, own_Q


@triton.jit(do_not_specialize=["turn", "levels", "seed"])
def attend(
    q_ptr, k_ptr, v_ptr, order_ptr, mask_ptr, grad_ptr, out_ptr, kept_ptr, total_ptr, delta_ptr,
    heads, length, rounds, turn, chunk, before, window, scale, levels, gain, seed,
    STATISTICS: tl.constexpr,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, DROPS: tl.constexpr, SHARES: tl.constexpr,
    SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of queries of round `turn`: its output, merged into that of the rounds before, and `kept`.

    With `STATISTICS` not the output is stored but `delta`, its product with its gradient, for `attend_backward`.
    """
    ring = rounds * length
    group, number, _, ok_Q, place_Q, token_Q = _own_tile(order_ptr, turn, length, ring, chunk, SHARED, BLOCK_Q)
    offsets = _offsets(group, token_Q, heads, length, SIZE, BLOCK_D)
    q = _load(q_ptr, offsets, ok_Q, SIZE, BLOCK_D)
    start = _first_place(turn, length, number - before, chunk, ring)
    top_Q = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    sum_Q = tl.zeros((BLOCK_Q,), tl.float32)
    out = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    for first in range(0, window, BLOCK_K):
        number_K = first + tl.arange(0, BLOCK_K)
        token_K, ok_K, visible_K, k, v, scale_K = _key_tile(
            k_ptr, v_ptr, order_ptr, mask_ptr, group, start, number_K, heads, length, ring, window, scale,
            SHARED, HAS_MASK, SIZE, BLOCK_D,
        )  # fmt: skip
        scores = _scores(q, k, scale_K, token_Q, token_K, visible_K, SHARED, CAUSAL, HAS_MASK, PRECISION)
        scores = tl.where(ok_K[None, :], scores, float("-inf"))
        new_Q = tl.maximum(top_Q, tl.max(scores, axis=1))
        shrink_Q = tl.exp(top_Q - new_Q)
        probs = tl.exp(scores - new_Q[:, None])
        sum_Q = sum_Q * shrink_Q + tl.sum(probs, axis=1)
        if DROPS:
            probs *= _keep(seed, group, place_Q, tl.broadcast_to(number_K[None, :], probs.shape), levels, gain)
        out = out * shrink_Q[:, None] + tl.dot(probs.to(v.dtype), v, input_precision=PRECISION)
        top_Q = new_Q
    out /= sum_Q[:, None]
    log_Q = tl.log(sum_Q)

    at_Q = group.to(tl.int64) * length + token_Q
    if SHARED or STATISTICS:
        kept_Q = kept_ptr + ((group.to(tl.int64) * rounds + turn) * length + token_Q) * 2
        tl.store(kept_Q, top_Q, mask=ok_Q)
        tl.store(kept_Q + 1, log_Q, mask=ok_Q)
    if STATISTICS:
        grad = _load(grad_ptr, offsets, ok_Q, SIZE, BLOCK_D).to(tl.float32)
        tl.store(delta_ptr + at_Q, tl.sum(grad * out, axis=1), mask=ok_Q)
    else:
        if SHARES:
            before_Q, own_Q = _merge(total_ptr, at_Q, ok_Q, turn, rounds, top_Q, log_Q)
            out *= own_Q[:, None]
            if turn > 0:
                out += _load(out_ptr, offsets, ok_Q, SIZE, BLOCK_D).to(tl.float32) * before_Q[:, None]
        _store(out_ptr, offsets, ok_Q, out, False, SIZE, BLOCK_D)


@triton.jit
def multiply_rows(
    x_ptr, y_ptr, product_ptr, heads, length, SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr
):  # fmt: skip
    """The inner products (B, H, L) of the vectors of two tensors (B, L, H, D)."""
    tiles = tl.cdiv(length, BLOCK_Q)
    group = tl.program_id(0) // tiles
    token_Q = tl.program_id(0) % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    ok_Q = token_Q < length
    offsets = _offsets(group, token_Q, heads, length, SIZE, BLOCK_D)
    x = _load(x_ptr, offsets, ok_Q, SIZE, BLOCK_D).to(tl.float32)
    y = _load(y_ptr, offsets, ok_Q, SIZE, BLOCK_D).to(tl.float32)
    tl.store(product_ptr + group.to(tl.int64) * length + token_Q, tl.sum(x * y, axis=1), mask=ok_Q)


@triton.jit
def _statistics(
    kept_ptr, share_ptr, delta_ptr, group, turn, token_X, ok_X, length, rounds, SHARES: tl.constexpr
):  # fmt: skip
    """Return `kept`, `share` and `delta` of queries in round `turn` (a number, or one for each query)."""
    at_X = (group.to(tl.int64) * rounds + turn) * length + token_X
    top_X = tl.load(kept_ptr + at_X * 2, mask=ok_X, other=0.0)
    log_X = tl.load(kept_ptr + at_X * 2 + 1, mask=ok_X, other=0.0)
    delta_X = tl.load(delta_ptr + group.to(tl.int64) * length + token_X, mask=ok_X, other=0.0)
    share_X = tl.full(top_X.shape, 1.0, tl.float32)
    if SHARES:
        share_X = tl.load(share_ptr + at_X, mask=ok_X, other=0.0)
    return top_X, log_X, share_X, delta_X


@triton.jit
def _query_gradient(
    q, k_ptr, v_ptr, order_ptr, mask_ptr, grad, kept_ptr, share_ptr, delta_ptr,
    group, place_Q, token_Q, ok_Q, start, heads, length, rounds, turn, window, scale, levels, gain, seed,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, DROPS: tl.constexpr, SHARES: tl.constexpr,
    SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradient of a tile's queries: over the keys of the window that begins at place `start`."""
    top_Q, log_Q, share_Q, delta_Q = _statistics(
        kept_ptr, share_ptr, delta_ptr, group, turn, token_Q, ok_Q, length, rounds, SHARES
    )
    dq = tl.zeros(q.shape, tl.float32)
    for first in range(0, window, BLOCK_K):
        number_K = first + tl.arange(0, BLOCK_K)
        token_K, ok_K, visible_K, k, v, scale_K = _key_tile(
            k_ptr, v_ptr, order_ptr, mask_ptr, group, start, number_K, heads, length, rounds * length, window, scale,
            SHARED, HAS_MASK, SIZE, BLOCK_D,
        )  # fmt: skip
        scores = _scores(q, k, scale_K, token_Q, token_K, visible_K, SHARED, CAUSAL, HAS_MASK, PRECISION)
        scores = tl.where(ok_K[None, :], scores, float("-inf"))
        probs = tl.exp(scores - top_Q[:, None] - log_Q[:, None])
        dprobs = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPS:
            dprobs *= _keep(seed, group, place_Q, tl.broadcast_to(number_K[None, :], probs.shape), levels, gain)
        dscores = probs * (dprobs - delta_Q[:, None]) * share_Q[:, None] * scale_K[None, :]
        dq += tl.dot(dscores.to(k.dtype), k, input_precision=PRECISION)
    return dq


@triton.jit
def _key_gradients(
    q_ptr, k, v, scale_K, order_ptr, mask_ptr, grad_ptr, kept_ptr, share_ptr, delta_ptr,
    group, inner_K, token_K, ok_K, start, heads, length, rounds, chunk, around, window, levels, gain, seed,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, DROPS: tl.constexpr, SHARES: tl.constexpr,
    SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradients of a tile's keys and values: over the queries in whose windows it is, from place `start`.

    `around` is the number of chunks that a window has besides its own.
    """
    visible_K = _visible(mask_ptr, group, token_K, heads, length, ok_K, HAS_MASK)
    dk = tl.zeros(k.shape, tl.float32)
    dv = tl.zeros(k.shape, tl.float32)
    for first in range(0, window, BLOCK_Q):
        number_Q = first + tl.arange(0, BLOCK_Q)
        ok_Q = number_Q < window
        place_Q = (start + number_Q) % (rounds * length)
        token_Q = _tokens(order_ptr, group, place_Q, rounds * length, ok_Q, SHARED)
        offsets = _offsets(group, token_Q, heads, length, SIZE, BLOCK_D)
        q = _load(q_ptr, offsets, ok_Q, SIZE, BLOCK_D)
        grad = _load(grad_ptr, offsets, ok_Q, SIZE, BLOCK_D)
        top_Q, log_Q, share_Q, delta_Q = _statistics(
            kept_ptr, share_ptr, delta_ptr, group, place_Q // length, token_Q, ok_Q, length, rounds, SHARES
        )
        scores = _scores(q, k, scale_K, token_Q, token_K, visible_K, SHARED, CAUSAL, HAS_MASK, PRECISION)
        scores = tl.where(ok_Q[:, None] & ok_K[None, :], scores, float("-inf"))
        probs = tl.exp(scores - top_Q[:, None] - log_Q[:, None]) * share_Q[:, None]
        dprobs = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        kept = probs
        if DROPS:
            # The later the query's chunk, the earlier this one is in its window.
            numbers = (around - number_Q // chunk)[:, None] * chunk + inner_K[None, :]
            keep = _keep(seed, group, place_Q, numbers, levels, gain)
            dprobs *= keep
            kept = probs * keep
        dv += tl.dot(tl.trans(kept).to(grad.dtype), grad, input_precision=PRECISION)
        dscores = probs * (dprobs - delta_Q[:, None])
        dk += tl.dot(tl.trans(dscores).to(q.dtype), q, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["turn", "levels", "seed"])
def attend_backward(
    q_ptr, k_ptr, v_ptr, order_ptr, mask_ptr, grad_ptr, kept_ptr, share_ptr, delta_ptr, dq_ptr, dk_ptr, dv_ptr,
    heads, length, rounds, turn, chunk, before, after, window, scale, levels, gain, seed,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, HAS_MASK: tl.constexpr, DROPS: tl.constexpr, SHARES: tl.constexpr,
    SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one tile of tokens at their places of round `turn`: as queries, then as keys and values.

    Nothing is added up between programs, so that results do not depend on their order. `share` (B, H, N, L) is what
    each round counts for a query, `delta` (B, H, L) the product of the output and its gradient.
    """
    ring = rounds * length
    group, number, inner_Q, ok_Q, place_Q, token_Q = _own_tile(order_ptr, turn, length, ring, chunk, SHARED, BLOCK_Q)
    offsets = _offsets(group, token_Q, heads, length, SIZE, BLOCK_D)
    k = _load(k_ptr, offsets, ok_Q, SIZE, BLOCK_D)
    v = _load(v_ptr, offsets, ok_Q, SIZE, BLOCK_D)
    scale_Q = _key_scale(k, scale, SHARED, SIZE)
    start = _first_place(turn, length, number - after, chunk, ring)
    dk, dv = _key_gradients(
        q_ptr, k, v, scale_Q, order_ptr, mask_ptr, grad_ptr, kept_ptr, share_ptr, delta_ptr,
        group, inner_Q, token_Q, ok_Q, start, heads, length, rounds, chunk, before + after, window, levels, gain, seed,
        SHARED, CAUSAL, HAS_MASK, DROPS, SHARES, SIZE, BLOCK_D, BLOCK_K, PRECISION,
    )  # fmt: skip
    _store(dv_ptr, offsets, ok_Q, dv, turn > 0, SIZE, BLOCK_D)
    dk *= scale_Q[:, None]
    if SHARED:
        # Through the keys' length, see `lsh_kernel.key_scale_backward`.
        wide = k.to(tl.float32)
        dk -= wide * (scale_Q * scale_Q * tl.sum(dk * wide, axis=1))[:, None]
    else:
        _store(dk_ptr, offsets, ok_Q, dk, False, SIZE, BLOCK_D)
    q = _load(q_ptr, offsets, ok_Q, SIZE, BLOCK_D)
    grad = _load(grad_ptr, offsets, ok_Q, SIZE, BLOCK_D)
    start = _first_place(turn, length, number - before, chunk, ring)
    dq = _query_gradient(
        q, k_ptr, v_ptr, order_ptr, mask_ptr, grad, kept_ptr, share_ptr, delta_ptr,
        group, place_Q, token_Q, ok_Q, start, heads, length, rounds, turn, window, scale, levels, gain, seed,
        SHARED, CAUSAL, HAS_MASK, DROPS, SHARES, SIZE, BLOCK_D, BLOCK_K, PRECISION,
    )  # fmt: skip
    if SHARED:
        dq += dk
    _store(dq_ptr, offsets, ok_Q, dq, turn > 0, SIZE, BLOCK_D)
