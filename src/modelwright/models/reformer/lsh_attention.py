"""LSH self-attention: shared queries and keys, sorted by hash, attending within chunks (Kitaev et al. 2020, section 2).

Shapes: B batch, L tokens, H heads, D head size, N hash rounds, G = B*H, C chunks of all rounds together, Q tokens of a
chunk, W tokens of its window, E hidden size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modelwright.models.reformer.attention_maps import ChunkPlaces
from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig, bucket_factors
from modelwright.models.reformer.kernels import lsh_attention, lsh_attention_backward, lsh_overwrites
from modelwright.models.reformer.local_kernel import Windows
from modelwright.models.reformer.lsh_kernel import inverse_order, key_scale, score_bias
from modelwright.models.reformer.operators import lsh_attention_op, order_by_hash
from modelwright.models.reformer.windows import attend_in_windows, look_around, merge_heads, pruned, split_heads
from modelwright.nn.decode_layout import apply_each
from modelwright.nn.dropout import seeded_generator
from modelwright.nn.precision import at_least_float32
from modelwright.nn.tracing import is_transformed


def unit_keys(qk: Tensor) -> Tensor:
    """Return the keys of shared query-key vectors (see `key_scale`), computed in fp32."""
    x = at_least_float32(qk)
    return (x * key_scale(x)).to(qk.dtype)


def lsh_attention_with_probabilities(
    qk_BHLD: Tensor, v_BHLD: Tensor, order_BHNL: Tensor, key_mask_BL: Tensor | None, shape: Windows
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend among tokens that `order_BHNL` sorts next to each other; return (B, H, L, D) and all probabilities.

    Rounds follow each other in one ring of N*L/Q chunks and are combined by their logsumexp: the result is one softmax
    over the keys of all rounds (equation 6 without its count of repeated keys). Probabilities: (B, H, C, Q, W); with
    them comes what each round counts for a token, (B, H, N, L).
    """
    batch, heads, rounds, length = order_BHNL.shape
    groups = batch * heads
    order_GNL = order_BHNL.reshape(groups, rounds, length).long()

    def sort(x_BHLD: Tensor) -> Tensor:
        rows_GRD = x_BHLD.reshape(groups, length, -1)
        index_GRD = order_GNL.view(groups, -1, 1).expand(-1, -1, rows_GRD.shape[-1])
        return chunked(rows_GRD.gather(1, index_GRD))

    def chunked(x: Tensor) -> Tensor:
        return x.reshape(groups, rounds * length // shape.chunk_length, shape.chunk_length, *x.shape[2:])

    def windows(x: Tensor) -> Tensor:
        return look_around(x, shape.num_before, shape.num_after)

    q_GCQD, v_GCQD, position_GCQ = sort(qk_BHLD), sort(v_BHLD), chunked(order_GNL.flatten(1))
    position_GCW = windows(position_GCQ)
    key_mask_GCW = None
    if key_mask_BL is not None:
        mask_GL = key_mask_BL.repeat_interleave(heads, dim=0)
        key_mask_GCW = mask_GL.gather(1, position_GCW.flatten(1)).view(position_GCW.shape)
    out_GCQD, lse_GCQ, probs_GCQW = attend_in_windows(
        q_GCQD,
        windows(unit_keys(q_GCQD)),
        windows(v_GCQD),
        score_bias(
            position_GCQ,
            position_GCW,
            causal=shape.causal,
            key_mask_CW=key_mask_GCW,
            dtype=at_least_float32(qk_BHLD[:0]).dtype,
        ),
        dropout=shape.dropout,
        generator=seeded_generator(shape.seed, 0, qk_BHLD.device) if shape.dropout else None,
    )
    undo_GNL1 = inverse_order(order_GNL).unsqueeze(-1)
    out_GNLD = out_GCQD.view(groups, rounds, length, -1)
    out_GNLD = out_GNLD.gather(2, undo_GNL1.expand_as(out_GNLD))
    weights_GNL1 = lse_GCQ.view(groups, rounds, length, 1).gather(2, undo_GNL1).softmax(dim=1)
    out_GLD = (out_GNLD * weights_GNL1).sum(dim=1).to(out_GNLD.dtype)
    probs_BHCQW = probs_GCQW.view(batch, heads, *probs_GCQW.shape[1:])
    return out_GLD.view(batch, heads, length, -1), probs_BHCQW, weights_GNL1.view(order_BHNL.shape)


def needs_hashing(length: int, num_hashes: int, *, mode: str, chunk_length: int, window: int) -> bool:
    """Return whether LSH attention hashes a sequence of `length` tokens, or attends to all of it exactly.

    A sequence no longer than a chunk is never hashed. "auto" hashes from the length on at which the products of exact
    attention are twice those of the rounds: sorting and gathering cost the other half.
    """
    if length <= chunk_length or mode == "exact":
        return False
    return mode == "lsh" or length > 2 * num_hashes * window


class LSHSelfAttention(nn.Module):
    """LSH self-attention with its projections: one for queries and keys together, one for values, without biases.

    Shapes: (B, L, E) -> (B, L, H*D). `needs_hashing` says which sequences are attended in full instead.
    """

    # Whether `attend_backward` reads what `attend` returned.
    needs_output = True
    _siblings = ("query_key", "value")

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.heads = [True] * config.num_attention_heads
        self.chunk_length = config.lsh_attn_chunk_length
        self.num_before = config.lsh_num_chunks_before
        self.num_after = config.lsh_num_chunks_after
        self.causal = config.is_decoder
        self.dropout = config.lsh_attention_probs_dropout_prob
        self.hash_seed = config.hash_seed
        self.mode = config.attention_mode
        width = config.num_attention_heads * config.attention_head_size
        self.query_key = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)
        self.value = nn.Linear(config.hidden_size, width, bias=False, device=device, dtype=dtype)

    def prune(self, heads: Iterable[int]) -> Tensor:
        """Take heads away, numbered as before any pruning; return the indices that stay of the output."""
        self.heads, index = pruned(self, ("query_key", "value"), self.heads, heads)
        self.num_heads = sum(self.heads)
        return index

    def project(self, x_BLE: Tensor) -> tuple[Tensor, ...]:
        """Return the vectors that are queries and keys, and the values, (B, L, H*D) each."""
        return apply_each(x_BLE, self.query_key, self.value)

    def overwrites_queries(self, qk: Tensor) -> bool:
        """Tell whether the output can be written over the queries, which are keys too."""
        return lsh_overwrites(qk, self.num_heads)

    def keeps_output(self, _v: Tensor, _num_hashes: int) -> bool:
        """Tell whether the output is worth its memory until the backward: a whole attention for each hash round is."""
        return True

    def attend(
        self, projected: tuple[Tensor, ...], call: ForwardCall, layer: LayerCall, into: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the output (B, L, H*D) and what the backward needs of the hash rounds, from what `project` returned.

        The output is written to `into` if there is one, which may be the first of the projections if
        `overwrites_queries` says so, and then has no graph. `layer.order` is set by the first call and reused by a
        replay.
        """
        qk, v = projected
        order = self._order(qk, call, layer)
        shape = self._windows(qk.shape[1], call, layer)
        if into is not None:
            return lsh_attention(qk, v, order, call.key_mask, shape, into=into)
        settings = (shape.chunk_length, shape.num_before, shape.num_after, shape.causal, shape.dropout, shape.seed)
        return lsh_attention_op(qk, v, order, call.key_mask, *settings)  # type: ignore[no-any-return]

    def attend_backward(
        self,
        grad: Tensor,
        projected: tuple[Tensor, ...],
        attended: tuple[Tensor, ...],
        call: ForwardCall,
        layer: LayerCall,
    ) -> tuple[Tensor, ...]:
        """Turn what `project` returned into its gradients, in place; `attended` is what `attend` returned."""
        assert layer.order is not None
        shape = self._windows(grad.shape[1], call, layer)
        (qk, v), (out, rounds) = projected, attended
        return lsh_attention_backward(grad, qk, v, layer.order, call.key_mask, out, rounds, shape, in_place=True)

    def forward(self, x_BLE: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor | None]:
        """Return the output and, if the call asks for them, the probabilities."""
        projected = self.project(x_BLE)
        if call.keep is not None:
            call.keep(layer.index, x_BLE, projected)
        # Transforms know the operations of this way, and not the operators of the other.
        if not (call.return_attentions or is_transformed()):
            return self.attend(projected, call, layer)[0], None
        order = self._order(projected[0], call, layer)
        qk_BHLD, v_BHLD = (split_heads(x, self.num_heads) for x in projected)
        length = x_BLE.shape[1]
        shape = self._windows(length, call, layer)
        out_BHLD, probs, weights = lsh_attention_with_probabilities(qk_BHLD, v_BHLD, order, call.key_mask, shape)
        if not call.return_attentions:
            return merge_heads(out_BHLD), None
        layer.places = ChunkPlaces(call.length, length, shape, order, weights)
        return merge_heads(out_BHLD), probs.squeeze(2) if length <= self.chunk_length else probs

    def _hashes(self, length: int, call: ForwardCall) -> bool:
        window = self.chunk_length * (self.num_before + 1 + self.num_after)
        return needs_hashing(length, call.num_hashes, mode=self.mode, chunk_length=self.chunk_length, window=window)

    def _windows(self, length: int, call: ForwardCall, layer: LayerCall) -> Windows:
        dropout = self.dropout if layer.training else 0.0
        seed = layer.site_seed(call, "attention_probs")
        if length <= self.chunk_length:
            return Windows(length, 0, 0, self.causal, dropout, seed)
        if self._hashes(length, call):
            return Windows(self.chunk_length, self.num_before, self.num_after, self.causal, dropout, seed)
        # As many chunks before as there are others in the ring: every window is the whole sequence.
        return Windows(self.chunk_length, length // self.chunk_length - 1, 0, self.causal, dropout, seed)

    def _order(self, qk_BLE: Tensor, call: ForwardCall, layer: LayerCall) -> Tensor:
        if layer.order is None:
            batch, length = qk_BLE.shape[:2]
            if not self._hashes(length, call):
                places = torch.arange(length, device=qk_BLE.device, dtype=torch.int32)
                layer.order = places.expand(batch, self.num_heads, 1, length)
            else:
                assert call.num_buckets is not None
                seed = layer.site_seed(call, "hash") if self.hash_seed is None else self.hash_seed
                factors = bucket_factors(call.num_buckets)
                layer.order = order_by_hash(qk_BLE.detach(), call.key_mask, self.heads, call.num_hashes, factors, seed)
        return layer.order
