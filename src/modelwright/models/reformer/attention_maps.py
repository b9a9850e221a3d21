"""Attention probabilities as a model returns them, in chunks, and as one matrix of tokens.

Shapes: B batch, H heads, L tokens, N hash rounds, C chunks of all rounds together, K chunks of a round that are kept,
Q tokens of a chunk, W tokens of its window, S tokens that one round has with its padding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.models.reformer.local_kernel import Windows
from modelwright.models.reformer.windows import look_around


@dataclass(frozen=True)
class ChunkPlaces:
    """Which tokens the chunks of one layer's probabilities hold.

    `order` (B, H, N, S) is the sorted order of the tokens in each round, `weights` (B, H, N, S) what each round counts
    for a token; both are None in a local layer, whose one round is in the order of the text. `shape` are the windows.
    """

    length: int
    padded: int
    shape: Windows
    order: Tensor | None = None
    weights: Tensor | None = None

    def trim(self, probs: Tensor) -> Tensor:
        """Take away what only padding sees: whole chunks at each round's end, or rows and columns of a matrix."""
        if probs.dim() == 4:
            return probs[:, :, : self.length, : self.length]
        chunks = -(-self.length // self.shape.chunk_length)
        rounds = probs.shape[2] * self.shape.chunk_length // self.padded
        return _by_rounds(probs, 2, rounds)[:, :, :, :chunks].flatten(2, 3)

    def dense(self, probs: Tensor) -> Tensor:
        """Return (B, H, L, L) for what `trim` returned."""
        if probs.dim() == 4:
            return probs
        batch, heads, _, chunk, window = probs.shape
        rounds = 1 if self.order is None else self.order.shape[2]
        if self.order is None:
            order = torch.arange(self.padded, device=probs.device).expand(batch, heads, 1, self.padded)
        else:
            order = self.order.long()
        q_GCQ = order.reshape(batch * heads, -1, chunk)
        k_GCW = look_around(q_GCQ, self.shape.num_before, self.shape.num_after)
        probs_GNKQW = probs.reshape(batch * heads, rounds, -1, chunk, window)
        kept = probs_GNKQW.shape[2]
        q_GNKQ = _by_rounds(q_GCQ, 1, rounds)[:, :, :kept]
        k_GNKW = _by_rounds(k_GCW, 1, rounds)[:, :, :kept]
        if self.weights is not None:
            weights_GNS = self.weights.flatten(0, 1)
            weights_GNKQ = weights_GNS.gather(2, q_GNKQ.flatten(2)).view(q_GNKQ.shape)
            probs_GNKQW = probs_GNKQW * weights_GNKQ.unsqueeze(-1)
        place = q_GNKQ.unsqueeze(-1) * self.padded + k_GNKW.unsqueeze(-2)
        total = probs.new_zeros(batch * heads, self.padded**2)
        total = total.scatter_add(1, place.flatten(1), probs_GNKQW.flatten(1))
        return total.view(batch, heads, self.padded, self.padded)[:, :, : self.length, : self.length]


def _by_rounds(x: Tensor, dim: int, rounds: int) -> Tensor:
    return x.reshape(*x.shape[:dim], rounds, -1, *x.shape[dim + 1 :])


class ChunkedAttentions(tuple[Tensor, ...]):
    """The probabilities of each layer, a tuple that also knows which tokens its chunks hold."""

    places: tuple[ChunkPlaces, ...]

    def __new__(cls, probs: Iterable[Tensor], places: Sequence[ChunkPlaces]) -> "ChunkedAttentions":
        """Return the tuple of probabilities that are trimmed to the real length."""
        chosen = super().__new__(cls, probs)
        chosen.places = tuple(places)
        return chosen

    def __getnewargs__(self) -> tuple[tuple[Tensor, ...], tuple[ChunkPlaces, ...]]:
        """Return what a copy, and a loaded one, is made of."""
        return tuple(self), self.places

    @classmethod
    def trimmed(cls, probs: Iterable[Tensor], places: Sequence[ChunkPlaces]) -> "ChunkedAttentions":
        """Return them trimmed to the real length."""
        return cls([place.trim(each) for each, place in zip(probs, places, strict=True)], places)


def dense_attentions(attentions: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return each layer's attention probabilities as one matrix (B, H, L, L), given the `attentions` of a Reformer.

    Row i holds what token i's output takes of each token's value: hash rounds are weighted and added up, and pairs that
    no chunk brought together are 0. Raises InputError for what is not the whole `attentions` of an output.
    """
    if not isinstance(attentions, ChunkedAttentions):
        raise InputError(
            "dense_attentions: expected the `attentions` of a Reformer's output as they are (they know which tokens "
            f"their chunks hold), got {type(attentions).__name__}"
        )
    return tuple(place.dense(each) for each, place in zip(attentions, attentions.places, strict=True))
