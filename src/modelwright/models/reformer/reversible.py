"""The reversible residual stack: activations are not stored but recomputed from the output, layer by layer.

    x1 --------(+)-- y1 -----.-------- y1        y1 = x1 + F(x2)        x2 = y2 - G(y1)
                ^            |                   y2 = x2 + G(y1)        x1 = y1 - F(x2)
    x2 --.--> F |            v
         '------|-----(+)<-- G
                '---- y2 ------------- y2

F is attention, G the feed-forward network. Source: Gomez et al. 2017; Kitaev et al. 2020, section 3.
Both streams are kept in fp32 whatever the blocks compute in: subtracting must give back what was added. LSH
attention's own output, one tensor a layer, is kept by default: it saves the backward the attention of every hash round.
So is local attention's in half precision, and beside several hash rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.layer import ReformerAttention, ReformerFeedForward, ReformerLayer, token_slices
from modelwright.models.reformer.local_attention import LocalSelfAttention
from modelwright.models.reformer.lsh_attention import LSHSelfAttention
from modelwright.models.reformer.replay import Parameters, Replay, SameAutocast, own_parameters


def run_layer(
    block: ReformerLayer, x1: Tensor, x2: Tensor, call: ForwardCall, layer: LayerCall
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return both streams after one layer, and its attention probabilities if the call asks for them."""
    update, probs = block.attention(x2, call, layer)
    y1 = x1 + update
    return y1, x2 + block.feed_forward(y1, call, layer), probs


def side_by_side(streams: Tensor) -> Tensor:
    """Return a copy of the streams (B, L, 2, E) in which each lies by itself, (B, L, E).

    A layer norm copies what lies otherwise before it reads it.
    """
    return streams.permute(2, 0, 1, 3).clone(memory_format=torch.contiguous_format).permute(1, 2, 0, 3)


def outside_compilers(*args: Any, **kwargs: Any) -> Tensor:
    """Call `reversible_stack`; compilers see what comes before and after, for the stack runs its own backward."""
    # Not a decorator: it would import the compiler, whether or not anybody compiles.
    stack: Any = torch.compiler.disable(reversible_stack)  # type: ignore[no-untyped-call]
    return stack(*args, **kwargs)  # type: ignore[no-any-return]


def reversible_stack(
    blocks: Sequence[ReformerLayer],
    streams: Tensor,
    call: ForwardCall,
    layers: Sequence[LayerCall],
    *,
    recompute_attention: bool = False,
) -> Tensor:
    """Run `blocks` on both streams, (B, L, 2, E), in place, storing the result and outputs of attentions.

    The result is contiguous, which `streams` need not be: with `side_by_side` they are faster to read.
    `recompute_attention` leaves those outputs out, and projects once more in the backward: less memory, more time.
    Gradients of `streams` and of the parameters are ordinary autograd results: they work with `torch.autograd.grad`,
    `torch.func.functional_call`, tensor hooks, frozen parts, and several forwards before one backward. Layers are
    called as modules, so that `fully_shard` gathers and frees the weights of each. Modules put into a layer may draw
    from torch's own stream; they draw the same again. Second derivatives are not supported.
    """
    keep = torch.is_grad_enabled() and not recompute_attention
    forgets = not torch.is_grad_enabled()
    attentions = [block.attention.self_attention for block in blocks]
    tape = _Tape(call, SameAutocast(streams.device.type), streams.detach(), attentions, forgets)
    for index, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
        ends = index == 0, index == len(blocks) - 1
        streams = block(partial(_run_reversibly, tape, layer, keep, ends), streams)
    return streams


def _run_reversibly(
    tape: _Tape, layer: LayerCall, keep: bool, ends: tuple[bool, bool], block: ReformerLayer, streams: Tensor
) -> Tensor:
    """Run a layer on the tape's streams, for which `streams` and the result stand in autograd's graph.

    ends: whether it is the first layer, and whether it is the last.
    """
    first = _AttentionBranch(block.attention, layer, keep=keep)
    streams = _RunBranch.apply(tape, first, ends[0], False, streams, *first.parameters.values())  # type: ignore[no-untyped-call]
    second = _FeedForwardBranch(block.feed_forward, layer)
    return _RunBranch.apply(tape, second, False, ends[1], streams, *second.parameters.values())  # type: ignore[no-any-return, no-untyped-call]


class _Scratch:
    """Tensors of full length, `slots` of a shape in one block.

    One large block, because the system takes back what is large, where freed tensors of middling size would leave holes
    that the next ones do not fit. What is never written takes no memory.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.blocks: dict[tuple[Any, ...], Tensor] = {}

    def take(self, slot: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the tensor of that slot, shape and `like`'s dtype, with any content."""
        key = (shape, like.dtype)
        if key not in self.blocks:
            self.blocks[key] = like.new_empty((self.slots, *shape))
        return _alone(self.blocks[key][slot])

    def fill(self, slices: Sequence[Tensor], part: slice, length: int) -> tuple[Tensor, ...]:
        """Write slices into tensors of full length, one slot each, and return those."""
        whole = tuple(self.take(slot, (x.shape[0], length, x.shape[2]), x) for slot, x in enumerate(slices))
        for into, x in zip(whole, slices, strict=True):
            into[:, part] = x
        return whole


