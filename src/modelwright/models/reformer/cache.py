"""What a Reformer keeps of a text to go on from it: keys and values, and for LSH attention the sorted order of tokens.

The hash rotations of a text are fixed by its seed, so the buckets of old and new tokens go together. Each row of a
batch is a text by itself, of its own length: what it attends to is what it attends to alone.

Shapes: B rows, T tokens, H heads, D head size, N hash rounds, M tokens that a query sees, E hidden size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.hashing import both_ways, draw_rotations, hash_one, hash_vectors
from modelwright.models.reformer.kept_keys import KeyPool, KeyRing, attend, ring_bias, tokens_in_ring
from modelwright.models.reformer.local_attention import LocalSelfAttention
from modelwright.models.reformer.lsh_attention import LSHSelfAttention, unit_keys
from modelwright.models.reformer.lsh_kernel import unit_keys_in_numpy
from modelwright.models.reformer.one_token import PlainLayers
from modelwright.models.reformer.sorted_tokens import Ints, SortedTokens
from modelwright.models.reformer.windows import MASKED_BIAS, SELF_BIAS

_SELF = np.float32(SELF_BIAS)
# What one LSH layer hashes a row with: None where it is attended to in full.
Factors = tuple[int, ...] | None


@dataclass
class Step:
    """One new token of each row: the lengths before it, and with it the padded lengths and the hash's factors.

    `ring` is what local layers share; the first one sets it.
    """

    lengths: list[int]
    padded: list[int]
    factors: list[Factors]
    call: ForwardCall
    ring: tuple[Tensor, Ints | None] | None = None
    need_probs: bool = False


class LocalCache:
    """The last keys and values of a local layer."""

    def __init__(self, attention: LocalSelfAttention) -> None:
        self.chunk_length, self.num_before = attention.chunk_length, attention.num_before
        self.ring: KeyRing | None = None

    def fill(self, rows: Sequence[int], batch: int, projected: tuple[Tensor, ...]) -> None:
        """Keep the text of some rows, (rows, T, H, D) each of queries, keys and values."""
        _, k_BTHD, v_BTHD = projected
        if self.ring is None:
            self.ring = KeyRing(k_BTHD, v_BTHD, batch, (self.num_before + 1) * self.chunk_length)
        self.ring.fill(rows, k_BTHD, v_BTHD)

    def attend(
        self, projected: tuple[Tensor, ...], step: Step, _layer: LayerCall
    ) -> tuple[Tensor, Tensor | None, Ints | None]:
        """Keep a token of each row, (B, H, D) each; return (B, H*D), the probabilities if asked, and their tokens."""
        assert self.ring is not None
        q_BHD, k_BHD, v_BHD = projected
        self.ring.append(k_BHD, v_BHD, step.lengths)
        bias_B1M, tokens_B1M = self._ring(self.ring.keys.shape[2], step)
        bias_B1M, scale = bias_B1M.to(q_BHD.device), q_BHD.shape[-1] ** -0.5
        out, probs = attend(q_BHD, self.ring.keys, self.ring.values, bias_B1M, scale, need_probs=step.need_probs)
        return out, probs, tokens_B1M

    def _ring(self, size: int, step: Step) -> tuple[Tensor, Ints | None]:
        """Return the bias of a ring's places and, with probabilities, the tokens there, (B or 1, 1, M).

        All local layers share them.
        """
        if step.ring is None:
            pairs = list(dict.fromkeys(zip(step.lengths, step.padded, strict=True)))
            if len(pairs) > 1:
                pairs = list(zip(step.lengths, step.padded, strict=True))
            rules = (size, self.chunk_length, self.num_before)
            bias = np.stack([ring_bias(last, *rules, padded) for last, padded in pairs])[:, None]
            tokens = np.stack([tokens_in_ring(last, size) for last, _ in pairs])[:, None] if step.need_probs else None
            step.ring = torch.from_numpy(bias), tokens
        return step.ring

    def reorder(self, rows: Sequence[int], _lengths: Sequence[int]) -> None:
        """Let row i be what row `rows[i]` was."""
        if self.ring is not None:
            self.ring.reorder(rows)

    def buckets(self, _num_buckets: int) -> None:
        """A local layer has none."""


class LSHCache:
    """Keys, values and the sorted order of an LSH layer; keys are normalised, as attention uses them."""

    def __init__(self, attention: LSHSelfAttention) -> None:
        self.heads = list(attention.heads)
        self.chunk_length, self.num_before = attention.chunk_length, attention.num_before
        self.hash_seed = attention.hash_seed
        self.pool: KeyPool | None = None
        self.sorted: list[SortedTokens | None] = []
        self.factors: list[Factors] = []
        self._rotations: dict[tuple[Any, ...], tuple[Tensor, Any]] = {}

    def fill(self, rows: Sequence[int], batch: int, projected: tuple[Tensor, ...]) -> None:
        """Keep the text of some rows, (rows, T, H, D) each of shared queries and keys and of values."""
        qk_BTHD, v_BTHD = projected
        if self.pool is None:
            self.pool = KeyPool(v_BTHD, batch)
            self.sorted, self.factors = [None] * batch, [None] * batch
        self.pool.fill(rows, unit_keys(qk_BTHD).to(v_BTHD.dtype), v_BTHD)

    def hash_rows(self, rows: Sequence[int], step: Step, layer: LayerCall) -> None:
        """Sort all tokens of some rows anew, with the factors of `step`."""
        assert self.pool is not None
        for row in rows:
            factors, length = step.factors[row], step.lengths[row]
            self.factors[row] = factors
            self.sorted[row] = None
            if factors is not None:
                tokens = np.broadcast_to(np.arange(length), (1, sum(self.heads), length))
                keys_1HTD, _ = self.pool.take(tokens, [row])
                self.sorted[row] = SortedTokens(self._hash(keys_1HTD, factors, step, layer)[0], math.prod(factors))

    def attend(self, projected: tuple[Tensor, ...], step: Step, layer: LayerCall) -> tuple[Tensor, Tensor | None, Ints]:
        """Keep a token of each row, (B, H, D) each; return (B, H*D), the probabilities if asked, and their tokens."""
        assert self.pool is not None
        qk_BHD, v_BHD = projected
        qk_in_numpy, k_BHD = _unit_keys(qk_BHD, v_BHD.dtype)
        self.hash_rows([row for row, new in enumerate(step.factors) if new != self.factors[row]], step, layer)
        self.pool.append(k_BHD, v_BHD, step.lengths)
        seen: list[Ints] = [np.empty(0, dtype=np.int64)] * len(step.lengths)
        for factors in set(step.factors):
            rows = [row for row, each in enumerate(step.factors) if each == factors]
            if factors is None:
                for row in rows:
                    tokens = np.arange(step.lengths[row] + 1)
                    seen[row] = np.broadcast_to(tokens, (len(qk_BHD[row]), len(tokens)))
                continue
            _, rotations = self._drawn(k_BHD, factors, step, layer)
            part_BHD = qk_in_numpy if len(rows) == len(qk_in_numpy) else qk_in_numpy[rows]
            for row, buckets_HN in zip(rows, hash_one(part_BHD, rotations, factors), strict=True):
                known = self.sorted[row]
                assert known is not None
                ranks = known.append(buckets_HN)
                seen[row] = known.seen(ranks, self.chunk_length, self.num_before, step.padded[row])
        tokens_BHM = _stacked(seen)
        own = step.lengths[0] if len(step.lengths) == 1 else np.array(step.lengths)[:, None, None]
        bias = (tokens_BHM == own) * _SELF
        if tokens_BHM.min() < 0:
            bias[tokens_BHM < 0] = MASKED_BIAS
            tokens_BHM = np.maximum(tokens_BHM, 0)
        keys, values = self.pool.take(tokens_BHM)
        there = torch.from_numpy(bias).to(qk_BHD.device)
        out, probs = attend(qk_BHD, keys, values, there, 1.0, need_probs=step.need_probs)
        return out, probs, tokens_BHM

    def reorder(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Let row i be what row `rows[i]` was."""
        if self.pool is None:
            return
        self.pool.reorder(rows, lengths)
        self.factors = [self.factors[row] for row in rows]
        known = [self.sorted[row] for row in rows]
        used: set[int] = set()
        for index, (row, each) in enumerate(zip(rows, known, strict=True)):
            if each is not None and row in used:
                known[index] = each.copy()
            used.add(row)
        self.sorted = known

    def buckets(self, num_buckets: int) -> Tensor | None:
        """Return the buckets (B, H, N, T), those of round n above those of n - 1; None if nothing was hashed."""
        if any(each is None for each in self.sorted):
            return None
        found = np.stack([each.buckets() for each in self.sorted if each is not None])
        return torch.from_numpy(found + num_buckets * np.arange(found.shape[2])[:, None])

    def _hash(self, keys_BHTD: Tensor, factors: tuple[int, ...], step: Step, layer: LayerCall) -> Ints:
        """Return the buckets (B, H, N, T) of many tokens, one head at a time."""
        rotations_HDNR, _ = self._drawn(keys_BHTD, factors, step, layer)
        heads = [slice(head, head + 1) for head in range(keys_BHTD.shape[1])]
        parts = [hash_vectors(keys_BHTD[:, head], rotations_HDNR[head], factors) for head in heads]
        return torch.cat(parts, dim=1).cpu().numpy()

    def _drawn(self, like: Tensor, factors: tuple[int, ...], step: Step, layer: LayerCall) -> tuple[Tensor, Any]:
        """Return the rotations (H, D, N, R), and what `hash_one` takes of them."""
        seed = layer.site_seed(step.call, "hash") if self.hash_seed is None else self.hash_seed
        call = (factors, step.call.num_hashes, seed)
        if call not in self._rotations:
            drawn = draw_rotations(self.heads, like.shape[-1], step.call.num_hashes, factors, like=like, seed=seed)
            self._rotations = {call: (drawn, both_ways(drawn, factors)), **dict(list(self._rotations.items())[:3])}
        return self._rotations[call]


