"""Distances in groups: near ones alone, farther ones together, in groups whose width grows with the logarithm."""

import functools
import math

import torch
from torch import Tensor

from modelwright.nn.tracing import is_recorded

# Tables are made for a multiple of so many distances and kept: each step of decoding asks for one more.
_STEP = 512


def relative_buckets(count: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Return the bucket of each distance 0, 1, ..., count - 1 back from a query, (count,).

    The first half of the buckets holds one distance each; `max_distance` and more share the last.
    Source: Qi et al. 2020, section 3.2; Raffel et al. 2019, section 2.1.
    """
    if is_recorded():
        return _table(count, num_buckets, max_distance, device)
    return _kept_table(-(-count // _STEP) * _STEP, num_buckets, max_distance, device)[:count]


def _table(count: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    distances = torch.arange(count, device=device)
    exact = num_buckets // 2
    # In fp32 and in this order, which decides on which side of a boundary a distance falls.
    growth = torch.log(distances.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + growth * (num_buckets - exact)).clamp(max=num_buckets - 1).long()
    return torch.where(distances < exact, distances, far)


@functools.lru_cache(maxsize=16)
def _kept_table(count: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    # Of inference mode autograd would keep nothing later.
    with torch.inference_mode(False):
        return _table(count, num_buckets, max_distance, device)
