"""The parts of a model that stay whole: what may be on different devices, and what must not.

An atom is a module that a class names in `_no_split_modules` (a block with a residual connection, say), or one with
parameters or buffers of its own. Atoms that share a parameter go to the same device.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.placement.devices import DISK, Device


@dataclass(frozen=True)
class Atom:
    """The module `name` with the names of all its parameters and buffers."""

    name: str
    tensors: tuple[str, ...]


def no_split_classes(model: nn.Module) -> frozenset[str] | None:
    """Return the names of the classes that must stay whole, of all models inside; None if no class says any."""
    found = [getattr(module, "_no_split_modules", None) for module in model.modules()]
    said = [names for names in found if names is not None]
    return frozenset(name for names in said for name in names) if said else None


def all_tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return parameters and buffers, also those that are not saved, shared ones under every name."""
    dot = f"{prefix}." if prefix else ""
    return {
        dot + name: tensor
        for found in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
        for name, tensor in found
    }


def atoms_of(model: nn.Module) -> list[Atom]:
    """Return the atoms of `model` in the order of its modules."""
    return list(_atoms(model, "", no_split_classes(model) or frozenset()))


def _atoms(module: nn.Module, name: str, whole: frozenset[str]) -> Iterable[Atom]:
    if type(module).__name__ in whole or any(True for _ in _own(module)):
        yield Atom(name, tuple(all_tensors(module, name)))
        return
    for child_name, child in module.named_children():
        yield from _atoms(child, f"{name}.{child_name}" if name else child_name, whole)


def _own(module: nn.Module) -> Iterable[Tensor]:
    yield from (tensor for tensor in module._parameters.values() if tensor is not None)
    yield from (tensor for tensor in module._buffers.values() if tensor is not None)


def place_atoms(
    where: str, atoms: Sequence[Atom], device_map: Mapping[str, Device], tied: Iterable[Sequence[str]]
) -> dict[str, Device]:
    """Return {name of an atom: its device} by the longest dotted prefix of its tensors' names in `device_map`.

    Atoms that share a parameter (`tied`: groups of names) all go where the first of them is that is on an accelerator,
    else on the CPU, else on disk: the parameter stays one, and its users run where it is. Raises InputError, naming the
    parameters, for those that the map does not cover and for an atom that it would split.
    """
    homes: dict[str, Device] = {}
    uncovered: list[str] = []
    for atom in atoms:
        devices: dict[Device, str] = {}
        for name in atom.tensors:
            device = longest_prefix(device_map, name)
            if device is None:
                uncovered.append(name)
            else:
                devices.setdefault(device, name)
        if len(devices) > 1:
            (one, first), (other, second) = list(devices.items())[:2]
            raise InputError(
                f"{where}: expected a device_map that keeps {atom.name or 'the model'!r} whole, got {one!r} for "
                f"{first!r} and {other!r} for {second!r}. Map {atom.name!r} as a whole"
            )
        homes[atom.name] = next(iter(devices), "cpu")
    if uncovered:
        more = f" and {len(uncovered) - 8} more" if len(uncovered) > 8 else ""
        raise InputError(
            f"{where}: expected a device_map for every parameter, got none for {', '.join(uncovered[:8])}{more}. Add "
            "their modules to it, or '' for all the rest"
        )
    for group in _connected(atoms, tied):
        best = min((homes[name] for name in group), key=_rank)
        homes.update(dict.fromkeys(group, best))
    return homes


def longest_prefix(device_map: Mapping[str, Device], name: str) -> Device | None:
    """Return the device of the longest key that is `name` or a dotted prefix of it ("" is one of every name)."""
    while name and name not in device_map:
        name = name.rpartition(".")[0]
    return device_map.get(name)


def _rank(device: Device) -> int:
    return {"cpu": 1, DISK: 2}.get(str(device), 0)


def _connected(atoms: Sequence[Atom], tied: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the groups of atoms that are connected by shared parameters, in order."""
    owner = {name: atom.name for atom in atoms for name in atom.tensors}
    groups: list[set[str]] = []
    for names in tied:
        new = {owner[name] for name in names if name in owner}
        touching = [group for group in groups if group & new]
        groups = [group for group in groups if group not in touching] + [new.union(*touching)]
    order = {atom.name: position for position, atom in enumerate(atoms)}
    return [sorted(group, key=order.__getitem__) for group in groups]
