"""Local attention without stored scores: the pure functions, forward and backward.

Shapes: B batch, L tokens (a multiple of the chunk length), H heads, D head size, E = H*D, R rows of one block, N chunks
of one block, Q tokens of a chunk, W of its window. Tensors are laid out as the projections leave them, (B, L, H*D).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

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
from modelwright.models.reformer.windows import MASKED_BIAS
from modelwright.nn.dropout import seeded_generator
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

    def generator(self, block: int, device: torch.device) -> torch.Generator | None:
        """Return the generator for the dropout of that block, or None without dropout."""
        return seeded_generator(self.seed, block, device) if self.dropout else None


@dataclass(frozen=True)
class _Block:
    rows: slice
    start: int
    stop: int
    bias_NQW: Tensor


def _blocks(batch: int, length: int, shape: Windows, key_mask_BL: Tensor | None, like: Tensor) -> Iterator[_Block]:
    """Yield cache-sized blocks of whole chunks with what is added to their scores; short rows go together."""
    rows = max(1, BLOCK_TOKENS // length)
    chunk = shape.chunk_length
    inner = None
    for first in range(0, batch, rows):
        taken = slice(first, min(first + rows, batch))
        for start, stop in block_ranges(length, chunk, rows):
            low, high = shape.span(start, stop)
            inside = low >= 0 and high <= length
            if inside and inner is not None and key_mask_BL is None:
                # Away from the ends every chunk has the same bias.
                yield _Block(taken, start, stop, inner)
                continue
            position_1Q = torch.arange(start, stop, device=like.device).view(-1, chunk)
            position_1T = torch.arange(low, high, device=like.device).unsqueeze(0) % length
            position_NW = windows(position_1T, chunk, shape.window)
            bias_NQW = torch.zeros(len(position_1Q), chunk, shape.window, dtype=like.dtype, device=like.device)
            if shape.causal:
                bias_NQW.masked_fill_(position_1Q.unsqueeze(-1) < position_NW.unsqueeze(-2), MASKED_BIAS)
            if key_mask_BL is None:
                if inside:
                    inner = bias_NQW = bias_NQW[:1]
                elif taken.stop - first > 1:
                    bias_NQW = bias_NQW.repeat(taken.stop - first, 1, 1)
            else:
                mask_NW = windows(ring_slice(key_mask_BL[taken], low, high), chunk, shape.window)
                bias_NQW = bias_NQW.repeat(taken.stop - first, 1, 1).masked_fill_(~mask_NW.unsqueeze(1), MASKED_BIAS)
            yield _Block(taken, start, stop, bias_NQW)


@without_autocast
def local_attention(
    q_BLE: Tensor, k_BLE: Tensor, v_BLE: Tensor, key_mask_BL: Tensor | None, num_heads: int, shape: Windows
) -> Tensor:
    """Attend within chunks and their neighbours, in fp32 at least; return (B, L, H*D) in the dtype of `v`."""
    batch, length, width = q_BLE.shape
    size = width // num_heads
    out_BLE = torch.empty_like(v_BLE, memory_format=torch.contiguous_format)
    like = at_least_float32(q_BLE[:0])
    for index, block in enumerate(_blocks(batch, length, shape, key_mask_BL, like)):
        for head in range(num_heads):
            at = slice(head * size, (head + 1) * size)
            q_NQD, k_NWD, v_NWD = _load(q_BLE[..., at], k_BLE[..., at], v_BLE[..., at], block, shape)
            out_NQD, _ = attend_block(
                q_NQD,
                k_NWD,
                v_NWD,
                block.bias_NQW,
                scale=size**-0.5,
                dropout=shape.dropout,
                generator=shape.generator(index * num_heads + head, q_BLE.device),
            )
            part = out_BLE[block.rows, block.start : block.stop, at]
            part.copy_(out_NQD.view(part.shape))
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v; the scores are computed again, block by block."""
    batch, length, width = q_BLE.shape
    size = width // num_heads
    like = at_least_float32(q_BLE[:0])
    grad_q_BLE = torch.empty_like(q_BLE, memory_format=torch.contiguous_format)
    grad_k_BLE, grad_v_BLE = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (k_BLE, v_BLE))
    for index, block in enumerate(_blocks(batch, length, shape, key_mask_BL, like)):
        for head in range(num_heads):
            at = slice(head * size, (head + 1) * size)
            q_NQD, k_NWD, v_NWD = _load(q_BLE[..., at], k_BLE[..., at], v_BLE[..., at], block, shape)
            part = grad_q_BLE[block.rows, block.start : block.stop, at]
            grad_q_NQD, grad_k_NWD, grad_v_NWD = attend_block_backward(
                at_least_float32(grad_BLE[block.rows, block.start : block.stop, at]).reshape(q_NQD.shape),
                q_NQD,
                k_NWD,
                v_NWD,
                block.bias_NQW,
                scale=size**-0.5,
                dropout=shape.dropout,
                generator=shape.generator(index * num_heads + head, q_BLE.device),
            )
            part.copy_(grad_q_NQD.view(part.shape))
            rows, low = part.shape[0], shape.span(block.start, block.stop)[0]
            for total, grad_NWD in ((grad_k_BLE, grad_k_NWD), (grad_v_BLE, grad_v_NWD)):
                ring_add(total[block.rows, :, at], low, fold_windows(grad_NWD, rows, shape.chunk_length))
    return grad_q_BLE, grad_k_BLE, grad_v_BLE


def _load(
    q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor, block: _Block, shape: Windows
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one head's queries (R*N, Q, D), and keys and values (R*N, W, D) of a block, in fp32 at least."""
    q_RTD = at_least_float32(q_BLD[block.rows, block.start : block.stop])
    q_NQD = q_RTD.reshape(-1, shape.chunk_length, q_RTD.shape[-1])
    span = shape.span(block.start, block.stop)
    k_NWD, v_NWD = (
        windows(at_least_float32(ring_slice(x[block.rows], *span)), shape.chunk_length, shape.window)
        for x in (k_BLD, v_BLD)
    )
    return q_NQD, k_NWD, v_NWD
