"""Carry out a load plan: bytes from the checkpoint into the parameters and buffers of a module."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import nn

from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.plan import LoadPlan, PlanEntry, Target
from modelwright.checkpoint.report import LoadReport
from modelwright.checkpoint.strictness import Strictness
from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.core.progress import Progress
from modelwright.nn.walk import named_modules

logger = get_logger(__name__)


class ToParameter(Protocol):
    """Makes the parameter `name` out of a loaded tensor: the place for quantised or otherwise converted weights."""

    def __call__(self, name: str, tensor: torch.Tensor, requires_grad: bool) -> nn.Parameter:
        """Return the parameter for `tensor`, which is on its device and in its dtype."""
        ...


def plain_parameter(name: str, tensor: torch.Tensor, requires_grad: bool) -> nn.Parameter:  # noqa: ARG001
    """Return a plain parameter that holds `tensor` itself."""
    return nn.Parameter(tensor, requires_grad=requires_grad)


def module_targets(module: nn.Module) -> dict[str, Target]:
    """Return {name: (shape, dtype)} of what a checkpoint of `module` holds: parameters and persistent buffers."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, (_, _, tensor) in _slots(module).items()}


def tied_groups(module: nn.Module, values: Mapping[str, torch.Tensor] | None = None) -> list[list[str]]:
    """Return the groups of names under which `module` holds one and the same parameter or buffer.

    `values` are tensors that count instead of those that `module` has under their names.
    """
    return _groups({name: (values or {}).get(name, tensor) for name, (_, _, tensor) in _slots(module).items()})


def _groups(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return the groups of names whose tensor is one and the same object."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def load_into(
    module: nn.Module,
    checkpoint: Checkpoint,
    plan: LoadPlan,
    device: torch.device | str | Callable[[str], torch.device] = "cpu",
    *,
    to_parameter: ToParameter | None = None,
    strictness: Strictness = Strictness(),  # noqa: B008 (immutable)
) -> LoadReport:
    """Give `module` the tensors of `checkpoint` as `plan` says, on `device` (or the one that it gives for a name),
    and return what was done.

    Every loaded parameter is replaced by a new one from `to_parameter` (None: a plain one; same requires_grad), every
    loaded buffer by the tensor; `module` may be on the meta device or hold values. Tied names get the same parameter.
    What the plan does not load stays as it is, on meta or not: `LoadReport.to_initialise`. Tensor by tensor, each is
    cast straight to its dtype, so that memory never holds more than the model and one tensor. On the CPU a parameter in
    its stored dtype is a private map of the file. Raises CheckpointMismatchError as `LoadPlan.check` does, before
    anything is changed, and CheckpointError if a file cannot be read.
    """
    plan.check(strictness)
    slots = _slots(module)
    _check_ties(module, slots, plan)
    # Who makes parameters of values needs them at once, and what has been made of them may need less memory.
    read = checkpoint.read_later if to_parameter is None else checkpoint.read
    make = plain_parameter if to_parameter is None else to_parameter
    loaded: list[PlanEntry] = []
    with Progress("loading", len(plan.entries)) as progress:
        for entry in plan.entries:
            if entry.action == "load" and entry.target is not None and entry.source is not None:
                place = device(entry.target) if callable(device) else device
                # Not kept under a name: while the next one is read, it would still be there.
                _put(slots, entry.target, read(entry.source, place, entry.dtype), make)
                loaded.append(entry)
            progress.advance()
        checkpoint.finish()
    report = LoadReport(
        missing_keys=list(plan.missing),
        unexpected_keys=list(plan.unexpected),
        mismatched_keys=[
            (entry.target or "", entry.stored_shape or (), entry.shape or ()) for entry in plan.mismatched
        ],
        loaded_keys=[entry.target for entry in loaded if entry.target is not None],
        to_initialise=[entry.target for entry in plan.entries if entry.action == "init" and entry.target is not None],
        tied=plan.tied,
        renamed=plan.renamed,
        files=sorted({str(entry.file) for entry in loaded}),
        nbytes=sum(entry.nbytes for entry in loaded),
    )
    _tie(slots, checkpoint, plan, report)
    return report


def materialise(
    module: nn.Module,
    names: Iterable[str],
    device: torch.device | str = "cpu",
    *,
    to_parameter: ToParameter = plain_parameter,
) -> None:
    """Give the parameters and buffers `names` that are still on meta memory on `device`, with undefined values.

    For the caller that initialises what a load has left over. Names that share a parameter go on sharing it.
    """
    slots = _slots(module)
    groups = {name: group for group in tied_groups(module) for name in group}
    done: set[str] = set()
    for name in names:
        tensor = slots[name][2]
        if name in done or not tensor.is_meta:
            continue
        _put(slots, name, torch.empty_like(tensor, device=device), to_parameter)
        for other in groups.get(name, ()):
            done.add(other)
            _share(slots, name, other)


_Slots = dict[str, tuple[nn.Module, str, torch.Tensor]]


def _slots(module: nn.Module) -> _Slots:
    """Return {name: (owner, attribute, tensor)} of parameters and persistent buffers, shared ones under every name."""
    slots: _Slots = {}
    for prefix, owner in named_modules(module, remove_duplicate=False):
        dot = prefix + "." if prefix else ""
        for leaf, parameter in owner._parameters.items():
            if parameter is not None:
                slots[dot + leaf] = (owner, leaf, parameter)
        for leaf, buffer in owner._buffers.items():
            if buffer is not None and leaf not in owner._non_persistent_buffers_set:
                slots[dot + leaf] = (owner, leaf, buffer)
    return slots


def _put(
    slots: _Slots, name: str, tensor: torch.Tensor, make: Callable[[str, torch.Tensor, bool], nn.Parameter]
) -> None:
    owner, leaf, old = slots[name]
    if leaf in owner._parameters:
        requires_grad = old.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
        owner._parameters[leaf] = make(name, tensor, requires_grad)
    else:
        owner._buffers[leaf] = tensor


def _share(slots: _Slots, kept: str, other: str) -> None:
    owner, leaf, _ = slots[kept]
    into, into_leaf, _ = slots[other]
    if leaf in owner._parameters and into_leaf in into._parameters:
        into._parameters[into_leaf] = owner._parameters[leaf]
    else:
        into._buffers[into_leaf] = owner._buffers[leaf]


def _check_ties(module: nn.Module, slots: _Slots, plan: LoadPlan) -> None:
    tied = plan.tied
    for group in _groups({name: tensor for name, (_, _, tensor) in slots.items()}):
        if len({tied.get(name, name) for name in group}) > 1:
            raise InputError(
                f"load_into: {', '.join(group)} are one parameter of {type(module).__name__}, but the plan treats them "
                "apart. Make the plan with tied=tied_groups(module)."
            )


def _tie(slots: _Slots, checkpoint: Checkpoint, plan: LoadPlan, report: LoadReport) -> None:
    """Give tied names their parameter, and note where the checkpoint has another value for them."""
    by_target = {entry.target: entry for entry in plan.entries}
    loaded = set(report.loaded_keys)
    for entry in plan.entries:
        if entry.action != "tied" or entry.target is None or entry.tied_to is None:
            continue
        kept = by_target[entry.tied_to]
        if entry.tied_to in loaded:
            _share(slots, entry.tied_to, entry.target)
            if entry.source and kept.source and not checkpoint.equal(kept.source, entry.source):
                report.tied_conflicts.append((entry.tied_to, entry.target))
                logger.warning(
                    "%s and %s are tied, but the checkpoint holds different values for them; that of %s is used.",
                    entry.tied_to, entry.target, entry.tied_to,
                )  # fmt: skip
