"""How much memory a load will take on every device, from headers and a model without memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.plan import LoadPlan, PlanEntry
from modelwright.checkpoint.report import fold_keys, text_table
from modelwright.placement.atoms import all_tensors, atoms_of
from modelwright.placement.devices import DISK, Device
from modelwright.placement.placement import Placement, is_offloaded


@dataclass(frozen=True)
class DeviceUse:
    """Bytes of a device: what it holds, and how much of that is its own memory.

    `tensors` are all parameters and buffers there, each once. `mapped` of them are maps of files, whose pages the
    system may drop. `resident` is the memory that is taken for good (on disk: what is written to the offload folder),
    `peak` the most at one time during the load, `running` what is added while the largest offloaded block runs.
    """

    device: Device
    tensors: int
    mapped: int
    resident: int
    peak: int
    running: int = 0


@dataclass(frozen=True)
class PlacedPlan:
    """What `from_pretrained` would do: the load plan, where every module goes, and what memory that takes."""

    where: str
    load: LoadPlan
    placement: Placement
    devices: tuple[DeviceUse, ...]

    @property
    def device_map(self) -> dict[str, Device]:
        """What `hf_device_map` of the loaded model will be."""
        return dict(self.placement.device_map)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            "checkpoint": self.where,
            "device_map": self.device_map,
            "devices": [vars(use) for use in self.devices],
            **self.load.to_dict(),
        }

    def __str__(self) -> str:
        lines = [str(self.load)]
        for title, names in (("missing", self.load.missing), ("unexpected", self.load.unexpected)):
            lines += [f"{title}: {name}" for name in fold_keys(names)]
        modules: dict[Device, list[str]] = {}
        for name, device in self.device_map.items():
            modules.setdefault(device, []).append(name or "(all)")
        rows = [(folded, device) for device, names in modules.items() for folded in fold_keys(names)]
        lines += ["", text_table(("module", "device"), rows), ""]
        head = ("device", "tensors", "of it mapped", "resident", "peak", "while running")
        lines.append(
            text_table(
                head,
                [
                    (use.device, *map("{:,}".format, (use.tensors, use.mapped, use.resident, use.peak, use.running)))
                    for use in self.devices
                ],
            )
        )
        return "\n".join(lines)


def forecast(
    model: nn.Module, plan: LoadPlan, checkpoint: Checkpoint, placement: Placement, *, built: bool = False
) -> tuple[DeviceUse, ...]:
    """Return what the load of `model` (without memory yet) takes on each device of `placement`.

    Counted is anonymous memory: maps of files take none. `built`: the model's class cannot be built without memory, so
    that all of it is on the CPU first.
    """
    entries = {entry.target: entry for entry in plan.entries if entry.target is not None}
    uses: dict[Device, list[int]] = {}
    tensors, seen = all_tensors(model), set()
    initialised = 0
    for name, tensor in tensors.items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        home, mapped = placement.homes[name], _is_mapped(name, tensors, entries, checkpoint)
        use = uses.setdefault(home, [0, 0, 0])
        use[0] += tensor.nbytes
        if mapped and home in ("cpu", DISK):
            use[1] += tensor.nbytes
        else:
            use[2] += tensor.nbytes
        entry = entries.get(name)
        if entry is not None and entry.action == "init":
            initialised = max(initialised, tensor.numel())  # one byte for each element tells whether it has its value
    uses.setdefault("cpu", [0, 0, 0])
    running = _largest_offloaded(model, placement)
    first = sum({id(tensor): tensor.nbytes for tensor in tensors.values()}.values()) if built else 0
    result = []
    for device, (total, mapped_bytes, resident) in sorted(uses.items(), key=lambda item: _order(item[0])):
        peak = resident + (initialised if device == "cpu" else 0)
        if device == "cpu" and first:
            peak = max(peak, first) + max((tensor.nbytes for tensor in tensors.values()), default=0)
        result.append(
            DeviceUse(device, total, mapped_bytes, resident, peak, running if device == placement.main else 0)
        )
    return tuple(result)


def _is_mapped(
    name: str, tensors: Mapping[str, Tensor], entries: Mapping[str, PlanEntry], checkpoint: Checkpoint
) -> bool:
    entry = entries.get(name)
    if entry is not None and entry.tied_to is not None:
        entry = entries[entry.tied_to]
    return (
        entry is not None
        and entry.action == "load"
        and entry.source is not None
        and checkpoint.maps(entry.source, tensors[name].dtype)
    )


def _largest_offloaded(model: nn.Module, placement: Placement) -> int:
    """Return the bytes that the main device needs to run the largest offloaded part (on the CPU, maps serve)."""
    if placement.main == "cpu":
        return 0
    tensors = all_tensors(model)
    return max(
        (
            sum(tensors[name].nbytes for name in atom.tensors)
            for atom in atoms_of(model)
            if is_offloaded(placement.homes[atom.tensors[0]], placement.main)
        ),
        default=0,
    )


def _order(device: Device) -> tuple[int, str]:
    return {"cpu": 1, DISK: 2}.get(str(device), 0), str(device)
