"""Distances in groups: near ones alone, farther ones together, in groups whose width grows with the logarithm."""

import math

import torch
from torch import Tensor


def relative_buckets(count: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Return the bucket of each distance 0, 1, ..., count - 1 back from a query, (count,).

    The first half of the buckets holds one distance each; `max_distance` and more share the last.
    Source: Qi et al. 2020, section 3.2; Raffel et al. 2019, section 2.1.
    """
    distances = torch.arange(count, device=device)
    exact = num_buckets // 2
    # In fp32 and in this order, which decides on which side of a boundary a distance falls.
    growth = torch.log(distances.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + growth * (num_buckets - exact)).clamp(max=num_buckets - 1).long()
    return torch.where(distances < exact, distances, far)
