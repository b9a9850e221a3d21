"""Weights that stay on disk, and the hooks that bring what is offloaded to where it runs (accelerate's).

A weight whose file holds it as the model wants it is mapped from there and takes no memory. Every other one (cast,
from a .bin file, newly initialised) is written to the offload folder, in a file of its own, and mapped from that.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.checkpoint.headers import Checkpoint
from modelwright.checkpoint.plan import LoadPlan
from modelwright.checkpoint.safetensors_file import SafetensorsFile, write_tensor
from modelwright.core.errors import InputError
from modelwright.placement.atoms import all_tensors, no_split_classes
from modelwright.placement.devices import DISK, torch_device
from modelwright.placement.placement import Placement, is_offloaded


class DiskStore:
    """The weights that a placement has on disk; `folder` is the offload folder, if there is one."""

    def __init__(self, where: str, placement: Placement, folder: str | os.PathLike[str] | None) -> None:
        self._where = where
        self._names = {name for name, home in placement.homes.items() if home == DISK}
        self._folder = None if folder is None else Path(folder).expanduser()
        self._settled: set[str] = set()

    def check(self, plan: LoadPlan, checkpoint: Checkpoint) -> None:
        """Note what the files already hold; raise InputError if other weights need a folder and have none."""
        needed = []
        for entry in plan.entries:
            if entry.target not in self._names or entry.action not in ("load", "init"):
                continue
            if entry.action == "load" and entry.source and checkpoint.maps(entry.source, entry.dtype):
                self._settled.add(entry.target)
            else:
                needed.append(entry.target)
        if needed and self._folder is None:
            more = f" and {len(needed) - 5} more" if len(needed) > 5 else ""
            raise InputError(
                f"{self._where}: expected an offload_folder, since these weights are for the disk and the files do not "
                f"hold them as they are needed (another dtype, a .bin file, newly initialised): {', '.join(needed[:5])}"
                f"{more}. Pass offload_folder='a folder'"
            )

    def to_parameter(self, name: str, tensor: Tensor, requires_grad: bool) -> nn.Parameter:
        """Return the parameter `name`, mapped from the offload folder if it is for the disk and is not mapped yet."""
        return nn.Parameter(self._put(name, tensor), requires_grad=requires_grad)

    def settle(self, model: nn.Module) -> None:
        """Write what is for the disk and still in memory, and map it."""
        done: set[int] = set()
        for name, tensor in all_tensors(model).items():
            if name in self._settled:
                done.add(id(tensor))
        for name, tensor in all_tensors(model).items():
            if name in self._names and id(tensor) not in done:
                tensor.data = self._put(name, tensor.data)
                done.add(id(tensor))

    def _put(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._names or name in self._settled:
            return tensor
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.safetensors"
        # Another model may be mapped from the file of this name: it keeps the one that it has.
        fresh = path.with_name(f".{uuid.uuid4().hex}")
        write_tensor(fresh, name, tensor)
        os.replace(fresh, path)  # noqa: PTH105
        self._settled.add(name)
        with SafetensorsFile(path) as file:
            return file.read(name)


def _offloaded_tensors(model: nn.Module, placement: Placement) -> dict[str, Tensor]:
    """Return what the hooks bring to the main device when its module runs, by name; a tied one is one tensor."""
    saved = set(model.state_dict())
    one: dict[int, Tensor] = {}
    return {
        name: one.setdefault(id(tensor), tensor.detach())
        for name, tensor in all_tensors(model).items()
        if is_offloaded(placement.homes[name], placement.main) and (isinstance(tensor, nn.Parameter) or name in saved)
    }


def dispatch(model: Any, placement: Placement) -> None:
    """Put every module on its device, with hooks that move inputs, and weights of what is offloaded."""
    from accelerate.hooks import attach_align_device_hook_on_blocks
    from accelerate.utils import find_tied_parameters, retie_parameters

    offloaded = _offloaded_tensors(model, placement)
    offload = {name: is_offloaded(home, placement.main) for name, home in placement.modules.items()}
    runs_on = {name: placement.main if offload[name] else home for name, home in placement.modules.items()}
    tied = find_tied_parameters(model)
    pointers = {model.get_parameter(name).data_ptr() for group in tied for name in group}
    attach_align_device_hook_on_blocks(
        model,
        execution_device={**runs_on, "": placement.main},
        offload=offload,
        offload_buffers=placement.offload_buffers,
        weights_map=offloaded,
        skip_keys="past_key_values",
        # A block may use a weight without calling its layer: all of the block is there while it runs.
        preload_module_classes=sorted(no_split_classes(model) or ()),
        # By address: the copies on other devices, so that a tied parameter is brought there once.
        tied_params_map={pointer: {} for pointer in pointers},
    )
    retie_parameters(model, tied)
    model._offloaded_values = offloaded


def offloaded_values(model: Any) -> Mapping[str, Tensor]:
    """Return the values of what is offloaded, by name; tied names have one tensor, the model itself has none."""
    values: Mapping[str, Tensor] = vars(model).get("_offloaded_values", {})
    return values


def execution_device(model: nn.Module) -> torch.device | None:
    """Return the device that the first module with a hook runs on; None if there are no hooks."""
    for module in model.modules():
        hook = vars(module).get("_hf_hook")
        if hook is not None:
            return torch.device(hook.execution_device)
    return None


@contextlib.contextmanager
def at_hand(block: nn.Module) -> Iterator[None]:
    """While this lasts, the weights of `block` are there though it is not called: for one that must stay whole."""
    hook = vars(block).get("_hf_hook")
    if hook is None or not hook.offload:
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(block):
        yield


def load_device(where: str, placement: Placement, name: str) -> torch.device:
    """Return the device that the tensor `name` is read to: for what stays on disk the CPU, where it is mapped."""
    home = placement.homes.get(name, placement.main)
    return torch_device(where, "cpu" if home == DISK else home)
