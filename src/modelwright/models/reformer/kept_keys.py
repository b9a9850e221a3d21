"""Where the keys and values of a decoded text are: a pool for LSH layers, a ring for local ones.

Shapes: B rows, T tokens, H heads, D head size, M tokens that a query sees, R places of a ring.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from modelwright.models.reformer.sorted_tokens import Ints
from modelwright.models.reformer.windows import MASKED_BIAS
from modelwright.nn.precision import at_least_float32


def attend(
    q_BHD: Tensor, k_BHMD: Tensor, v_BHMD: Tensor, bias: Tensor, scale: float, *, need_probs: bool
) -> tuple[Tensor, Tensor | None]:
    """Return what one query a row and head attends to, (B, H*D), and the probabilities (B, H, M) if they are asked for.

    In fp32 at least. `bias`, (B, 1 or H, M), is added to the scores, which `scale` multiplies.
    """
    dtype = v_BHMD.dtype
    # Asked once: for one token each question takes its time. They may come from layers of different precisions.
    if not q_BHD.dtype is k_BHMD.dtype is dtype is torch.float32:
        q_BHD, k_BHMD, v_BHMD = at_least_float32(q_BHD), at_least_float32(k_BHMD), at_least_float32(v_BHMD)
        bias = bias.to(q_BHD.dtype)
    if not need_probs:
        q_BH1D, mask = q_BHD.unsqueeze(2), bias.unsqueeze(2)
        out = scaled_dot_product_attention(q_BH1D, k_BHMD, v_BHMD, attn_mask=mask, scale=scale).flatten(1)
        return (out if dtype is torch.float32 else out.to(dtype)), None
    batch, heads, seen, size = k_BHMD.shape
    q_GD = q_BHD.reshape(batch * heads, 1, size)
    k_GMD, v_GMD = (x.reshape(batch * heads, seen, size) for x in (k_BHMD, v_BHMD))
    bias_G1M = bias.expand(batch, heads, seen).reshape(batch * heads, 1, seen)
    probs_G1M = torch.baddbmm(bias_G1M, q_GD, k_GMD.transpose(1, 2), alpha=scale).softmax(dim=-1)
    out = torch.bmm(probs_G1M, v_GMD).view(batch, heads * size)
    return out.to(dtype), probs_G1M.view(batch, heads, seen)


@lru_cache(maxsize=16)
def _column(numbers: int) -> Ints:
    return np.arange(numbers)[:, None]


class KeyPool:
    """Keys and values of all tokens. Rows that go the same way for a while, as beams do, share what they share.

    A row's token t is in the pool's row `origin[row, t]`, or in its own if `origin` is None; reordering rows moves
    these numbers, not the keys.
    """

    def __init__(self, like_BTHD: Tensor, rows: int) -> None:
        _, tokens, heads, self.size = like_BTHD.shape
        # A token's key and value lie side by side: they are fetched together.
        self.pairs = like_BTHD.new_empty(rows, tokens, heads, 2 * self.size)
        self.origin: Ints | None = None

    def fill(self, rows: Sequence[int], keys_BTHD: Tensor, values_BTHD: Tensor) -> None:
        """Set the first tokens of some rows of a new pool."""
        length = keys_BTHD.shape[1]
        self._make_room(length)
        index = torch.tensor(rows, device=self.pairs.device)
        self.pairs[index, :length] = torch.cat([keys_BTHD, values_BTHD], dim=-1)

    def append(self, keys_BHD: Tensor, values_BHD: Tensor, lengths: Sequence[int]) -> None:
        """Add one token to each row, whose lengths before it are given."""
        self._make_room(max(lengths) + 1)
        if min(lengths) == max(lengths):
            torch.cat([keys_BHD, values_BHD], dim=-1, out=self.pairs.select(1, lengths[0])[: len(lengths)])
        else:
            rows = torch.arange(len(lengths), device=self.pairs.device)
            at = rows, torch.tensor(lengths, device=self.pairs.device)
            self.pairs[at] = torch.cat([keys_BHD, values_BHD], dim=-1)
        if self.origin is not None:
            self.origin[np.arange(len(lengths)), lengths] = np.arange(len(lengths))

    def take(self, tokens_BHM: Ints, rows_B: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, M, D) of tokens of these rows, all by default."""
        batch, heads, _ = tokens_BHM.shape
        numbers_H1 = _column(heads)
        if batch == 1 and rows_B is None and self.origin is None:
            place = tokens_BHM * heads + numbers_H1
        else:
            rows = (np.arange(batch) if rows_B is None else np.array(rows_B))[:, None, None]
            if self.origin is not None:
                rows = self.origin[rows, tokens_BHM]
            place = (rows * self.pairs.shape[1] + tokens_BHM) * heads + numbers_H1
        index = torch.from_numpy(place.ravel()).to(self.pairs.device)
        taken = self.pairs.view(-1, 2 * self.size).index_select(0, index)
        keys, values = taken.view(*tokens_BHM.shape, 2, self.size).unbind(3)
        return keys, values

    def reorder(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Let row i be what row `rows[i]` was; `lengths` are those of the new rows."""
        held, room = self.pairs.shape[:2]
        if self.origin is None:
            self.origin = np.repeat(np.arange(held)[:, None], room, axis=1)
        self.origin = self.origin[list(rows)]
        if len(rows) > held:
            more = self.pairs.new_empty(len(rows) - held, *self.pairs.shape[1:])
            self.pairs = torch.cat([self.pairs, more])
        if self._would_overwrite(lengths):
            origin = torch.from_numpy(self.origin).to(self.pairs.device)
            self.pairs = self.pairs[origin, torch.arange(room, device=self.pairs.device)]
            self.origin = None

    def _would_overwrite(self, lengths: Sequence[int]) -> bool:
        """Tell whether a row's next token would fall on one that another, longer row has there."""
        assert self.origin is not None
        if min(lengths) == max(lengths):
            return False
        ends = np.full(len(self.pairs), self.pairs.shape[1])
        ends[: len(lengths)] = lengths
        tokens = np.arange(self.origin.shape[1])
        return bool(((tokens >= ends[self.origin]) & (tokens < np.array(lengths)[:, None])).any())

    def _make_room(self, tokens: int) -> None:
        held, room = self.pairs.shape[:2]
        if tokens <= room:
            return
        more = max(tokens, room + room // 2 + 64) - room
        self.pairs = torch.cat([self.pairs, self.pairs.new_empty(held, more, *self.pairs.shape[2:])], dim=1)
        if self.origin is not None:
            self.origin = np.pad(self.origin, ((0, 0), (0, more)))


class KeyRing:
    """Keys and values of the last tokens, as many as local attention can see; token t is in place t modulo R."""

    def __init__(self, keys_BTHD: Tensor, values_BTHD: Tensor, rows: int, size: int) -> None:
        shape = (rows, keys_BTHD.shape[2], size, keys_BTHD.shape[3])
        self.keys, self.values = keys_BTHD.new_zeros(shape), values_BTHD.new_zeros(shape)

    def fill(self, rows: Sequence[int], keys_BTHD: Tensor, values_BTHD: Tensor) -> None:
        """Set the first tokens of some rows."""
        size, length = self.keys.shape[2], keys_BTHD.shape[1]
        index = torch.tensor(rows, device=self.keys.device)[:, None]
        places = torch.arange(max(0, length - size), length, device=self.keys.device)
        for ring, new in ((self.keys, keys_BTHD), (self.values, values_BTHD)):
            ring.transpose(1, 2)[index, places % size] = new[:, -size:]

    def append(self, keys_BHD: Tensor, values_BHD: Tensor, lengths: Sequence[int]) -> None:
        """Add one token to each row, whose lengths before it are given."""
        size = self.keys.shape[2]
        if min(lengths) == max(lengths):
            self.keys.select(2, lengths[0] % size).copy_(keys_BHD)
            self.values.select(2, lengths[0] % size).copy_(values_BHD)
            return
        rows = torch.arange(len(lengths))
        places = torch.tensor(lengths) % size
        self.keys[rows, :, places] = keys_BHD
        self.values[rows, :, places] = values_BHD

    def reorder(self, rows: Sequence[int]) -> None:
        """Let row i be what row `rows[i]` was."""
        index = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = self.keys[index], self.values[index]


def tokens_in_ring(last: int, size: int) -> Ints:
    """Return the token in each place of a ring (R) whose newest token is `last`; below 0: none yet."""
    return last - (last - np.arange(size)) % size


def ring_bias(last: int, size: int, chunk_length: int, num_before: int, padded: int) -> np.ndarray:
    """Return what is added to the scores of a ring's places (R) when token `last` looks at its chunk and those before.

    The chunks of a sequence of `padded` tokens form a ring themselves: one that is shorter than what a token sees is
    seen more than once, so that its keys count as often.
    """
    chunk, place = last // chunk_length, last % size
    if padded <= chunk_length or chunk >= num_before:
        # Behind it, its own chunk's places hold what is too old; those of other chunks what it sees, or nothing yet.
        end = (place // chunk_length + 1) * chunk_length if chunk >= num_before else size
        bias = np.zeros(size, dtype=np.float32)
        bias[place + 1 : end] = MASKED_BIAS
        return bias
    tokens = tokens_in_ring(last, size)
    chunks = padded // chunk_length
    times = np.bincount((chunk + np.arange(-num_before, 1)) % chunks, minlength=chunks)
    seen = np.where(tokens >= 0, times[np.maximum(tokens, 0) // chunk_length], 0)
    return np.where(seen > 0, np.log(np.maximum(seen, 1)), MASKED_BIAS).astype(np.float32)
