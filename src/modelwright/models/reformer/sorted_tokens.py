"""Tokens sorted by hash bucket, kept sorted while a text grows: what LSH attention reads when it decodes.

Shapes: H heads, N hash rounds, T tokens, K buckets, W tokens of the chunks that a token sees.
"""

import copy
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]


@lru_cache(maxsize=16)
def _ranges(heads: int, rounds: int, num_before: int, chunk_length: int) -> tuple[Ints, Ints, Ints]:
    """Return the chunks that a token sees, from its own, the first row of each head, and the places of a chunk."""
    rows_H11 = np.arange(0, heads * rounds, rounds)[:, None, None]
    return np.arange(-num_before, 1), rows_H11, np.arange(chunk_length)


class SortedTokens:
    """The tokens of one text, per head and round ordered by bucket and then by position.

    A new token is the last of its bucket, so its place is the number of tokens in its bucket and those before: no
    sorting, one shift of what comes behind.
    """

    def __init__(self, buckets_HNT: Ints, num_buckets: int) -> None:
        heads, rounds, self.length = buckets_HNT.shape
        # numpy sorts 16-bit numbers by radix.
        narrow = buckets_HNT.astype(np.int16 if num_buckets < 2**15 else np.int32)
        self._first_HN = np.arange(heads * rounds).reshape(heads, rounds) * num_buckets
        # Behind the text, -1: the padding of its last chunk.
        self.order_HNT = np.full((heads, rounds, self.length), -1, dtype=np.int32)
        self.order_HNT[:] = narrow.argsort(axis=-1, kind="stable")
        number = self._first_HN[..., None] + buckets_HNT
        counts = np.bincount(number.ravel(), minlength=heads * rounds * num_buckets)
        self.ends_HNK = counts.reshape(heads, rounds, num_buckets).cumsum(axis=-1)

    def _ends(self, buckets_HN: Ints) -> Ints:
        """Return how many tokens are in these buckets and those before, (H, N)."""
        ends: Ints = self.ends_HNK.ravel().take(self._first_HN + buckets_HN)
        return ends

    def copy(self) -> "SortedTokens":
        """Return one that grows by itself."""
        return copy.deepcopy(self)

    def append(self, buckets_HN: Ints) -> None:
        """Add a token at the end of the text."""
        self._make_room(self.length + 1)
        ranks_HN = self._ends(buckets_HN)
        orders, ends = (x.reshape(-1, x.shape[-1]) for x in (self.order_HNT, self.ends_HNK))
        # Row by row and from a place on: of long texts nothing else is touched.
        for row, counts, rank, bucket in zip(
            orders, ends, ranks_HN.ravel().tolist(), buckets_HN.ravel().tolist(), strict=True
        ):
            row[rank + 1 : self.length + 1] = row[rank : self.length]
            row[rank] = self.length
            counts[bucket:] += 1
        self.length += 1

    def seen(self, buckets_HN: Ints, chunk_length: int, num_before: int, padded: int) -> Ints:
        """Return the tokens (H, N*W) that the last token sees in all rounds, -1 for padding, given its buckets.

        `padded` is the length of a round: the chunks of all rounds form one ring.
        """
        self._make_room(padded)
        heads, rounds, room = self.order_HNT.shape
        chunks = padded // chunk_length
        rank_HN = self._ends(buckets_HN) - 1
        before, rows, places = _ranges(heads, rounds, num_before, chunk_length)
        own_HN = rank_HN // chunk_length if rounds == 1 else np.arange(rounds) * chunks + rank_HN // chunk_length
        chunk_HNC = (own_HN[..., None] + before) % (rounds * chunks)
        if rounds == 1:
            first_HNC = rows * room + chunk_HNC * chunk_length
        else:
            first_HNC = (rows + chunk_HNC // chunks) * room + chunk_HNC % chunks * chunk_length
        place = first_HNC[..., None] + places
        tokens: Ints = self.order_HNT.ravel().take(place.reshape(heads, -1))
        return tokens

    def buckets(self) -> Ints:
        """Return the bucket of each token, (H, N, T)."""
        heads, rounds, _ = self.order_HNT.shape
        result = np.empty((heads, rounds, self.length), dtype=np.int64)
        for head in range(heads):
            for turn in range(rounds):
                sorted_T = np.searchsorted(self.ends_HNK[head, turn], np.arange(self.length), side="right")
                result[head, turn, self.order_HNT[head, turn, : self.length]] = sorted_T
        return result

    def _make_room(self, tokens: int) -> None:
        room = self.order_HNT.shape[-1]
        if tokens > room:
            more = max(tokens, room + room // 2) - room
            self.order_HNT = np.pad(self.order_HNT, ((0, 0), (0, 0), (0, more)), constant_values=-1)
