"""The range that loses least, given a histogram of |x|. Pure functions on arrays.

Legend: n bins, counts [n] whole numbers, edges [n + 1]; a candidate i keeps the first i bins, so its range is edges[i].
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelwright.core.errors import InputError, nearest
from modelwright.quantization.fake_quant import fake_tensor_quant

Array = np.ndarray[Any, np.dtype[Any]]
METHODS = ("entropy", "mse", "percentile")
# Candidates that are this close to the best one are computed again, number by number, so that rounding decides nothing.
_CLOSE = 1e-6


class SearchError(InputError, TypeError):
    """A calibration method that does not exist."""


def check_method(method: str) -> None:
    """Raise SearchError (a TypeError) if there is no such method."""
    if method not in METHODS:
        raise SearchError(
            f"calibration: expected a method of {', '.join(METHODS)}, got {method!r}.{nearest(str(method), METHODS)}"
        )


def search(
    method: str,
    counts: Array,
    edges: Array,
    *,
    num_bits: int = 8,
    unsigned: bool = False,
    stride: int = 1,
    start_bin: int = 128,
    percentile: float = 99.99,
) -> Tensor:
    """Return the range that `method` chooses, a float32 scalar; see the functions of this file."""
    check_method(method)
    if method == "percentile":
        return percentile_amax(counts, edges, percentile)
    choose = entropy_amax if method == "entropy" else mse_amax
    return choose(counts, edges, num_bits=num_bits, unsigned=unsigned, stride=stride, start_bin=start_bin)


def percentile_amax(counts: Array, edges: Array, percentile: float) -> Tensor:
    """Return the left edge of the bin in which `percentile` percent (0 to 100) of the numbers are reached."""
    if not 0 <= percentile <= 100:
        raise InputError(f"calibration: expected a percentile from 0 to 100, got {percentile}")
    reached = np.cumsum(counts / counts.sum())
    # Rounding may leave the last sum below 1.
    index = min(int(np.searchsorted(reached, percentile / 100)), len(counts))
    return torch.tensor(float(edges[index]))


def entropy_amax(
    counts: Array, edges: Array, *, num_bits: int = 8, unsigned: bool = False, stride: int = 1, start_bin: int = 128
) -> Tensor:
    """Return the range whose quantized distribution has the least Kullback-Leibler divergence from the real one.

    Of each candidate, the first i bins are put into 2^(num_bits - 1) groups (2^num_bits if unsigned), and each bin that
    is not empty gets its group's mean; the real distribution has all that is beyond added to its last bin. The last of
    equal candidates wins. All candidates are computed at once, from running sums.
    """
    counts = counts.astype(np.float64)
    # Zeros are exact in any range, so the first bin, which is full of them, does not count.
    counts[0] = counts[1]
    groups = 2 ** (num_bits - 1 + int(unsigned))
    candidates = np.arange(min(start_bin, len(counts)), len(counts) + 1, stride)
    rough = _divergences(counts, candidates, groups)
    best = rough.min()
    close = candidates[rough <= best + _CLOSE * max(abs(best), 1e-3)]
    if not len(close):
        close = candidates
    exact = np.array([_divergence(counts, int(i), groups) for i in close])
    chosen = close[len(exact) - 1 - int(np.argmin(exact[::-1]))]
    return torch.tensor(float(edges[chosen]))


def _divergences(counts: Array, candidates: Array, groups: int) -> Array:
    """Return the divergence of every candidate [C]; infinite where the last bin is empty and something is beyond."""
    total = counts.sum()
    before = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.concatenate([[0.0], np.cumsum(np.where(counts > 0, counts * np.log(counts), 0.0))])
    result = np.empty(len(candidates))
    # Blocks, so that the memory is bounded.
    block = max(1, 2**22 // (groups + 1))
    for start in range(0, len(candidates), block):
        i_C = candidates[start : start + block]
        bounds_CG = -(-np.arange(groups + 1)[None] * i_C[:, None] // groups)
        mass_CG, number_CG = np.diff(before[bounds_CG], axis=1), np.diff(filled[bounds_CG], axis=1)
        tail_C, last_C = total - before[i_C], counts[i_C - 1]
        group_C = (i_C - 1) * groups // i_C
        with np.errstate(divide="ignore", invalid="ignore"):
            log_mean_CG = np.where(number_CG > 0, np.log(mass_CG / number_CG), 0.0)
            own_C = plain[i_C - 1] + np.where(last_C + tail_C > 0, (last_C + tail_C) * np.log(last_C + tail_C), 0.0)
            cross_C = (mass_CG * log_mean_CG).sum(axis=1) + tail_C * log_mean_CG[np.arange(len(i_C)), group_C]
            divergence_C = (own_C - cross_C) / total - np.log(total) + np.log(before[i_C])
        lost = (before[i_C] == 0) | ((last_C == 0) & (tail_C > 0))
        result[start : start + block] = np.where(lost, np.inf, divergence_C)
    return result


def _divergence(counts: Array, i: int, groups: int) -> float:
    """Return the divergence of one candidate, summed over its bins."""
    kept = counts[:i]
    group = np.arange(i) * groups // i
    mass = np.bincount(group, weights=kept, minlength=groups)
    number = np.bincount(group[kept > 0], minlength=groups)
    quantized = np.where(kept > 0, mass[group] / np.maximum(number[group], 1), 0.0)
    real = kept.copy()
    real[-1] += counts[i:].sum()
    p, q = real / real.sum(), quantized / max(quantized.sum(), np.finfo(float).tiny)
    some = p > 0
    if (q[some] == 0).any():
        return float("inf")
    return float((p[some] * np.log(p[some] / q[some])).sum())


def mse_amax(
    counts: Array, edges: Array, *, num_bits: int = 8, unsigned: bool = False, stride: int = 1, start_bin: int = 128
) -> Tensor:
    """Return the range, the middle of a bin, whose quantization of the bins' middles has the least mean square error.

    Quantized as `fake_tensor_quant` does with a narrow range; the first of equal candidates wins.
    """
    weight_n = torch.from_numpy(np.ascontiguousarray(counts)).float()
    edge = torch.from_numpy(np.ascontiguousarray(edges)).float()
    middle_n = (edge[1:] + edge[:-1]) / 2
    candidates = torch.arange(min(start_bin, len(middle_n) - 1), len(middle_n), stride)
    some = weight_n > 0
    middle_m, weight_m = middle_n[some], weight_n[some]
    block = max(1, 2**22 // max(len(middle_m), 1))
    rough = torch.cat(
        [_errors(middle_m, weight_m, middle_n[part], num_bits, unsigned) for part in torch.split(candidates, block)]
    )
    close = candidates[rough <= rough.min() * (1 + _CLOSE)]
    exact = torch.stack([_errors(middle_n, weight_n, middle_n[i, None], num_bits, unsigned).squeeze() for i in close])
    return middle_n[close[int(exact.argmin())]]


def _errors(middle_m: Tensor, weight_m: Tensor, amax_C: Tensor, num_bits: int, unsigned: bool) -> Tensor:
    """Return the weighted mean square error of each range [C]."""
    quantized_Cm = fake_tensor_quant(middle_m[None], amax_C[:, None], num_bits, unsigned)
    return ((quantized_Cm - middle_m) ** 2 * weight_m).mean(dim=1)