def _alone(view: Tensor) -> Tensor:
    """Return a view that counts its own changes: autograd refuses a graph whose input was changed meanwhile."""
    return view.data


@dataclass
class _Tape:
    """What the branches of one call hand to each other past autograd: the streams, changed in place, and memory.

    Autograd sees empty stand-ins for the streams between branches; only the last branch's result is real. `scratch` is
    what one branch after another uses, `kept` has room for the outputs that are kept of all `attentions`, and the next
    free place in it, for each dtype, as a layer may compute in another one. `forgets`: there is no backward.
    """

    call: ForwardCall
    autocast: SameAutocast
    streams: Tensor | None
    attentions: Sequence[LSHSelfAttention | LocalSelfAttention]
    forgets: bool
    scratch: _Scratch = field(default_factory=lambda: _Scratch(4))
    kept: dict[torch.dtype, tuple[_Scratch, Iterator[int]]] = field(default_factory=dict)

    def stream(self, number: int) -> Tensor:
        """Return the first stream (0) or the second (1), (B, L, E)."""
        assert self.streams is not None
        return _alone(self.streams[:, :, number])

    def room_to_keep(self, v: Tensor) -> Tensor:
        """Return memory for one more output like `v`."""
        if v.dtype not in self.kept:
            keepers = sum(each.keeps_output(v, self.call.num_hashes) for each in self.attentions)
            self.kept[v.dtype] = _Scratch(keepers), itertools.count()
        room, slots = self.kept[v.dtype]
        return room.take(next(slots), tuple(v.shape), v)

    def drop(self) -> None:
        """Forget the streams and the memory."""
        self.streams = None
        self.scratch.blocks.clear()
        self.kept.clear()


class _FeedForwardBranch:
    """G of one layer as it ran: it reads the first stream and moves the second."""

    reads = 0

    def __init__(self, module: ReformerFeedForward, layer: LayerCall) -> None:
        self.module, self.layer = module, layer
        self.parameters = own_parameters(module)
        self.feed = Replay(module, "feed")

    def forward(self, tape: _Tape) -> tuple[Tensor, ...]:
        """Add the update to the moved stream, in place; return what the backward needs besides the streams."""
        read, moved = tape.stream(self.reads), tape.stream(1 - self.reads)
        for index, part in token_slices(read, self.module.chunk_size):
            moved[:, part].add_(self.feed.first(index, read[:, part], tape.call, self.layer, index))
        return ()

    def backward(
        self, tape: _Tape, grad_read: Tensor, grad_moved: Tensor, parameters: Parameters, _kept: tuple[Tensor, ...]
    ) -> None:
        """Take the update back from the moved stream and add to `grad_read`, in place; gather parameter gradients."""
        read, moved = tape.stream(self.reads), tape.stream(1 - self.reads)
        for index, part in token_slices(read, self.module.chunk_size):
            leaf, update = self.feed.again(index, read[:, part], parameters, tape.call, self.layer, index)
            grad_read[:, part].add_(parameters.backward([update], [grad_moved[:, part].to(update.dtype)], leaf))
            moved[:, part].sub_(update.detach())