def _unit_keys(qk_BHD: Tensor, dtype: torch.dtype) -> tuple[Any, Tensor]:
    """Return one token's shared queries and keys of each row in numpy, in fp32, and the keys in `dtype`, (B, H, D)."""
    if qk_BHD.is_cpu and qk_BHD.dtype is dtype is torch.float32:
        in_numpy_BHD = qk_BHD.numpy()
        return in_numpy_BHD, torch.from_numpy(unit_keys_in_numpy(in_numpy_BHD))
    return qk_BHD.float().cpu().numpy(), unit_keys(qk_BHD).to(dtype)


def _stacked(seen: list[Ints]) -> Ints:
    """Return (B, H, M) of the tokens that the rows see, the shorter ones filled with -1."""
    if len(seen) == 1:
        return seen[0][None]
    most = max(tokens.shape[-1] for tokens in seen)
    return np.stack([np.pad(each, ((0, 0), (0, most - each.shape[-1])), constant_values=-1) for each in seen])


class ReformerCache:
    """The cache of one model for a batch of texts: what `past_buckets_states` is.

    `lengths` are the tokens of each row, without padding; `columns` counts the ids read, with it. `seed` decides the
    rotations of all layers, unless the config's `hash_seed` does. `states`, each layer's normed input (B, T, E), is
    kept for `legacy_cache` only. `plain` is what decoding has looked up of the model; copies and files lack it.
    """

    def __init__(self, layers: Sequence[LocalCache | LSHCache], batch: int, num_hashes: int, *, legacy: bool) -> None:
        self.layers = list(layers)
        self.lengths = [0] * batch
        self.columns = 0
        self.num_hashes = num_hashes
        self.num_buckets = 0
        self.seed: int | None = None
        self.states: list[Tensor] | None = [torch.empty(0)] * len(self.layers) if legacy else None
        self.plain: PlainLayers | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "plain": None}

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"ReformerCache({len(self.layers)} layers, lengths={self.lengths})"

    def get_seq_length(self) -> int:
        """Return the number of tokens of the longest row."""
        return max(self.lengths)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i be what row `beam_idx[i]` was; rows may be left out and repeated."""
        rows = beam_idx.tolist()
        self.lengths = [self.lengths[row] for row in rows]
        for layer in self.layers:
            layer.reorder(rows, self.lengths)
        if self.states is not None:
            self.states = [states.index_select(0, beam_idx.to(states.device)) for states in self.states]

    def to_legacy_cache(self) -> list[tuple[Tensor | None, Tensor]]:
        """Return each layer's buckets (B, H, N, T), None if it did not hash, and its normed input (B, T, E)."""
        assert self.states is not None
        found = [layer.buckets(self.num_buckets) for layer in self.layers]
        return list(zip(found, self.states, strict=True))
