"""The precision that statistics are computed in."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is if it is wider (float64)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
