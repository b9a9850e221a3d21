"""The reversible residual stack: activations are not stored but recomputed from the output, layer by layer.

    x1 --------(+)-- y1 -----.-------- y1        y1 = x1 + F(x2)        x2 = y2 - G(y1)
                ^            |                   y2 = x2 + G(y1)        x1 = y1 - F(x2)
    x2 --.--> F |            v
         '------|-----(+)<-- G
                '---- y2 ------------- y2

F is attention, G the feed-forward network. Source: Gomez et al. 2017; Kitaev et al. 2020, section 3.
Both streams are kept in fp32 whatever the blocks compute in: subtracting must give back what was added.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from modelwright.models.reformer.call import ForwardCall, LayerCall


class ReversibleLayer(Protocol):
    """A layer of two residual branches, each called as module(stream, call, layer).

    Attention returns what is added to the first stream, and its probabilities; the feed-forward network returns what is
    added to the second. Both must compute the same when called again with the same arguments.
    """

    attention: Callable[[Tensor, ForwardCall, LayerCall], tuple[Tensor, Tensor]]
    feed_forward: Callable[[Tensor, ForwardCall, LayerCall], Tensor]


def run_layer(
    block: ReversibleLayer, x1: Tensor, x2: Tensor, call: ForwardCall, layer: LayerCall
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both streams after one layer, and its attention probabilities."""
    update, probs = block.attention(x2, call, layer)
    y1 = x1 + update
    return y1, x2 + block.feed_forward(y1, call, layer), probs


def reversible_stack(
    blocks: Sequence[Any], x: Tensor, call: ForwardCall, layers: Sequence[LayerCall]
) -> tuple[Tensor, Tensor]:
    """Run `blocks` (ReversibleLayers) on two streams that both start as `x`, storing the result only; return both.

    Gradients of `x` and of the parameters are ordinary autograd results: they work with `torch.autograd.grad`,
    `torch.func.functional_call`, tensor hooks, frozen parts, and several forwards before one backward. Modules put into
    a layer may draw from torch's own stream; they draw the same again. Second derivatives are not supported.
    """
    branches = [
        _Branch(module, layer, [name for name, _ in module.named_parameters()])
        for block, layer in zip(blocks, layers, strict=True)
        for module in (block.attention, block.feed_forward)
    ]
    parameters = [parameter for branch in branches for _, parameter in branch.module.named_parameters()]
    y1, y2 = _ReversibleStack.apply(branches, call, x, *parameters)  # type: ignore[no-untyped-call]
    return y1, y2


@dataclass
class _Branch:
    """One branch of one layer as it ran: `rng` is the state of torch's stream before it, if it drew from it."""

    module: nn.Module
    layer: LayerCall
    names: list[str]
    rng: list[Tensor] | None = None

    def run(self, stream: Tensor, call: ForwardCall) -> Tensor:
        """Return the update, and note whether torch's own stream was used."""
        before = _rng_state(stream.device)
        update = _update(self.module(stream, call, self.layer))
        if not all(map(torch.equal, before, _rng_state(stream.device))):
            self.rng = before
        return update

    def replay(
        self, stream: Tensor, call: ForwardCall, parameters: Sequence[Tensor], needed: Sequence[bool], grad: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Run again with the parameters of the first time; return update, and gradients of stream and parameters."""
        stream = stream.detach().requires_grad_()
        # Copies of their own: hooks on the real ones must see the gradient once, when it arrives there.
        own = [parameter.detach().requires_grad_(need) for parameter, need in zip(parameters, needed, strict=True)]
        with torch.enable_grad(), _rng_from(self.rng, stream.device):
            named = dict(zip(self.names, own, strict=True))
            update = _update(functional_call(self.module, named, (stream, call, self.layer)))
        wanted = [parameter for parameter in own if parameter.requires_grad]
        step, *found = torch.autograd.grad(update, [stream, *wanted], grad, allow_unused=True)
        rest = iter(found)
        return update.detach(), step, [next(rest) if need else None for need in needed]


def _update(result: Any) -> Tensor:
    update: Tensor = result[0] if isinstance(result, tuple) else result
    return update


def _rng_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _rng_from(states: list[Tensor] | None, device: torch.device) -> Iterator[None]:
    """Let torch's stream continue from `states` in the block, and give it back as it was."""
    if states is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield


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
        ctx: Any, branches: Sequence[_Branch], call: ForwardCall, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.branches, ctx.call, ctx.autocast = branches, call, _SameAutocast(x.device.type)
        moved = read = x
        with ctx.autocast():
            for branch in branches:
                # Each branch reads one stream and moves the other; the next one does it the other way round.
                moved, read = read, moved + branch.run(read, call)
        # Saving the parameters costs nothing and lets autograd refuse a backward after they were changed in place.
        ctx.save_for_backward(moved, read, *parameters)
        return moved, read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor, grad_moved: Tensor) -> tuple[Tensor | None, ...]:
        read, moved, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        grads: list[Tensor | None] = []
        end = len(parameters)
        for branch in reversed(ctx.branches):
            start = end - len(branch.names)
            with ctx.autocast():
                update, step, own = branch.replay(read, ctx.call, parameters[start:end], needed[start:end], grad_moved)
            # Back to before this branch, where the two streams had each other's part.
            read, moved = moved - update, read
            grad_read, grad_moved = grad_moved, grad_read + step
            grads, end = [*own, *grads], start
        return None, None, grad_read + grad_moved, *grads
