"""Running a method of a module slice by slice, and running it again in a backward pass for its gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Method(nn.Module):
    """A method as a module of its own, so that it can be called with other parameters."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.name)(*args)


def own_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters by name.

    In a replica of `torch.nn.DataParallel` they are no parameters but tensors, which gradients pass through; torch
    keeps a list of them there.
    """
    if not getattr(module, "_is_replica", False):
        return dict(module.named_parameters())
    return {
        f"{place}.{name}".lstrip("."): tensor
        for place, part in module.named_modules()
        for name, tensor in part._former_parameters.items()
    }


class Parameters:
    """The parameters of one branch as a forward found them: leaves of their own, with the gradients that they gather.

    Leaves of their own, because hooks on the real ones must see the gradient once, when it arrives there. `totals` has
    a tensor to gather into for every parameter that wants a gradient.
    """

    def __init__(self, names: Sequence[str], values: Sequence[Tensor], totals: Sequence[Tensor | None]) -> None:
        self.totals = totals
        self.leaves = [x.detach().requires_grad_(total is not None) for x, total in zip(values, totals, strict=True)]
        self.by_name = {f"module.{name}": leaf for name, leaf in zip(names, self.leaves, strict=True)}
        self.reached: set[int] = set()

    def backward(self, outputs: Sequence[Any], grads: Sequence[Tensor], source: Tensor) -> Tensor:
        """Add up the parameters' gradients, and return that of `source`."""
        wanted = [(index, total) for index, total in enumerate(self.totals) if total is not None]
        leaves = [self.leaves[index] for index, _ in wanted]
        step, *found = torch.autograd.grad(outputs, [source, *leaves], grads, allow_unused=True)
        for (index, total), grad in zip(wanted, found, strict=True):
            if grad is not None:
                (total.add_ if index in self.reached else total.copy_)(grad)
                self.reached.add(index)
        return torch.zeros_like(source) if step is None else step

    def found(self) -> list[Tensor | None]:
        """Return the gradients, None for parameters that were not reached."""
        return [total if index in self.reached else None for index, total in enumerate(self.totals)]


class Replay:
    """A method of a module that is called on numbered slices and can be called on them again.

    It must compute the same when called again with the same arguments; what it draws from torch's own stream is noted
    and drawn again.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.method = _Method(module, name)
        self.rng: dict[int, list[Tensor]] = {}

    def first(self, index: int, part: Tensor, *args: Any) -> Any:
        """Call the method on slice `index`."""
        before = _rng_state(part.device)
        result = self.method(part, *args)
        if not all(map(torch.equal, before, _rng_state(part.device))):
            self.rng[index] = before
        return result

    def again(self, index: int, part: Tensor, parameters: Parameters, *args: Any) -> tuple[Tensor, Any]:
        """Call it again with a graph; return the slice as the graph's leaf, and the result."""
        leaf = part.detach().requires_grad_()
        with torch.enable_grad(), _rng_from(self.rng.get(index), part.device):
            return leaf, functional_call(self.method, parameters.by_name, (leaf, *args))


def _rng_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _rng_from(states: list[Tensor] | None, device: torch.device) -> Iterator[None]:
    """Let torch's stream continue from `states` in the block, and give it back as it was."""
    if states is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield


class SameAutocast:
    """Re-enters, in the backward pass, the autocast state that the forward pass had.

    The cache of cast weights stays off in both: a copy that was cast without a graph must not be met with one.
    """

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.enabled = torch.is_autocast_enabled(device_type)
        self.dtype = torch.get_autocast_dtype(device_type)

    def __call__(self) -> torch.autocast:
        """Return the context manager."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)
