"""How much memory a load will take on every device, from headers and a model without memory."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.plan import LoadPlan, PlanEntry
from modelwright.checkpoint.report import fold_keys, text_table
from modelwright.checkpoint.safetensors_file import PIECE_BYTES
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
    tensors = all_tensors(model)
    entries = {entry.target: entry for entry in plan.entries if entry.target is not None}
    distinct: dict[int, tuple[str, Tensor, PlanEntry | None]] = {}
    for name, tensor in tensors.items():
        entry = entries.get(name)
        if entry is not None and entry.tied_to is not None:
            name, entry = entry.tied_to, entries[entry.tied_to]
        distinct.setdefault(id(tensor), (name, tensor, entry))
    uses: dict[Device, _Use] = {"cpu": _Use()}
    for name, tensor, entry in sorted(distinct.values(), key=lambda item: _turn(item[2])):
        home = placement.homes[name]
        use, cpu = uses.setdefault(home, _Use()), uses["cpu"]
        mapped = _is_mapped(tensor, entry, checkpoint)
        use.add(tensor.nbytes, mapped and home in ("cpu", DISK))
        if home == DISK and not mapped:
            cpu.note(tensor.nbytes + min(PIECE_BYTES, tensor.nbytes))  # made in memory, then written
        elif entry is not None and entry.action == "init":
            cpu.note(tensor.numel())  # a byte for each element tells whether it got its value
        elif entry is not None and entry.stored_dtype is not None and (home != "cpu" or not mapped):
            cast = entry.stored_dtype != tensor.dtype or home != "cpu"
            cpu.note(min(PIECE_BYTES, tensor.numel() * entry.stored_dtype.itemsize) if cast else 0)
    if built:
        sizes = [tensor.nbytes for _, tensor, _ in distinct.values()]
        uses["cpu"].peak = max(uses["cpu"].peak, sum(sizes) + max(sizes, default=0))
    running = _largest_offloaded(model, placement)
    return tuple(
        DeviceUse(
            device,
            use.tensors,
            use.mapped,
            use.resident,
            max(use.peak, use.resident),
            running if device == placement.main else 0,
        )
        for device, use in sorted(uses.items(), key=lambda item: _order(item[0]))
    )


@dataclass
class _Use:
    tensors: int = 0
    mapped: int = 0
    resident: int = 0
    peak: int = 0

    def add(self, nbytes: int, mapped: bool) -> None:
        self.tensors += nbytes
        self.mapped += nbytes if mapped else 0
        self.resident += 0 if mapped else nbytes

    def note(self, passing: int) -> None:
        """Note that `passing` bytes are needed for a moment, beside what is there now."""
        self.peak = max(self.peak, self.resident + passing)


def _turn(entry: PlanEntry | None) -> int:
    """Tell when a tensor gets its memory: first what is loaded, then what is initialised, then computed buffers."""
    return 2 if entry is None else 0 if entry.action == "load" else 1


def _is_mapped(tensor: Tensor, entry: PlanEntry | None, checkpoint: Checkpoint) -> bool:
    return (
        entry is not None
        and entry.action == "load"
        and entry.source is not None
        and checkpoint.maps(entry.source, tensor.dtype)
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
