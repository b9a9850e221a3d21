"""Giving values to what has none: all of a new model, or exactly what a checkpoint lacks.

A model says how by `_init_weights(module)`, which it is called with for every module, children first; a layer that
`_init_weights` leaves alone keeps what its own `reset_parameters` does. Buffers that are computed rather than loaded
are computed again by `init_buffers()` of the module that owns them.
"""

import contextlib
import itertools
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import CheckpointMismatchError
from modelwright.nn.walk import named_modules

# The name is upstream's: 4.x code sets it on modules whose values must be left alone.
_DONE = "_is_hf_initialized"


def initialize(model: nn.Module) -> None:
    """Call `_init_weights` for every module that has not had it yet; an inner model initialises its own modules."""
    with torch.no_grad():
        for _, module, owner in _children_first(model):
            if not getattr(module, _DONE, False):
                owner._init_weights(module)
                setattr(module, _DONE, True)


def initialize_missing(model: nn.Module, device: torch.device) -> None:
    """Give values on `device` to the parameters and buffers that are still on meta, and to nothing else.

    What was loaded is out of reach while `_init_weights` runs: also a hook that works on the modules below its own, or
    in place, cannot change it. Raises CheckpointMismatchError, naming the tensor and the hook, for what got no value.
    """
    with torch.no_grad():
        parameters = _materialize_parameters(model, device)
        buffers = _materialize_buffers(model, device)
        waiting = parameters | set(buffers)
        if not waiting:
            return
        if parameters or any(_reset_of(model.get_submodule(_parent(name))) for name in buffers):
            _call_hooks(model, parameters, waiting)
        for name in sorted({_parent(buffer) for buffer in buffers}):
            missing = {buffer.rpartition(".")[2] for buffer in buffers if _parent(buffer) == name}
            _init_buffers(model.get_submodule(name), missing)
        _check_filled(model, parameters, buffers)


def _call_hooks(model: nn.Module, parameters: Collection[str], waiting: Collection[str]) -> None:
    """Let torch's layers and `_init_weights` give values to what is `waiting`, of which `parameters` are a part."""
    with _loaded_out_of_reach(model, waiting):
        for name, module, owner in _children_first(model):
            prefix = f"{name}." if name else ""
            if not any(missing.startswith(prefix) for missing in waiting):
                continue
            reset = _reset_of(module)
            if reset is not None and any(_parent(missing) == name for missing in waiting):
                reset()
            if any(missing.startswith(prefix) for missing in parameters):
                owner._init_weights(module)


def _reset_of(module: nn.Module) -> Any:
    """Return torch's own initialisation of a layer (nn.MultiheadAttention keeps its behind an underscore), or None."""
    reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
    return reset if callable(reset) else None


def check_nothing_on_meta(model: nn.Module) -> None:
    """Raise CheckpointMismatchError that names a tensor of `model` which has no memory, if there is one."""
    for prefix, module in named_modules(model):
        for name, tensor in itertools.chain(module._parameters.items(), module._buffers.items(), vars(module).items()):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                raise CheckpointMismatchError(
                    f"{type(model).__name__}: {_join(prefix, name)!r} has no values after loading: it is no parameter "
                    f"and no buffer. Make it a buffer of {type(module).__name__} and compute it in init_buffers()"
                )


def owner_of(model: nn.Module, module: nn.Module) -> Any:
    """Return the innermost model that contains `module`: the one whose `_init_weights` initialises it."""
    return next(owner for _, each, owner in _children_first(model) if each is module)


