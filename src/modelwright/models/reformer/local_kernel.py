"""Local attention without stored scores: the pure functions, forward and backward.

Shapes: B batch, L tokens (a multiple of the chunk length), H heads, D head size, E = H*D, R rows of one block, N chunks
of one block, Q tokens of a chunk, W of its window. Tensors are laid out as the projections leave them, (B, L, H*D).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.models.reformer.window_kernel import (
    BLOCK_TOKENS,
    add_windows,
    attend_block,
    attend_block_backward,
    block_ranges,
    ring_slice,
    windows,
)
from modelwright.models.reformer.windows import MASKED_BIAS
from modelwright.nn.dropout import Source, seeded_generator
from modelwright.nn.precision import at_least_float32, without_autocast


@dataclass(frozen=True)
class Windows:
    """Which keys a query sees: chunks of `chunk_length` tokens, and how many chunks before and after its own.

    `causal` rules out later tokens. `dropout` acts on the probabilities, block by block, from `seed`.
    """

    chunk_length: int
    num_before: int
    num_after: int
    causal: bool
    dropout: float = 0.0
    seed: int = 0

    @property
    def window(self) -> int:
        """The number of keys that a query sees."""
        return self.chunk_length * (self.num_before + 1 + self.num_after)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first and the last (excluded) place that the windows of places `start` to `stop` cover."""
        return start - self.num_before * self.chunk_length, stop + self.num_after * self.chunk_length

    def generator(self, block: int, device: torch.device) -> Source | None:
        """Return the generator for the dropout of that block, or None without dropout."""
        return seeded_generator(self.seed, block, device) if self.dropout else None


@dataclass(frozen=True)
class Part:
    """A part of texts of `length` tokens: the queries of the places from `first` on, and what they see.

    Keys and values are those of `shape.span(first, first + queries)` then, and not of all places.
    """

    first: int
    length: int


