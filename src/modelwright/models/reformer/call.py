"""What one forward call hands to its layers, and what a layer must remember to compute the same thing again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelwright.nn.dropout import Source, seeded_generator

if TYPE_CHECKING:
    from modelwright.models.reformer.attention_maps import ChunkPlaces

# Each random choice of a layer has its own stream, so that one never shifts another when a layer is replayed.
_SITES = ("hash", "attention_probs", "attention_output", "feed_forward")


@dataclass(frozen=True)
class ForwardCall:
    """The constants of one forward call.

    `length` is that of the text, without the padding to whole chunks. `key_mask` (B, L) is True at tokens that may be
    attended to, or None if all may. `seed` comes from one draw of torch's own stream. `keep` is told, for a cache, each
    layer's number, its normed input and what it projects; that input only if `keeps_states`, else it may be None.
    """

    length: int

    key_mask: Tensor | None
    num_hashes: int
    num_buckets: int | list[int] | None
    seed: int
    return_attentions: bool = False
    keep: Callable[[int, Tensor | None, tuple[Tensor, ...]], None] | None = None
    keeps_states: bool = False


@dataclass
class LayerCall:
    """What belongs to one layer in one forward call: its row (H,) of the head mask, and its sorted token order.

    `training` switches dropout on. The order is set by the first pass and kept for the replay. With the probabilities
    comes what they mean: `places`.
    """

    index: int
    training: bool
    head_mask: Tensor | None = None
    order: Tensor | None = field(default=None, repr=False)
    places: "ChunkPlaces | None" = field(default=None, repr=False)

    def site_seed(self, call: ForwardCall, site: str) -> int:
        """Return the seed of that random choice: a function of the call's seed, this layer and the site."""
        return call.seed + self.index * len(_SITES) + _SITES.index(site)

    def generator(self, call: ForwardCall, site: str, part: int, device: torch.device) -> Source | None:
        """Return a new generator for dropout at that site in that slice of tokens, or None in evaluation."""
        return seeded_generator(self.site_seed(call, site), part, device) if self.training else None
