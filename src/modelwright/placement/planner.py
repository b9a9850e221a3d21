"""From a strategy and limits to a device map: accelerate's planner, fed with a model that has its final dtypes.

The model may be on meta; its parameters then say exactly how many bytes each part will take.
"""

from collections.abc import Mapping

from torch import nn

from modelwright.core.errors import InputError
from modelwright.placement.atoms import all_tensors, atoms_of, no_split_classes
from modelwright.placement.devices import DISK, Device

_ROOT = "root"


def total_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared ones once."""
    return sum({id(tensor): tensor.nbytes for tensor in all_tensors(model).values()}.values())


def available_memory() -> dict[Device, int]:
    """Return the free bytes of this machine's accelerators and of its main memory, as their drivers report them."""
    from accelerate.utils import get_max_memory

    found: dict[Device, int] = get_max_memory()
    return found


def cannot_spread(where: str, model: nn.Module, refusal: str) -> NotImplementedError:
    """Return the error of a model that has to be on one device, which `refusal` tells why."""
    return NotImplementedError(
        f"{where}: {type(model).__name__} cannot be spread over several devices: {refusal}. Name one device"
    )


def plan_device_map(
    where: str,
    model: nn.Module,
    strategy: str,
    limits: Mapping[Device, int] | None,
    *,
    offload_buffers: bool = False,
    refusal: str | None = None,
) -> dict[str, Device]:
    """Return {module: device} for `model` within the `limits` (bytes by device; None: what is free here).

    "auto" and "balanced" spread evenly over the accelerators, "balanced_low_0" keeps the first one freer, "sequential"
    fills one after the other; what does not fit goes to the CPU, then to disk. On the first device, and on the CPU if
    something is on disk, room is kept for the largest offloaded block, which is brought there to run. No device but the
    disk gets more than its limit. Raises InputError for a class without `_no_split_modules` that has to be split.
    """
    room = dict(available_memory() if limits is None else limits)
    accelerators = [device for device, size in room.items() if device not in ("cpu", DISK) and size > 0]
    first = next((device for device, size in room.items() if size > 0 and device != DISK), None)
    spreads = strategy != "sequential" and len(accelerators) > 1
    if first is not None and not spreads and total_bytes(model) <= _usable(room[first], first, limits):
        return {"": first}
    if refusal is not None:
        raise cannot_spread(where, model, refusal)
    whole = no_split_classes(model)
    if whole is None:
        raise InputError(
            f"{where}: device_map={strategy!r} has to split {type(model).__name__}, which does not say what must stay "
            "whole (_no_split_modules). Give device_map as a dictionary {module: device}, or more max_memory"
        )
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    # Modules with parameters of their own are atoms too: hooks belong to modules.
    types = {name: type(module).__name__ for name, module in model.named_modules(remove_duplicate=False)}
    classes = sorted(whole | {types[atom.name] for atom in atoms_of(model) if atom.name})
    if spreads:
        room = get_balanced_memory(
            model, max_memory=room, no_split_module_classes=classes, low_zero=strategy == "balanced_low_0"
        )
    # Accelerate searches names for "words.": below a common root, "encoder.words.weight" is no match for it.
    rooted = nn.ModuleDict({_ROOT: model})
    try:
        found = infer_auto_device_map(
            rooted, max_memory=room, no_split_module_classes=classes, offload_buffers=offload_buffers
        )
    except IndexError as error:
        # Of two blocks that share a weight it has planned one already.
        raise InputError(
            f"{where}: device_map={strategy!r} found no place within max_memory for the blocks of "
            f"{type(model).__name__} that share weights. Give device_map as a dictionary {{module: device}}, or more "
            "max_memory"
        ) from error
    return {name.removeprefix(_ROOT).removeprefix("."): device for name, device in found.items()}


def _usable(size: int, device: Device, limits: Mapping[Device, int] | None) -> float:
    # Of what a driver reports as free, an accelerator needs some for the work itself.
    return size if limits is not None or device == "cpu" else 0.9 * size
