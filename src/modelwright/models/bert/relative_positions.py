"""Relative positions as a bias of attention scores: queries, and keys too, times an embedding of their distance.

Legend: B batch, H heads, T query tokens, S key tokens, D head size, M the most positions.
"""

import torch
from torch import Tensor


def relative_bias(
    query_BHTD: Tensor, key_BHSD: Tensor, distances_RD: Tensor, first_query: int, *, with_keys: bool
) -> Tensor:
    """Return [B, H, T, S], to be scaled as the scores are; the queries stand from `first_query` on, the keys from 0.

    `distances_RD` has one row for each distance from -(M - 1) to M - 1. With `with_keys` the keys are multiplied too.
    Source: Shaw et al. 2018, equation 4; Huang et al. 2020, equation 14.
    """
    device = query_BHTD.device
    positions_T1 = torch.arange(first_query, first_query + query_BHTD.shape[2], device=device)[:, None]
    positions_S = torch.arange(key_BHSD.shape[2], device=device)
    zero = distances_RD.shape[0] // 2
    embedded_TSD = distances_RD[positions_T1 - positions_S + zero].to(query_BHTD.dtype)
    bias = torch.einsum("bhtd,tsd->bhts", query_BHTD, embedded_TSD)
    if with_keys:
        bias = bias + torch.einsum("bhsd,tsd->bhts", key_BHSD, embedded_TSD)
    return bias
