"""The reversible residual stack: activations are not stored but recomputed from the output, layer by layer.

    x1 --------(+)-- y1 -----.-------- y1        y1 = x1 + F(x2)        x2 = y2 - G(y1)
                ^            |                   y2 = x2 + G(y1)        x1 = y1 - F(x2)
    x2 --.--> F |            v
         '------|-----(+)<-- G
                '---- y2 ------------- y2

F is attention, G the feed-forward network. Source: Gomez et al. 2017; Kitaev et al. 2020, section 3.
Both streams are kept in fp32 whatever the blocks compute in: subtracting must give back what was added. LSH
attention's own output, one tensor a layer, is kept by default: it saves the backward the attention of every hash round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.layer import ReformerAttention, ReformerFeedForward, ReformerLayer, token_slices
from modelwright.models.reformer.replay import Parameters, Replay, SameAutocast, own_parameters


def run_layer(
    block: ReformerLayer, x1: Tensor, x2: Tensor, call: ForwardCall, layer: LayerCall
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return both streams after one layer, and its attention probabilities if the call asks for them."""
    update, probs = block.attention(x2, call, layer)
    y1 = x1 + update
    return y1, x2 + block.feed_forward(y1, call, layer), probs


def outside_compilers(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Call `reversible_stack`; compilers see what comes before and after, for the stack runs its own backward."""
    # Not a decorator: it would import the compiler, whether or not anybody compiles.
    stack: Any = torch.compiler.disable(reversible_stack)  # type: ignore[no-untyped-call]
    return stack(*args, **kwargs)  # type: ignore[no-any-return]


def reversible_stack(
    blocks: Sequence[ReformerLayer],
    x: Tensor,
    call: ForwardCall,
    layers: Sequence[LayerCall],
    *,
    recompute_attention: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run `blocks` on two streams that both start as `x`, storing the result and LSH attention's outputs; return both.

    `recompute_attention` leaves those outputs out: less memory, more time. Gradients of `x` and of the parameters are
    ordinary autograd results: they work with `torch.autograd.grad`, `torch.func.functional_call`, tensor hooks, frozen
    parts, and several forwards before one backward. Layers are called as modules, so that `fully_shard` gathers
    and frees the weights of each. Modules put into a layer may draw from torch's own stream; they draw the same again.
    Second derivatives are not supported.
    """
    tape = _Tape(call, SameAutocast(x.device.type), *_together(x.detach(), x.detach()))
    x1 = x2 = x
    for index, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
        last = index == len(blocks) - 1
        x1, x2 = block(partial(_run_reversibly, tape, layer, keep=not recompute_attention, last=last), x1, x2)
    return x1, x2


def _run_reversibly(
    tape: _Tape, layer: LayerCall, block: ReformerLayer, x1: Tensor, x2: Tensor, *, keep: bool, last: bool
) -> tuple[Tensor, Tensor]:
    """Run a layer on the streams of the tape; x1, x2 and the result stand for them in autograd's graph."""
    first = _AttentionBranch(block.attention, layer, keep=keep)
    x2, x1 = _RunBranch.apply(tape, first, False, x2, x1, *first.parameters.values())  # type: ignore[no-untyped-call]
    second = _FeedForwardBranch(block.feed_forward, layer)
    x1, x2 = _RunBranch.apply(tape, second, last, x1, x2, *second.parameters.values())  # type: ignore[no-untyped-call]
    return x1, x2


class _Scratch:
    """Tensors of full length that one branch after another uses, four of a shape, in one block.

    One large block, because the system takes back what is large, where freed tensors of middling size would leave holes
    that the next ones do not fit.
    """

    def __init__(self) -> None:
        self.blocks: dict[tuple[Any, ...], Tensor] = {}

    def take(self, slot: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the tensor of that slot (0 to 3), shape and `like`'s dtype, with any content."""
        key = (shape, like.dtype)
        if key not in self.blocks:
            self.blocks[key] = like.new_empty((4, *shape))
        return self.blocks[key][slot]

    def fill(self, slices: Sequence[Tensor], part: slice, length: int) -> tuple[Tensor, ...]:
        """Write slices into tensors of full length, one slot each, and return those."""
        whole = tuple(self.take(slot, (x.shape[0], length, x.shape[2]), x) for slot, x in enumerate(slices))
        for into, x in zip(whole, slices, strict=True):
            into[:, part] = x
        return whole


@dataclass
class _Tape:
    """What the branches of one call hand to each other past autograd: the streams, changed in place, and scratch.

    Autograd sees empty stand-ins for the streams between branches; only the last branch's results are real.
    """

    call: ForwardCall
    autocast: SameAutocast
    read: Tensor | None
    moved: Tensor | None
    scratch: _Scratch = field(default_factory=_Scratch)

    def streams(self) -> tuple[Tensor, Tensor]:
        """Return the stream that is read and the one that is moved."""
        assert self.read is not None
        assert self.moved is not None
        return self.read, self.moved

    def drop(self) -> None:
        """Forget the streams and the scratch."""
        self.read = self.moved = None
        self.scratch = _Scratch()


class _FeedForwardBranch:
    """G of one layer as it ran."""

    def __init__(self, module: ReformerFeedForward, layer: LayerCall) -> None:
        self.module, self.layer = module, layer
        self.parameters = own_parameters(module)
        self.feed = Replay(module, "feed")

    def forward(self, tape: _Tape) -> tuple[Tensor, ...]:
        """Add the update to the moved stream, in place; return what the backward needs besides the streams."""
        read, moved = tape.streams()
        for index, part in token_slices(read, self.module.chunk_size):
            moved[:, part].add_(self.feed.first(index, read[:, part], tape.call, self.layer, index))
        return ()

    def backward(
        self, tape: _Tape, grad_read: Tensor, grad_moved: Tensor, parameters: Parameters, _kept: tuple[Tensor, ...]
    ) -> None:
        """Take the update back from the moved stream and add to `grad_read`, in place; gather parameter gradients."""
        read, moved = tape.streams()
        for index, part in token_slices(read, self.module.chunk_size):
            leaf, update = self.feed.again(index, read[:, part], parameters, tape.call, self.layer, index)
            grad_read[:, part].add_(parameters.backward([update], [grad_moved[:, part].to(update.dtype)], leaf))
            moved[:, part].sub_(update.detach())


class _AttentionBranch:
    """F of one layer as it ran: projections and output in slices, attention over the whole sequence between them."""

    def __init__(self, module: ReformerAttention, layer: LayerCall, *, keep: bool) -> None:
        self.module, self.layer = module, layer
        self.keep = keep and module.self_attention.keeps_output
        self.parameters = own_parameters(module)
        self.project = Replay(module, "project")
        self.finish = Replay(module, "finish")

    def forward(self, tape: _Tape) -> tuple[Tensor, ...]:
        """Add the update to the moved stream, in place; return what the backward needs besides the streams."""
        read, moved = tape.streams()
        whole: tuple[Tensor, ...] = ()
        for index, part in token_slices(read):
            whole = tape.scratch.fill(self.project.first(index, read[:, part]), part, read.shape[1])
        attended = self.module.self_attention.attend(whole, tape.call, self.layer)
        for index, part in token_slices(read):
            moved[:, part].add_(self.finish.first(index, attended[0][:, part], tape.call, self.layer, index))
        return attended if self.keep else ()

    def backward(
        self, tape: _Tape, grad_read: Tensor, grad_moved: Tensor, parameters: Parameters, kept: tuple[Tensor, ...]
    ) -> None:
        """Take the update back from the moved stream and add to `grad_read`, in place; gather parameter gradients."""
        read, moved = tape.streams()
        graphs: list[tuple[Tensor, list[Any]]] = []
        whole: tuple[Tensor, ...] = ()
        for index, part in token_slices(read):
            leaf, projected = self.project.again(index, read[:, part], parameters)
            whole = tape.scratch.fill([x.detach() for x in projected], part, read.shape[1])
            # The graph without its results, which `whole` has.
            graphs.append((leaf, [get_gradient_edge(x) for x in projected]))
            del projected
        attended = kept or self.module.self_attention.attend(whole, tape.call, self.layer)
        grad = tape.scratch.take(3, tuple(attended[0].shape), attended[0])
        for index, part in token_slices(read):
            leaf, update = self.finish.again(index, attended[0][:, part], parameters, tape.call, self.layer, index)
            grad[:, part] = parameters.backward([update], [grad_moved[:, part].to(update.dtype)], leaf)
            moved[:, part].sub_(update.detach())
            del leaf, update
        if not self.module.self_attention.keeps_output:
            attended = ()
        grads = self.module.self_attention.attend_backward(grad, whole, attended, tape.call, self.layer)
        for _, part in token_slices(read):
            leaf, edges = graphs.pop(0)
            grad_read[:, part].add_(parameters.backward(edges, [x[:, part] for x in grads], leaf))


def _together(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies of two tensors, in one block (see `_Scratch`)."""
    block = torch.stack([first, second])
    # `data`: each half counts its own changes, for autograd refuses a graph whose input was changed meanwhile.
    return block[0].data, block[1].data


_Branch = _AttentionBranch | _FeedForwardBranch


class _RunBranch(torch.autograd.Function):
    """One branch as a node of the graph: gradients of the streams pass from node to node and are changed in place."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, branch: _Branch, last: bool, _read: Tensor, _moved: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.tape, ctx.branch, ctx.last = tape, branch, last
        read, moved = tape.streams()
        with tape.autocast():
            kept = branch.forward(tape)
        if last:
            tape.drop()
            results = read, moved
        else:
            tape.read, tape.moved = moved, read
            stand_in = read.new_empty(()).expand(read.shape)
            results = stand_in, stand_in.view_as(stand_in)
        # Saving the parameters costs nothing and lets autograd refuse a backward after they were changed in place.
        ctx.save_for_backward(*parameters, *kept, *(results if last else ()))
        ctx.num_parameters = len(parameters)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor, grad_moved: Tensor) -> tuple[Tensor | None, ...]:
        tape, saved = ctx.tape, ctx.saved_tensors
        parameters, kept = saved[: ctx.num_parameters], saved[ctx.num_parameters :]
        if ctx.last:
            # Copies: the results are the caller's, and so may be their gradients.
            tape.read, tape.moved = _together(*kept[-2:])
            kept, (grad_read, grad_moved) = kept[:-2], _together(grad_read, grad_moved)
        needed = ctx.needs_input_grad[5:]
        totals = [torch.empty_like(x) if need else None for x, need in zip(parameters, needed, strict=True)]
        own = Parameters(list(ctx.branch.parameters), parameters, totals)
        with tape.autocast():
            ctx.branch.backward(tape, grad_read, grad_moved, own, kept)
        # Back to before this branch, where the two streams had each other's part.
        tape.read, tape.moved = tape.moved, tape.read
        if not any(ctx.needs_input_grad[3:5]):
            tape.drop()
        return None, None, None, grad_read, grad_moved, *own.found()