class _AttentionBranch:
    """F of one layer as it ran: projections and output in slices, attention over the whole sequence between them.

    It reads the second stream and moves the first.
    """

    reads = 1

    def __init__(self, module: ReformerAttention, layer: LayerCall, *, keep: bool) -> None:
        self.module, self.layer = module, layer
        # Outputs, and projections' graphs, which hold the normed stream, one tensor of full length: it is made again
        # without them.
        self.keep = keep
        self.parameters = own_parameters(module)
        self.project = Replay(module, "project")
        self.finish = Replay(module, "finish")

    def forward(self, tape: _Tape) -> tuple[Tensor, ...]:
        """Add the update to the moved stream, in place; return what the backward needs besides the streams."""
        read, moved = tape.stream(self.reads), tape.stream(1 - self.reads)
        if tape.forgets and self.module.goes_in_parts(read, tape.call, self.layer):
            for at, update in self.module.in_parts(read, tape.call, self.layer):
                moved[at].add_(update)
            return ()
        whole: tuple[Tensor, ...] = ()
        for index, part in token_slices(read):
            whole = tape.scratch.fill(self.project.first(index, read[:, part]), part, read.shape[1])
        if tape.call.keep is not None:
            tape.call.keep(self.layer.index, None, whole)
        keep = self.keep and self.module.self_attention.keeps_output(whole[-1], tape.call.num_hashes)
        room = tape.room_to_keep(whole[-1]) if keep else self._room(tape, whole)
        attended = self.module.self_attention.attend(whole, tape.call, self.layer, room)
        for index, part in token_slices(read):
            moved[:, part].add_(self.finish.first(index, attended[0][:, part], tape.call, self.layer, index))
        return attended if keep else ()

    def _room(self, tape: _Tape, whole: tuple[Tensor, ...]) -> Tensor:
        """Return memory for an output of the attention to `whole`, the projections, that is not kept."""
        q, v = whole[0], whole[-1]
        overwrites = q.dtype is v.dtype and self.module.self_attention.overwrites_queries(q)
        return q if overwrites else tape.scratch.take(len(whole), tuple(v.shape), v)

    def backward(
        self, tape: _Tape, grad_read: Tensor, grad_moved: Tensor, parameters: Parameters, kept: tuple[Tensor, ...]
    ) -> None:
        """Take the update back from the moved stream and add to `grad_read`, in place; gather parameter gradients."""
        read, moved = tape.stream(self.reads), tape.stream(1 - self.reads)
        graphs: list[tuple[Tensor, list[Any]]] = []
        whole: tuple[Tensor, ...] = ()
        for index, part in token_slices(read):
            leaf, projected = self.project.again(index, read[:, part], parameters)
            whole = tape.scratch.fill([x.detach() for x in projected], part, read.shape[1])
            if self.keep:
                # The graph without its results, which `whole` has.
                graphs.append((leaf, [get_gradient_edge(x) for x in projected]))
            del leaf, projected
        slot, v = len(whole), whole[-1]
        attended = kept or self.module.self_attention.attend(
            whole, tape.call, self.layer, tape.scratch.take(slot, tuple(v.shape), v)
        )
        # Where the attention's backward does without the output, its gradient takes its place, slice by slice.
        again = not kept and self.module.self_attention.needs_output and tape.call.num_hashes > 1
        grad = tape.scratch.take(slot + again, tuple(v.shape), v)
        for index, part in token_slices(read):
            leaf, update = self.finish.again(index, attended[0][:, part], parameters, tape.call, self.layer, index)
            grad[:, part] = parameters.backward([update], [grad_moved[:, part].to(update.dtype)], leaf)
            moved[:, part].sub_(update.detach())
            del leaf, update
        if not self.module.self_attention.needs_output:
            attended = ()
        grads = self.module.self_attention.attend_backward(grad, whole, attended, tape.call, self.layer)
        for index, part in token_slices(read):
            outputs: Sequence[Any]
            leaf, outputs = graphs.pop(0) if graphs else self.project.again(index, read[:, part], parameters)
            grad_read[:, part].add_(parameters.backward(outputs, [x[:, part] for x in grads], leaf))
            del leaf, outputs


_Branch = _AttentionBranch | _FeedForwardBranch


class _RunBranch(torch.autograd.Function):
    """One branch as a node of the graph: gradients of the streams pass from node to node and are changed in place."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, branch: _Branch, first: bool, last: bool, _streams: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.tape, ctx.branch, ctx.first, ctx.last = tape, branch, first, last
        streams = tape.streams
        assert streams is not None
        with tape.autocast():
            kept = branch.forward(tape)
        if last:
            tape.drop()
            # Token by token, as the final norm reads both.
            streams = streams.contiguous()
        else:
            streams = streams.new_empty(()).expand(streams.shape)
        # Saving the parameters costs nothing and lets autograd refuse a backward after they were changed in place.
        ctx.save_for_backward(*parameters, *kept, *((streams,) if last else ()))
        ctx.num_parameters = len(parameters)
        return streams

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_streams: Tensor) -> tuple[Tensor | None, ...]:
        tape, saved = ctx.tape, ctx.saved_tensors
        parameters, kept = saved[: ctx.num_parameters], saved[ctx.num_parameters :]
        if ctx.last:
            # Copies: the result is the caller's, and so may be its gradient.
            tape.streams, grad_streams = side_by_side(kept[-1]), side_by_side(grad_streams)
            kept = kept[:-1]
        needed = ctx.needs_input_grad[5:]
        totals = [torch.empty_like(x) if need else None for x, need in zip(parameters, needed, strict=True)]
        own = Parameters(list(ctx.branch.parameters), parameters, totals)
        reads = ctx.branch.reads
        with tape.autocast():
            ctx.branch.backward(
                tape, _alone(grad_streams[:, :, reads]), _alone(grad_streams[:, :, 1 - reads]), own, kept
            )
        if ctx.first or not ctx.needs_input_grad[4]:
            tape.drop()
        return None, None, None, None, grad_streams, *own.found()
