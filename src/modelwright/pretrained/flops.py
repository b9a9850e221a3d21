"""The floating-point operations of a call, counted where they happen: in the matrix products and attention kernels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from modelwright.core.errors import InputError


def count(model: nn.Module, input_dict: Mapping[str, Any], backward: bool) -> int:
    """Count; documented at `ModuleUtilsMixin.count_floating_point_ops`."""
    counter = _Counter()
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    # Dropout and hashing draw from torch's stream, which a measurement must not move.
    with torch.random.fork_rng(devices=devices), _gradients_kept(model), counter, torch.set_grad_enabled(backward):
        output = model(**input_dict)
        if backward:
            _scalar(type(model).__name__, output).backward()  # type: ignore[no-untyped-call]
    return counter.total


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what torch's formulas say of every operation.

    torch's own FlopCounterMode also follows modules by hooks, with which a reversible stack's backward cannot run.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.formulas = {**flop_registry, **_formulas()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = self.formulas.get(getattr(func, "_overloadpacket", func))
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=result))
        return result


@contextmanager
def _gradients_kept(model: nn.Module) -> Iterator[None]:
    """Let a backward start without gradients, and put those that were there back."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _formulas() -> dict[Any, Any]:
    """Return formulas for the attention kernel of the CPU, which torch's table lacks."""
    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }


def _attention(query: Tensor, key: Tensor, value: Tensor, *_args: Any, **_kwargs: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_args: Any, **_kw: Any) -> int:
    shapes = (gradient.shape, query.shape, key.shape, value.shape)
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _scalar(where: str, output: Any) -> Tensor:
    """Return the loss of a model's output, or without one the sum of its first tensor, whose gradient costs as much."""
    loss = getattr(output, "loss", None)
    first = output if isinstance(output, Tensor) else loss if loss is not None else output[0]
    if not isinstance(first, Tensor) or not first.requires_grad:
        raise InputError(
            f"{where}.count_floating_point_ops: expected an output with a gradient to count the backward; for a frozen "
            "model pass backward=False"
        )
    return first.sum()