def _blocks(
    q_RLD: Tensor,
    k_RLD: Tensor,
    v_RLD: Tensor,
    key_mask_BL: Tensor | None,
    at: tuple[slice, ...],
    shape: Windows,
    part: Part | None = None,
) -> Iterator[tuple[int, int, tuple[Tensor, ...], dict[str, Any]]]:
    """Yield each block's first and last (excluded) query, its q, k, v and bias, and the kernel's settings.

    `at` says which rows and which columns of the projections these are.
    """
    rows, queries, size = q_RLD.shape
    first, length = (0, queries) if part is None else (part.first, part.length)
    chunk, window = shape.chunk_length, shape.window
    inner_1QW: Tensor | None = None
    for start, stop in block_ranges(queries, chunk, window, rows):
        low, high = shape.span(first + start, first + stop)
        if low < 0 or high > length or key_mask_BL is not None:
            mask_RL = None if key_mask_BL is None else key_mask_BL[at[0]]
            bias_NQW = _bias(first + start, first + stop, rows, length, mask_RL, shape, like=q_RLD)
        else:
            # Away from the ends every chunk has the same bias.
            if inner_1QW is None:
                inner_1QW = _bias(first + start, first + start + chunk, 1, length, None, shape, like=q_RLD)
            bias_NQW = inner_1QW
        q_NQD = at_least_float32(q_RLD[:, start:stop]).reshape(-1, chunk, size)
        seen = [ring_slice(x, low, high) if part is None else x[:, start : start + high - low] for x in (k_RLD, v_RLD)]
        k_NWD, v_NWD = (windows(at_least_float32(x), chunk, window) for x in seen)
        # A number that no other block of the call has.
        block = (int(at[2].start) // size << 32) + int(at[0].start) * length + first + start
        generator = shape.generator(block, q_RLD.device)
        settings = {"scale": size**-0.5, "dropout": shape.dropout, "generator": generator}
        yield start, stop, (q_NQD, k_NWD, v_NWD, bias_NQW), settings


def _bias(
    start: int, stop: int, rows: int, length: int, key_mask_RL: Tensor | None, shape: Windows, *, like: Tensor
) -> Tensor:
    """Return what is added to the scores of the chunks from `start` to `stop`, (R*N, Q, W)."""
    low, high = shape.span(start, stop)
    position_NQ = torch.arange(start, stop, device=like.device).view(-1, shape.chunk_length)
    position_1T = torch.arange(low, high, device=like.device).unsqueeze(0) % length
    position_NW = windows(position_1T, shape.chunk_length, shape.window)
    dtype = at_least_float32(like[:0]).dtype
    bias_NQW = torch.zeros(*position_NQ.shape, shape.window, dtype=dtype, device=like.device)
    if shape.causal:
        bias_NQW.masked_fill_(position_NQ.unsqueeze(-1) < position_NW.unsqueeze(-2), MASKED_BIAS)
    if rows > 1:
        bias_NQW = bias_NQW.repeat(rows, 1, 1)
    if key_mask_RL is not None:
        mask_NW = windows(ring_slice(key_mask_RL, low, high), shape.chunk_length, shape.window)
        bias_NQW.masked_fill_(~mask_NW.unsqueeze(1), MASKED_BIAS)
    return bias_NQW


def row_groups(batch: int, length: int) -> Iterator[slice]:
    """Yield one row of the batch at a time, or several short ones together."""
    step = max(1, BLOCK_TOKENS // length)
    for first in range(0, batch, step):
        yield slice(first, min(first + step, batch))


@without_autocast
def local_attention(
    q_BLE: Tensor,
    k_BLE: Tensor,
    v_BLE: Tensor,
    key_mask_BL: Tensor | None,
    num_heads: int,
    shape: Windows,
    *,
    into: Tensor | None = None,
    part: Part | None = None,
) -> Tensor:
    """Attend within chunks and their neighbours, in fp32 at least; return (B, L, H*D) in the dtype of `v`.

    The output is written to `into` if there is one, which may be `q`. With `part` the queries are those of some whole
    chunks only, and so is the output; the mask is that of all places.
    """
    size = q_BLE.shape[-1] // num_heads
    out_BLE = v_BLE.new_empty(q_BLE.shape) if into is None else into
    for rows in row_groups(*q_BLE.shape[:2]):
        for head in range(num_heads):
            at = (rows, slice(None), slice(head * size, (head + 1) * size))
            blocks = _blocks(q_BLE[at], k_BLE[at], v_BLE[at], key_mask_BL, at, shape, part)
            for start, stop, operands, settings in blocks:
                out_NQD, _ = attend_block(*operands, **settings)
                into_RLD = out_BLE[at][:, start:stop]
                into_RLD.copy_(out_NQD.view(into_RLD.shape))
    return out_BLE


@without_autocast
def local_attention_backward(
    grad_BLE: Tensor,
    q_BLE: Tensor,
    k_BLE: Tensor,
    v_BLE: Tensor,
    key_mask_BL: Tensor | None,
    num_heads: int,
    shape: Windows,
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; the scores are computed again, block by block.

    `in_place` writes them over q, k and v.
    """
    size = q_BLE.shape[-1] // num_heads
    grads = (
        (q_BLE, k_BLE, v_BLE)
        if in_place
        else (torch.empty_like(q_BLE), torch.empty_like(k_BLE), torch.empty_like(v_BLE))
    )
    room: Tensor | None = None
    for rows in row_groups(*q_BLE.shape[:2]):
        for head in range(num_heads):
            at = (rows, slice(None), slice(head * size, (head + 1) * size))
            if room is None:  # of the first group of rows, than which none is larger
                room = at_least_float32(q_BLE[:0]).new_empty(2, *q_BLE[at].shape)
            totals_RLD = [each[: len(q_BLE[at])].zero_() for each in room]
            for start, stop, operands, settings in _blocks(q_BLE[at], k_BLE[at], v_BLE[at], key_mask_BL, at, shape):
                grad_NQD = at_least_float32(grad_BLE[at][:, start:stop]).reshape(operands[0].shape)
                grad_q_NQD, *grads_NWD = attend_block_backward(grad_NQD, *operands, **settings)
                # No other block reads these queries.
                grads[0][at][:, start:stop] = grad_q_NQD.view(-1, stop - start, size)
                for total_RLD, grad_NWD in zip(totals_RLD, grads_NWD, strict=True):
                    add_windows(total_RLD, shape.span(start, stop)[0], grad_NWD, shape.chunk_length)
            for into, total_RLD in zip(grads[1:], totals_RLD, strict=True):
                into[at] = total_RLD
    return grads
