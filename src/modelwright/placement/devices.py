"""Names of devices in a device map: the number of an accelerator, "cpu", "disk" or another torch device; and limits."""

from collections.abc import Mapping
from typing import Any

import torch

from modelwright.checkpoint.sharding import parse_size
from modelwright.core.errors import InputError, nearest

Device = int | str

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"


def parse_device(where: str, value: Any) -> Device:
    """Return the device that `value` names: an int for an accelerator, else "cpu", "disk" or the text of a device.

    Raises InputError for anything else, "meta" included.
    """
    if value == DISK:
        return DISK
    try:
        if isinstance(value, bool) or not isinstance(value, int | str | torch.device):
            raise TypeError
        if isinstance(value, int):
            if value < 0:
                raise TypeError
            return value
        device = torch.device(value)
        if device.type == "meta":
            raise TypeError
    except (RuntimeError, TypeError):
        raise InputError(
            f"{where}: expected device_map to be None, a device such as 'cpu' or 'cuda:0', or one of "
            f"{', '.join(STRATEGIES)}, or a dictionary of devices by module, got {value!r}"
        ) from None
    return device.index or 0 if device.type == "cuda" else str(device)


def torch_device(where: str, device: Device) -> torch.device:
    """Return the torch device that `device`, not "disk", is here; raise InputError if this machine lacks it."""
    if isinstance(device, str):
        return torch.device(device)
    accelerator = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    if accelerator is None or device >= count:
        raise InputError(
            f"{where}: expected a device_map for the devices of this machine, got device {device}; it has "
            f"{f'{count} of type {accelerator.type}' if accelerator else 'no accelerator'}"
        )
    return torch.device(accelerator.type, device)


def parse_limits(where: str, max_memory: Any) -> dict[Device, int] | None:
    """Return {device: bytes} for {device: bytes or text such as "2GiB"}, accelerators first; None stays None.

    Raises InputError for what is no mapping, no device or no size.
    """
    if max_memory is None:
        return None
    if not isinstance(max_memory, Mapping) or not max_memory:
        raise InputError(f"{where}: expected max_memory to be {{device: bytes or '2GiB'}} or None, got {max_memory!r}")
    limits: dict[Device, int] = {}
    for key, size in max_memory.items():
        device = parse_device(f"{where}: max_memory", key)
        if isinstance(device, str) and device not in ("cpu", DISK, "mps"):
            known = ("cpu", DISK, "mps")
            raise InputError(
                f"{where}: expected the keys of max_memory to be numbers of accelerators or one of {', '.join(known)}, "
                f"got {key!r}.{nearest(device, known)}"
            )
        limits[device] = 0 if size == 0 else parse_size(size, what=f"{where}: max_memory[{key!r}]")
    rank = {"mps": 1, "cpu": 2, DISK: 3}
    return dict(
        sorted(limits.items(), key=lambda item: (0, item[0]) if isinstance(item[0], int) else (rank[item[0]], 0))
    )
