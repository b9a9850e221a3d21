"""Tokens sorted by hash bucket, kept sorted while a text grows: what LSH attention reads when it decodes.

Shapes: H heads, N hash rounds, T tokens, K buckets, W tokens of the chunks that a token sees.
"""

import copy

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]


class SortedTokens:
    """The tokens of one text, per head and round ordered by bucket and then by position.

    A new token is the last of its bucket, so its place is the number of tokens in its bucket and those before: no
    sorting, one shift of what comes behind.
    """

    def __init__(self, buckets_HNT: Ints, num_buckets: int) -> None:
        heads, rounds, self.length = buckets_HNT.shape
        # numpy sorts 16-bit numbers by radix.
        narrow = buckets_HNT.astype(np.int16 if num_buckets < 2**15 else np.int32)
        # Behind the text, -1: the padding of its last chunk.
        self.order_HNT = np.full((heads, rounds, self.length), -1, dtype=np.int32)
        self.order_HNT[:] = narrow.argsort(axis=-1, kind="stable")
        number = buckets_HNT + num_buckets * np.arange(heads * rounds).reshape(heads, rounds, 1)
        counts = np.bincount(number.ravel(), minlength=heads * rounds * num_buckets)
        self.ends_HNK = counts.reshape(heads, rounds, num_buckets).cumsum(axis=-1)

    def copy(self) -> "SortedTokens":
        """Return one that grows by itself."""
        return copy.deepcopy(self)

    def append(self, buckets_HN: Ints) -> list[int]:
        """Add a token at the end of the text; return its places in the orders of all heads and rounds."""
        self._make_room(self.length + 1)
        orders, ends = (x.reshape(-1, x.shape[-1]) for x in (self.order_HNT, self.ends_HNK))
        ranks = []
        # Row by row and from a place on: of long texts nothing else is touched.
        for row, counts, bucket in zip(orders, ends, buckets_HN.ravel().tolist(), strict=True):
            behind = counts[bucket:]
            rank = behind.item(0)
            behind += 1
            row[rank + 1 : self.length + 1] = row[rank : self.length]
            row[rank] = self.length
            ranks.append(rank)
        self.length += 1
        return ranks

    def seen(self, ranks: list[int], chunk_length: int, num_before: int, padded: int) -> Ints:
        """Return the tokens (H, N*W) that the last token sees in all rounds, -1 for padding, given what `append` said.

        `padded` is the length of a round: the chunks of all rounds form one ring.
        """
        self._make_room(padded)
        heads, rounds, _ = self.order_HNT.shape
        chunks, before = padded // chunk_length, num_before * chunk_length
        tokens = np.empty((heads * rounds, before + chunk_length), dtype=np.int32)
        orders = self.order_HNT.reshape(heads * rounds, -1)
        for number, (rank, seen) in enumerate(zip(ranks, tokens, strict=True)):
            start = rank - rank % chunk_length
            if start >= before:
                seen[:] = orders[number, start - before : start + chunk_length]
                continue
            head, turn = divmod(number, rounds)
            own = turn * chunks + rank // chunk_length
            for place, chunk in enumerate(range(own - num_before, own + 1)):
                other, first = divmod(chunk % (rounds * chunks), chunks)
                part = orders[head * rounds + other, first * chunk_length : (first + 1) * chunk_length]
                seen[place * chunk_length : (place + 1) * chunk_length] = part
        return tokens.reshape(heads, -1)

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