def _children_first(model: nn.Module, prefix: str = "", owner: Any = None) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield each module with its name and the innermost model that contains it."""
    owner = model if callable(getattr(model, "_init_weights", None)) else owner
    for name, child in model.named_children():
        yield from _children_first(child, _join(prefix, name), owner)
    yield prefix, model, owner


def _materialize_parameters(model: nn.Module, device: torch.device) -> set[str]:
    """Replace parameters on meta by ones full of NaN on `device`, tied ones by the same one; return their names."""
    made: dict[int, nn.Parameter] = {}
    names = set()
    for prefix, module in named_modules(model):
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_meta:
                continue
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(_unset(parameter, device), requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
            names.add(_join(prefix, name))
    return names


def _materialize_buffers(model: nn.Module, device: torch.device) -> dict[str, "_Unset"]:
    """Replace buffers on meta by unset ones on `device`; return these by name."""
    made = {}
    for prefix, module in named_modules(model):
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                unset = module._buffers[name] = _unset(buffer, device)
                made[_join(prefix, name)] = _Unset(unset)
    return made


def _unset(like: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the dtype and shape of `like` whose values nobody would choose."""
    value: float = 0
    if like.is_floating_point() or like.is_complex():
        value = float("nan")
    elif like.dtype != torch.bool:
        value = torch.iinfo(like.dtype).max
    # Not full_like: of a tensor on meta it makes torch import a library of algebra.
    return torch.full(like.shape, value, dtype=like.dtype, device=device)


@contextlib.contextmanager
def _loaded_out_of_reach(model: nn.Module, waiting: Collection[str]) -> Iterator[None]:
    """Put scratch tensors in the place of all parameters and buffers but the `waiting` ones, and the originals back.

    The scratch is never filled by us, so that on most systems it takes memory only where a hook writes.
    """
    scratch: dict[int, Tensor] = {}
    held: list[tuple[dict[str, Any], str, Tensor]] = []
    for prefix, module in named_modules(model):
        both: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for slots in both:
            for name, tensor in slots.items():
                if tensor is None or _join(prefix, name) in waiting:
                    continue
                if id(tensor) not in scratch:
                    empty = torch.empty_like(tensor, device="cpu")
                    is_parameter = isinstance(tensor, nn.Parameter)
                    scratch[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                held.append((slots, name, tensor))
                slots[name] = scratch[id(tensor)]
    try:
        yield
    finally:
        for slots, name, tensor in held:
            slots[name] = tensor


def _init_buffers(module: nn.Module, missing: Collection[str]) -> None:
    """Call the hook that computes the buffers of `module`; those that are not `missing` keep their values."""
    hook = getattr(module, "init_buffers", None)
    if not callable(hook):
        return
    loaded = {name: buffer for name, buffer in module._buffers.items() if name not in missing}
    module._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in loaded.items()})
    try:
        hook()
    finally:
        module._buffers.update(loaded)


def _check_filled(model: nn.Module, parameters: Collection[str], buffers: dict[str, "_Unset"]) -> None:
    where = type(model).__name__
    for name in sorted(parameters):
        parameter = model.get_parameter(name)
        if parameter.isnan().any():
            layer = type(model.get_submodule(_parent(name))).__name__
            raise CheckpointMismatchError(
                f"{where}: the checkpoint has no {name!r}, and neither {where}._init_weights nor "
                f"{layer}.reset_parameters gives it values. Initialise {layer} in {where}._init_weights"
            )
    for name, unset in buffers.items():
        buffer = model.get_buffer(name)
        if unset.is_untouched(buffer):
            layer = type(model.get_submodule(_parent(name))).__name__
            raise CheckpointMismatchError(
                f"{where}: the checkpoint has no values for the buffer {name!r}, and nothing computes them. Give "
                f"{layer} a method init_buffers(self) that does"
            )


class _Unset:
    """A buffer as it was made, to see later whether anything wrote values into it or put another in its place."""

    def __init__(self, buffer: Tensor) -> None:
        self._buffer, self._values, self._version = buffer, buffer.clone(), _version_of(buffer)

    def is_untouched(self, buffer: Tensor) -> bool:
        if buffer is not self._buffer or _version_of(buffer) != self._version:
            return False
        # A write through .data leaves no trace but the values.
        return torch.equal(buffer.nan_to_num(), self._values.nan_to_num())


def _version_of(buffer: Tensor) -> int | None:
    return None if buffer.is_inference() else buffer._version


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
