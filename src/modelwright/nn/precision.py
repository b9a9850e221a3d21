"""The precision that statistics are computed in."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is if it is wider (float64)."""
    return x if x.dtype is torch.float32 else x.to(torch.promote_types(x.dtype, torch.float32))


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype in which autocast would have a product of `x`, None where it is off or leaves `x` alone."""
    device = x.device.type
    if x.dtype is torch.float64 or not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    dtype: torch.dtype = torch.get_autocast_dtype(device)
    return dtype


def without_autocast(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function, whose first argument is a tensor, compute in the precision that it is written in."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        first: Any = args[0]
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return run
