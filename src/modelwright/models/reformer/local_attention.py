"""Local self-attention: each chunk attends to itself and its neighbours (Kitaev et al. 2020, appendix; Trax).

Shapes: B batch, L tokens, H heads, D head size, C chunks, Q tokens of a chunk, W of its window, E hidden size.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from modelwright.models.reformer.attention_maps import ChunkPlaces
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.kernels import local_attends_in_parts, local_attention, local_attention_backward
from modelwright.models.reformer.local_kernel import Part, Windows, row_groups
from modelwright.models.reformer.operators import local_attention_op
from modelwright.models.reformer.window_kernel import BLOCK_TOKENS, ring_slice
from modelwright.models.reformer.windows import (
    MASKED_BIAS,
    attend_in_windows,
    look_around,
    merge_heads,
    pruned,
    split_heads,
)
from modelwright.nn.decode_layout import apply_each, is_plain_linear
from modelwright.nn.dropout import seeded_generator
from modelwright.nn.tracing import is_transformed

# A part of a text has so many times the tokens that are projected once more for it.
FEW = 16


def local_attention_with_probabilities(
    q_BHLD: Tensor, k_BHLD: Tensor, v_BHLD: Tensor, key_mask_BL: Tensor | None, shape: Windows
) -> tuple[Tensor, Tensor]:
    """Attend within chunks and their neighbours; return (B, H, L, D) and all probabilities (B, H, C, Q, W)."""
    batch, heads, length, _ = q_BHLD.shape
    chunk_length, around = shape.chunk_length, (shape.num_before, shape.num_after)
    chunks = length // chunk_length

    def chunked(x: Tensor) -> Tensor:
        return x.reshape(-1, chunks, chunk_length, *x.shape[3:])

    bias: Tensor | None = None
    if shape.causal:
        position_1CQ = torch.arange(length, device=q_BHLD.device).view(1, chunks, chunk_length)
        future = position_1CQ.unsqueeze(-1) < look_around(position_1CQ, *around).unsqueeze(-2)
        bias = torch.zeros(future.shape, device=q_BHLD.device).masked_fill_(future, MASKED_BIAS)
    if key_mask_BL is not None:
        mask_BCW = look_around(key_mask_BL.view(batch, chunks, chunk_length), *around)
        mask_GC1W = mask_BCW.repeat_interleave(heads, dim=0).unsqueeze(-2)
        bias = (torch.zeros((), device=q_BHLD.device) if bias is None else bias).masked_fill(~mask_GC1W, MASKED_BIAS)
    out_GCQD, _, probs_GCQW = attend_in_windows(
        chunked(q_BHLD),
        look_around(chunked(k_BHLD * q_BHLD.shape[-1] ** -0.5), *around),
        look_around(chunked(v_BHLD), *around),
        bias,
        dropout=shape.dropout,
        generator=seeded_generator(shape.seed, 0, q_BHLD.device) if shape.dropout else None,
    )
    return out_GCQD.reshape(q_BHLD.shape), probs_GCQW.view(batch, heads, *probs_GCQW.shape[1:])


class LocalSelfAttention(nn.Module):
    """Local self-attention with its three projections, without biases.

    Shapes: (B, L, E) -> (B, L, H*D). Sequences no longer than a chunk are attended in full.
    """

    # Whether `attend_backward` reads what `attend` returned.
    needs_output = False
    _siblings = ("query", "key", "value")

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.heads = [True] * config.num_attention_heads
        self.chunk_length = config.local_attn_chunk_length
        self.num_before = config.local_num_chunks_before
        self.num_after = config.local_num_chunks_after
        self.causal = config.is_decoder
        self.dropout = config.local_attention_probs_dropout_prob
        width = config.num_attention_heads * config.attention_head_size
        self.query = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.key = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.value = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)

    def prune(self, heads: Iterable[int]) -> Tensor:
        """Take heads away, numbered as before any pruning; return the indices that stay of the output."""
        self.heads, index = pruned(self, ("query", "key", "value"), self.heads, heads)
        self.num_heads = sum(self.heads)
        return index

    def project(self, x_BLE: Tensor) -> tuple[Tensor, ...]:
        """Return queries, keys and values, (B, L, H*D) each."""
        return apply_each(x_BLE, self.query, self.key, self.value)

    def overwrites_queries(self, _q: Tensor) -> bool:
        """Tell whether the output can be written over the queries: each has served when its place is attended to."""
        return True

    def keeps_output(self, v: Tensor, num_hashes: int) -> bool:
        """Tell whether the output is worth its memory until the backward.

        It is where it has half of the bytes, or little beside what several hash rounds take.
        """
        return v.element_size() < 4 or num_hashes > 1

    def attends_in_parts(self, x_BLE: Tensor) -> bool:
        """Tell whether `attend_in_parts` does the same as `project` and `attend`: of some tokens twice."""
        layers = (self.query, self.key, self.value)
        return local_attends_in_parts(x_BLE, self.num_heads) and all(map(is_plain_linear, layers))

    def attend_in_parts(
        self, x_BLE: Tensor, norm: Callable[[Tensor], Tensor], call: ForwardCall, layer: LayerCall
    ) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """Yield rows and places of parts of `norm(x)` with their output (rows, places, H*D), without gradients.

        Nothing is of full length. What a part sees before and after itself is projected once more.
        """
        length = x_BLE.shape[1]
        shape = self._windows(length, call, layer)
        chunk = shape.chunk_length
        size = -(-max(BLOCK_TOKENS, FEW * (shape.window - chunk)) // chunk) * chunk
        for rows in row_groups(*x_BLE.shape[:2]):
            mask = None if call.key_mask is None else call.key_mask[rows]
            for first in range(0, length, size):
                last = min(first + size, length)
                low, high = shape.span(first, last)
                q, k, v = self.project(norm(ring_slice(x_BLE[rows], low, high)))
                q = q[:, first - low : last - low]
                into = {"into": q} if q.dtype is v.dtype else {}
                out = local_attention(q, k, v, mask, self.num_heads, shape, part=Part(first, length), **into)
                yield (rows, slice(first, last)), out

    def attend(
        self, projected: tuple[Tensor, ...], call: ForwardCall, layer: LayerCall, into: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the output (B, L, H*D), from what `project` returned.

        It is written to `into` if there is one, which may be the first of the projections, and then has no graph.
        """
        q, k, v = projected
        shape = self._windows(q.shape[1], call, layer)
        if into is not None:
            return (local_attention(q, k, v, call.key_mask, self.num_heads, shape, into=into),)
        settings = (shape.chunk_length, shape.num_before, shape.num_after, shape.causal, shape.dropout, shape.seed)
        return (local_attention_op(q, k, v, call.key_mask, self.num_heads, *settings),)

    def attend_backward(
        self,
        grad: Tensor,
        projected: tuple[Tensor, ...],
        _attended: tuple[Tensor, ...],
        call: ForwardCall,
        layer: LayerCall,
    ) -> tuple[Tensor, ...]:
        """Turn what `project` returned into its gradients, in place; what `attend` returned is not needed."""
        shape = self._windows(grad.shape[1], call, layer)
        q, k, v = projected
        return local_attention_backward(grad, q, k, v, call.key_mask, self.num_heads, shape, in_place=True)

    def forward(self, x_BLE: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor | None]:
        """Return the output and, if the call asks for them, the probabilities."""
        projected = self.project(x_BLE)
        if call.keep is not None:
            call.keep(layer.index, x_BLE, projected)
        # Transforms know the operations of this way, and not the operators of the other.
        if not (call.return_attentions or is_transformed()):
            return self.attend(projected, call, layer)[0], None
        q, k, v = (split_heads(x, self.num_heads) for x in projected)
        length = x_BLE.shape[1]
        shape = self._windows(length, call, layer)
        out_BHLD, probs = local_attention_with_probabilities(q, k, v, call.key_mask, shape)
        if not call.return_attentions:
            return merge_heads(out_BHLD), None
        layer.places = ChunkPlaces(call.length, length, shape)
        return merge_heads(out_BHLD), probs.squeeze(2) if length <= self.chunk_length else probs

    def _windows(self, length: int, call: ForwardCall, layer: LayerCall) -> Windows:
        dropout = self.dropout if layer.training else 0.0
        seed = layer.site_seed(call, "attention_probs")
        if length <= self.chunk_length:
            return Windows(length, 0, 0, self.causal, dropout, seed)
        return Windows(self.chunk_length, self.num_before, self.num_after, self.causal, dropout, seed)
