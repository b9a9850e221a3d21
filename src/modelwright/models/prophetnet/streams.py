"""Who sees whom in ProphetNet's decoder: the main stream, and the streams that predict (Qi et al. 2020, section 3).

The main stream reads the text, each token those up to itself. Predict stream g stands beside each token and predicts
the token behind it, without the last g that the main stream has read there: at t it sees the main tokens up to t - g,
always the first one, and itself. Distances from a predict stream count one more, as it stands where the next token
will.

    column      main 0 1 2 3   own          T = 4, query t = 2
    main             x x x .    .
    stream 0         x x x .    x
    stream 1         x x . .    x           g = 1

Legend: B batch, T query tokens, S key tokens, G streams (the main one first), N buckets, U = 1 + S, W = T + 2.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.models.prophetnet.relative_buckets import relative_buckets
from modelwright.nn.tracing import is_tracing, is_transformed


@dataclass(frozen=True)
class Streams:
    """The streams of one call of the decoder, which all its layers share.

    `predict` of the model's predict streams are computed. `past` tokens lie in the cache. `mask` (B, S), over past and
    new tokens, is 1 where the main stream's tokens are real; None: all are. `sees_all` lets predict streams see the
    main tokens up to their own place in a call with a past, whatever their number. `from_first_real`: the token that is
    always seen is each row's first real one, not that of the first column.
    """

    tokens: int
    past: int
    predict: int
    num_buckets: int
    max_distance: int
    mask: Tensor | None
    sees_all: bool
    from_first_real: bool
    device: torch.device
    _made: list[tuple[int, "Places"]] = field(default_factory=list, init=False, repr=False)

    @property
    def shifts(self) -> tuple[int, ...]:
        """For each stream, how many of the last tokens it does not see."""
        return (0, *range(self.predict))

    @cached_property
    def diagonals(self) -> "Diagonals":
        """The same by distance, for a call without a past."""
        return Diagonals.of(self)

    @property
    def is_plain(self) -> bool:
        """Whether `diagonals` and `hidden` say all: there is no past, and the first column is always seen.

        And whether a function with a backward of its own may read them.
        """
        if self.past or is_tracing() or is_transformed():
            return False
        moved = self.from_first_real and self.mask is not None and not bool(self.mask[:, 0].all())
        return not moved

    @cached_property
    def hidden(self) -> Tensor | None:
        """Where the main stream's tokens are padding, or None."""
        return None if self.mask is None else ~self.mask.bool()

    def places(self, keys: int) -> "Places":
        """Return who sees whom, element by element, with `keys` main keys; those behind the last token are empty."""
        # No dictionary: the length of an exported program is a symbol, which has no hash.
        for known, places in self._made:
            if known == keys:
                return places
        self._made.append((keys, self._places(keys)))
        return self._made[-1][1]

    def _places(self, keys: int) -> "Places":
        queries_T1 = torch.arange(self.past, self.past + self.tokens, device=self.device)[:, None]
        columns_S = torch.arange(keys, device=self.device)
        distances_TS = queries_T1 - columns_S
        buckets = relative_buckets(self.past + self.tokens + 1, self.num_buckets, self.max_distance, self.device)
        main_TS = buckets[distances_TS.clamp(min=0)]
        ahead_TS = buckets[(distances_TS + 1).clamp(min=0)]
        buckets_GTS = torch.stack([main_TS, *[ahead_TS] * self.predict])
        return Places(buckets_GTS, self._visible(distances_TS, columns_S))

    def _visible(self, distances_TS: Tensor, columns_S: Tensor) -> Tensor | None:
        """Return (B or 1, 1, G, T, S), or None where all see all keys."""
        T, S = distances_TS.shape
        reaches_all = self.sees_all and self.past > 0
        if T == 1 and self.past + T == S and self.mask is None and (reaches_all or self.predict <= 1):
            return None
        always_BS = (columns_S == 0)[None]
        if self.from_first_real and self.mask is not None:
            always_BS = F.pad(self.mask, (0, S - self.mask.shape[1])).cumsum(dim=1) == 1
        past_TS = distances_TS >= 0
        each = [
            past_TS & ((distances_TS >= (0 if reaches_all else shift)) | always_BS[:, None]) for shift in self.shifts
        ]
        visible = torch.stack(each, dim=1)[:, None]
        if self.mask is not None:
            real_BS = F.pad(self.mask.bool(), (0, S - self.mask.shape[1]))
            visible = visible & real_BS[:, None, None, None]
        return visible


@dataclass(frozen=True)
class Places:
    """Buckets (G, T, S) of the distances from the queries to the main keys, and which of these may be seen."""

    buckets: Tensor
    visible: Tensor | None

    @cached_property
    def with_own(self) -> Tensor:
        """The buckets (G, U) of one token, its own key, which has the first bucket, before the main keys."""
        return F.pad(self.buckets[:, 0], (1, 0))

    @cached_property
    def before_own(self) -> Tensor:
        """The same with the own key behind the main keys."""
        return F.pad(self.buckets[:, 0], (0, 1))


@dataclass(frozen=True)
class Diagonals:
    """Who sees whom by distance: column c of W belongs to the distance T + 1 - c back from the query.

    A row of W columns after the other, read with a row length of T + 1 from element T on, is the matrix of queries and
    keys, because a key's column moves by one from query to query:

        by distance (T = 2, W = 4)          read with T + 1 = 3 from element 2 on
        t = 0   d =  3  2  1  0             t = 0   d = 1  0 | 3'       own, key 0, key 1
        t = 1   d =  3' 2' 1' 0'            t = 1   d = 2' 1'  0'

    Its first column would be the key before the first: that is where a predict stream's own key goes. A key after the
    query lands on a distance that the next query has no key for, so what is closed there is closed here.
    The first S tokens alone have the last S + 2 columns, and the last n queries of these are read from element n on.
    `closed` (G, T, W) is 0 or -inf, `buckets` (G, N, W) has a one for the bucket of each column.
    """

    closed: Tensor
    buckets: Tensor

    @classmethod
    def of(cls, streams: Streams) -> "Diagonals":
        """Return them for all streams of a call without a past."""
        T, device = streams.tokens, streams.device
        distances_W = torch.arange(T + 1, -1, -1, device=device)
        buckets = relative_buckets(T + 3, streams.num_buckets, streams.max_distance, device)
        numbers_N1 = torch.arange(streams.num_buckets, device=device)[:, None]
        queries_T1 = torch.arange(T, device=device)[:, None]
        open_GTW = [
            (distances_W <= queries_T1) & ((distances_W >= shift) | (distances_W == queries_T1))
            for shift in streams.shifts
        ]
        own, ahead = (numbers_N1 == buckets[distances_W + more] for more in (0, 1))
        closed = torch.zeros(len(open_GTW), T, T + 2, device=device)
        return cls(
            closed.masked_fill_(~torch.stack(open_GTW), float("-inf")),
            torch.stack([own, *[ahead] * streams.predict]).to(closed.dtype),
        )


def checked_mask(where: str, mask: Tensor | None, batch: int, total: int) -> Tensor | None:
    """Return a mask of ones and zeros (batch, total), or None if it hides nothing; InputError for other shapes."""
    if mask is None:
        return None
    if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] != total:
        raise InputError(
            f"{where}: expected an attention mask of shape ({batch}, {total}), for the tokens of the cache and the new "
            f"ones, got {tuple(mask.shape)}"
        )
    if not is_tracing() and bool(mask.all()):
        return None
    return mask.long()
