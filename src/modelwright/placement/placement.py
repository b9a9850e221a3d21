"""The decision where every tensor lives and where every module runs: pure data, made before a weight is read.

A device map names modules, and the longest dotted prefix of a parameter's name counts; "" is a prefix of all. A device
is the number of an accelerator, "cpu" or "disk". What is on the CPU beside an accelerator, and what is on disk, is
brought to the first accelerator (else the CPU) when it runs. `model.hf_device_map` shows the map of a loaded model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from modelwright.core.errors import InputError, nearest
from modelwright.placement.atoms import all_tensors, atoms_of, place_atoms
from modelwright.placement.devices import DISK, STRATEGIES, Device, parse_device, parse_limits
from modelwright.placement.planner import cannot_spread, plan_device_map


@dataclass(frozen=True)
class Placement:
    """Where a model lives.

    `device_map` is what `hf_device_map` shows. `modules` maps disjoint modules that cover all tensors to devices,
    `homes` every parameter and buffer; what is offloaded runs on `main`. Buffers of offloaded modules are on `main`,
    unless `offload_buffers`.
    """

    device_map: Mapping[str, Device]
    modules: Mapping[str, Device]
    homes: Mapping[str, Device]
    main: Device
    offload_buffers: bool = False

    @property
    def single(self) -> Device | None:
        """The device that holds everything; None if there are several, or if it is the disk."""
        devices = set(self.homes.values())
        return self.main if devices <= {self.main} else None


def make_placement(
    where: str,
    model: nn.Module,
    device_map: Any,
    *,
    max_memory: Any = None,
    offload_buffers: bool = False,
    tied: Iterable[Sequence[str]] = (),
) -> Placement | None:
    """Return the placement that `device_map` asks for; None for None.

    device_map: a device; a strategy (see `plan_device_map`), within `max_memory`; or {module: device}, where the
    longest dotted prefix of a parameter's name counts. tied: groups of names that are one parameter (see
    `place_atoms`). Raises InputError for what is no device, for modules that do not exist, for parameters that
    the map does not cover, and for max_memory without a strategy.
    """
    limits = parse_limits(where, max_memory)
    strategic = isinstance(device_map, str) and device_map in STRATEGIES
    if limits is not None and not strategic:
        raise InputError(
            f"{where}: max_memory is for device_map='auto' and the other strategies, got device_map={device_map!r}"
        )
    if device_map is None:
        return None
    refusal = getattr(model, "_placement_refusal", None)
    if strategic:
        chosen = plan_device_map(where, model, device_map, limits, offload_buffers=offload_buffers, refusal=refusal)
    else:
        chosen = _chosen(where, model, device_map)
    atoms = atoms_of(model)
    homes = place_atoms(where, atoms, chosen, tied)
    main = next((home for home in homes.values() if home not in ("cpu", DISK)), "cpu")
    if refusal is not None and set(homes.values()) - {main}:
        raise cannot_spread(where, model, refusal)
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    by_tensor: dict[str, Device] = {}
    for atom in atoms:
        home = homes[atom.name]
        for name in atom.tensors:
            stays = name in buffers and not offload_buffers and is_offloaded(home, main)
            by_tensor[name] = main if stays else home
    return Placement(chosen, _merged(model, "", homes), by_tensor, main, offload_buffers)


def is_offloaded(home: Device, main: Device) -> bool:
    """Tell whether a module whose home is `home` has its parameters brought to `main` when it runs."""
    return home == DISK or (home == "cpu" and main != "cpu")


def _chosen(where: str, model: nn.Module, device_map: Any) -> dict[str, Device]:
    if not isinstance(device_map, Mapping):
        return {"": parse_device(where, device_map)}
    known = {name for name, _ in model.named_modules(remove_duplicate=False)} | set(all_tensors(model))
    for name in device_map:
        if name not in known:
            raise InputError(
                f"{where}: device_map names {name!r}, which is no module of {type(model).__name__}."
                f"{nearest(str(name), known)}"
            )
    return {name: parse_device(f"{where}: device_map[{name!r}]", device) for name, device in device_map.items()}


def _merged(module: nn.Module, name: str, homes: Mapping[str, Device]) -> dict[str, Device]:
    """Return {module: device} with the largest modules that are on one device each."""
    if name in homes:
        return {name: homes[name]}
    dot = f"{name}." if name else ""
    devices = {device for atom, device in homes.items() if atom.startswith(dot)}
    if len(devices) <= 1:
        return dict.fromkeys([name], next(iter(devices), "cpu")) if devices else {}
    return {
        found: device
        for child_name, child in module.named_children()
        for found, device in _merged(child, dot + child_name, homes).items()
    }
