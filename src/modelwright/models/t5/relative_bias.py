"""T5's relative positions: one learned number per head and distance, added to the attention scores.

Near distances have a bucket each, farther ones share buckets whose width grows with the logarithm. Only T + S - 1
distances occur between T queries and S keys, so these are looked up, and the matrix is a sliding window over them:

    distances           -2 -1  0  1  2         key - query, for T = S = 3
    query 0                    [0  1  2]
    query 1                [-1  0  1]
    query 2            [-2 -1  0]

Legend: H heads, T queries, S keys, N buckets. Source: Raffel et al. 2019, section 2.1; Shaw et al. 2018.
"""

import math

import torch
from torch import Tensor

from modelwright.core.errors import InputError


def relative_position_bucket(
    relative_position: Tensor, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """Return the bucket of each distance (key position minus query position, in tokens), of the same shape.

    With `bidirectional` one half of the buckets is for keys behind the query and the other for those before it;
    without, keys behind the query share the bucket of distance 0. `max_distance` and more share the last bucket.
    """
    if bidirectional:
        num_buckets //= 2
        side = (relative_position > 0).long() * num_buckets
        distance = relative_position.abs()
    else:
        side = torch.zeros_like(relative_position)
        distance = (-relative_position).clamp(min=0)
    num_exact = num_buckets // 2
    # In fp32 and in this order, which decides on which side of a boundary a distance falls.
    growth = torch.log(distance.float() / num_exact) / math.log(max_distance / num_exact)
    far = num_exact + (growth * (num_buckets - num_exact)).clamp(min=0).long()
    return side + torch.where(distance < num_exact, distance, far.clamp(max=num_buckets - 1))


def relative_bias(
    table_NH: Tensor,
    query_length: int,
    key_length: int,
    first_query: int = 0,
    *,
    bidirectional: bool,
    max_distance: int,
) -> Tensor:
    """Return the bias (1, H, T, S) of queries at the positions from `first_query` on to keys at those from 0 on."""
    T, S = query_length, key_length
    nearest = -(first_query + T - 1)
    distances = torch.arange(nearest, nearest + T + S - 1, device=table_NH.device)
    buckets = relative_position_bucket(distances, bidirectional, table_NH.shape[0], max_distance)
    values_HR = table_NH.t()[:, buckets]
    if T == 1:
        return values_HR[None, :, None]
    if torch.compiler.is_exporting():
        # `unfold` would make a constant of the number of keys.
        keys_TS = torch.arange(T - 1, -1, -1, device=table_NH.device)[:, None] + torch.arange(S, device=table_NH.device)
        return values_HR[:, keys_TS][None]
    return values_HR.unfold(-1, S, 1).flip(-2)[None]


def padding_as_4d(mask: Tensor | None) -> Tensor | None:
    """Return a mask of ones and zeros per query, (B, T, S), as booleans (B, 1, T, S); others as they are."""
    if mask is None or mask.dim() in (2, 4):
        return mask
    if mask.dim() == 3:
        return mask[:, None].bool()
    raise InputError(
        "attention_mask: expected the shape (batch, keys), (batch, queries, keys) or (batch, heads or 1, queries, "
        f"keys), got {tuple(mask.shape)}"
    )
