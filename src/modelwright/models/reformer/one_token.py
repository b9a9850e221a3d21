"""What a layer does with one token of each row when a text is decoded: by its modules, or by their weights alone.

A token's products are small, and calling the modules takes longer than the products do. Where nobody watches the
modules (`modelwright.nn.unwatched`), what a token needs of them is looked up once for a text.

Shapes: B rows, E hidden size, H heads, D head size.
"""

from typing import Protocol

from torch import Tensor, nn

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.layer import Dense, ReformerAttention, ReformerFeedForward, ReformerLayer
from modelwright.models.reformer.local_attention import LocalSelfAttention
from modelwright.models.reformer.lsh_attention import LSHSelfAttention
from modelwright.nn.activations import Activation
from modelwright.nn.decode_layout import RowLinear, ready_product
from modelwright.nn.norm import LayerNorm, ready_norm
from modelwright.nn.unwatched import Unwatched, as_written

# Classes of modules whose calls are no more than what is done here.
_FORWARDS = as_written(
    Activation,
    Dense,
    LSHSelfAttention,
    LayerNorm,
    LocalSelfAttention,
    ReformerAttention,
    ReformerFeedForward,
    ReformerLayer,
    RowLinear,
    nn.Linear,
)


class OneToken(Protocol):
    """One layer, on both streams (B, E)."""

    call: LayerCall

    def project(self, x2: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the normed second stream, and what attention projects it to, (B, H, D) each."""

    def add_attended(self, x1: Tensor, attended: Tensor) -> Tensor:
        """Return the first stream with what attention's output, (B, H*D), adds to it."""

    def add_fed(self, x2: Tensor, x1: Tensor) -> Tensor:
        """Return the second stream with what the feed-forward branch makes of the first."""


class CalledLayer:
    """A layer whose modules are called, with texts (B, 1, E)."""

    def __init__(self, block: ReformerLayer, forward: ForwardCall, call: LayerCall) -> None:
        self.block, self.forward, self.call = block, forward, call

    def project(self, x2: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `OneToken`."""
        attention = self.block.attention
        normed = attention.layer_norm(x2.unsqueeze(1))
        projected = attention.self_attention.project(normed)
        heads = attention.self_attention.num_heads
        return normed.squeeze(1), tuple(x.view(len(x), heads, -1) for x in projected)

    def add_attended(self, x1: Tensor, attended: Tensor) -> Tensor:
        """See `OneToken`."""
        return x1 + self.block.attention.finish(attended.unsqueeze(1), self.forward, self.call, 0).squeeze(1)

    def add_fed(self, x2: Tensor, x1: Tensor) -> Tensor:
        """See `OneToken`."""
        return x2 + self.block.feed_forward.feed(x1.unsqueeze(1), self.forward, self.call, 0).squeeze(1)


class PlainLayer:
    """A layer's weights, in fp32 on the CPU, without dropout."""

    def __init__(self, block: ReformerLayer, index: int) -> None:
        attention, feed = block.attention, block.feed_forward
        self.call = LayerCall(index, False)
        self._attention_norm, self._feed_norm = ready_norm(attention.layer_norm), ready_norm(feed.layer_norm)
        projections = [getattr(attention.self_attention, name) for name in attention.self_attention._siblings]
        self._project = ready_product(*projections)
        self._heads = len(projections), attention.self_attention.num_heads
        self._attention_output = ready_product(attention.output.dense)
        self._dense, self._feed_output = ready_product(feed.dense.dense), ready_product(feed.output.dense)
        self._activation = feed.activation._function if type(feed.activation) is Activation else feed.activation

    def project(self, x2: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `OneToken`."""
        normed = self._attention_norm(x2)
        return normed, self._project(normed).view(len(x2), *self._heads, -1).unbind(1)

    def add_attended(self, x1: Tensor, attended: Tensor) -> Tensor:
        """See `OneToken`."""
        return self._attention_output(attended).add_(x1)

    def add_fed(self, x2: Tensor, x1: Tensor) -> Tensor:
        """See `OneToken`."""
        inner = self._activation(self._dense(self._feed_norm(x1)))
        return self._feed_output(inner).add_(x2)


class PlainLayers:
    """The layers of a stack, found once for a text; `layers` is None where there is more to them than their weights."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        self._unwatched = Unwatched(blocks, _FORWARDS, in_place=True)
        self.layers: list[PlainLayer] | None = None
        if self._unwatched.hold(blocks):
            self.layers = [PlainLayer(block, index) for index, block in enumerate(blocks)]  # type: ignore[arg-type]

    def hold(self, blocks: nn.ModuleList) -> bool:
        """Tell whether this is still true of `blocks`, and nobody follows the call; it takes microseconds a layer."""
        return self._unwatched.hold(blocks)
