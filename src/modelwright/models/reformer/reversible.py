"""The reversible residual stack: activations are not stored but recomputed from the output, layer by layer.

    x1 --------(+)-- y1 -----.-------- y1        y1 = x1 + F(x2)        x2 = y2 - G(y1)
                ^            |                   y2 = x2 + G(y1)        x1 = y1 - F(x2)
    x2 --.--> F |            v
         '------|-----(+)<-- G
                '---- y2 ------------- y2

F is attention, G the feed-forward network. Source: Gomez et al. 2017; Kitaev et al. 2020, section 3.
Both streams are kept in fp32 whatever the blocks compute in: subtracting must give back what was added.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modelwright.models.reformer.call import ForwardCall, LayerCall


class ReversibleLayer(Protocol):
    """A layer of two residual branches, each a function of its stream that computes the same when called again."""

    attention: nn.Module
    feed_forward: nn.Module

    def attend(self, x2: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor]:
        """Branch F: return what is added to the first stream, and attention probabilities."""

    def feed(self, y1: Tensor, call: ForwardCall, layer: LayerCall) -> Tensor:
        """Branch G: return what is added to the second stream."""


def run_layer(
    block: ReversibleLayer, x1: Tensor, x2: Tensor, call: ForwardCall, layer: LayerCall
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both streams after one layer, and its attention probabilities."""
    update, probs = block.attend(x2, call, layer)
    y1 = x1 + update
    return y1, x2 + block.feed(y1, call, layer), probs


def reversible_stack(
    blocks: Sequence[ReversibleLayer], x: Tensor, call: ForwardCall, layers: Sequence[LayerCall]
) -> tuple[Tensor, Tensor]:
    """Run `blocks` on two streams that both start as `x`, storing only the result; return both streams.

    Gradients of `x` and of the parameters are ordinary autograd results: they work with `torch.autograd.grad`, with
    frozen parts and with several forwards before one backward. Second derivatives are not supported.
    """
    parameters = [p for block in blocks for p in _trainable(block.attention) + _trainable(block.feed_forward)]
    y1, y2 = _ReversibleStack.apply(blocks, call, layers, x, *parameters)  # type: ignore[no-untyped-call]
    return y1, y2


def _trainable(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


class _SameAutocast:
    """Re-enters, in the backward pass, the autocast state that the forward pass had.

    The cache of cast weights stays off in both: a copy that was cast without a graph must not be met with one.
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.enabled = torch.is_autocast_enabled(device_type)
        self.dtype = torch.get_autocast_dtype(device_type)

    def __call__(self) -> torch.autocast:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


class _ReversibleStack(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        blocks: Sequence[ReversibleLayer],
        call: ForwardCall,
        layers: Sequence[LayerCall],
        x: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.blocks, ctx.call, ctx.layers = blocks, call, layers
        ctx.autocast = _SameAutocast(x.device.type)
        x1 = x2 = x
        with ctx.autocast():
            for block, layer in zip(blocks, layers, strict=True):
                x1, x2, _ = run_layer(block, x1, x2, call, layer)
        # Saving the parameters costs nothing and lets autograd refuse a backward after they were changed in place.
        ctx.save_for_backward(x1, x2, *parameters)
        return x1, x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad1: Tensor, grad2: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2, *_ = ctx.saved_tensors
        grads: list[Tensor | None] = []
        for block, layer in zip(reversed(ctx.blocks), reversed(ctx.layers), strict=True):
            update, step, feed_grads = _branch(
                lambda y, b=block, s=layer: b.feed(y, ctx.call, s), y1, grad2, block.feed_forward, ctx.autocast
            )
            y2 = y2 - update
            grad1 = grad1 + step
            update, step, attention_grads = _branch(
                lambda x, b=block, s=layer: b.attend(x, ctx.call, s)[0], y2, grad1, block.attention, ctx.autocast
            )
            y1 = y1 - update
            grad2 = grad2 + step
            grads = [*attention_grads, *feed_grads, *grads]
        return None, None, None, grad1 + grad2, *grads


def _branch(
    function: Any, stream: Tensor, grad: Tensor, module: nn.Module, autocast: _SameAutocast
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Recompute one branch; return its output, the gradient of its input and those of its trainable parameters."""
    stream = stream.detach().requires_grad_()
    with torch.enable_grad(), autocast():
        output = function(stream)
    step, *rest = torch.autograd.grad(output, [stream, *_trainable(module)], grad, allow_unused=True)
    return output.detach(), step, rest
