"""The product of a linear layer on the CPU, by the way that is fastest there; elsewhere it is torch's own.

- In fp32 torch multiplies by MKL, which on AMD's processors does not use their 512-bit units. oneDNN, which torch has
  for half precision, does: it takes half of the time there, in the same precision, and nine tenths where the units work
  in halves (Zen 4).
- One row times a weight that lies by inputs is a weighted sum of the rows of a table, which is `embedding_bag`: it
  reads the weight at the memory's speed on all threads, adds in fp32 and rounds once. In half precision torch's own
  product copies the weight into another order first, which takes three times as long.
- MKL's x W^T copies the weight into another order too; for a few rows (beams, a small batch) W x^T does not.

Legend: R rows, K inputs, N outputs.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.nn.tracing import is_recorded

# The dtypes that `embedding_bag` has a fast kernel for.
ROW_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Multiplications below which the call of oneDNN costs more than it saves, and the numbers of a weight that is read from
# memory, so that one row of input is worth it.
_LARGE, _LARGE_WEIGHT = 2**20, 2**18
# The numbers of a few rows that fit into a core's fastest cache beside what is read of the weight (16 kB), and those of
# a weight that stays in no cache.
_FEW, _UNCACHED_WEIGHT = 4096, 2**16
# Rows of a product that is added to a sum: 4 MB of 512 columns.
_PART = 2048
_PLAIN = (Tensor, nn.Parameter)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, (..., K) -> (..., N), for a weight [N, K], which may be a transposed view, and a bias [N].

    It has the gradients of `F.linear`, which does what other code looks into (autocast, tracing, transforms, flop
    counters, subclasses of tensors) and what does not fit.
    """
    if not _is_ordinary(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (x, weight, bias)):
        if _suits_onednn(x, weight):
            result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return result
        return F.linear(x, weight, bias)
    return _product(x, weight, bias)


def is_free(x: Tensor, weight: Tensor) -> bool:
    """Tell whether `linear` may compute x W^T another way than torch does: ordinary tensors, without gradients."""
    return not torch.is_grad_enabled() and _is_ordinary(x, weight, None)


def is_watched(*tensors: Tensor) -> bool:
    """Tell whether other code may look into what is computed of these tensors, so that it should be torch's own calls.

    That is a tracer, a transform, a dispatch mode, or a subclass of tensors.
    """
    return is_recorded() or any(type(each) not in _PLAIN for each in tensors)


def add_product_(sum_NK: Tensor, left_NR: Tensor, right_RK: Tensor, *, beta: int = 1) -> None:
    """Add `left @ right` to `sum`, in place and without gradients; half precision is added to a sum in fp32.

    beta: 0 puts the product in the place of what `sum` holds, which may be anything.
    """
    right_KR = right_RK.t()
    is_mixed = sum_NK.dtype != left_NR.dtype
    by_onednn = _is_ordinary(left_NR, right_KR, None) and _suits_onednn(left_NR, right_KR)
    if not (is_mixed or by_onednn):
        sum_NK.addmm_(left_NR, right_RK, beta=beta)
        return
    # Neither oneDNN nor a sum of another dtype adds as it multiplies, so the product is made in parts that are added
    # while they are in a cache.
    for rows in range(0, len(sum_NK), _PART):
        left, into = left_NR[rows : rows + _PART], sum_NK[rows : rows + _PART]
        product = _by_onednn(left, right_KR, None) if by_onednn else left @ right_RK
        if beta:
            into.add_(product)
        else:
            into.copy_(product)


class _Linear(torch.autograd.Function):
    """The product by oneDNN and its gradients, which are such products themselves and so have gradients too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Each only for the gradient of the other, as torch does: a frozen weight must not keep the inputs in memory.
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows_RN = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t()) if of_x else None,
            linear(rows_RN.t(), x.reshape(-1, x.shape[-1]).t()) if of_weight else None,
            rows_RN.sum(dim=0) if of_bias else None,
        )


def _is_ordinary(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Tell whether these are plain tensors on the CPU that fit, and nobody follows what is done with them."""
    return (
        not is_recorded()  # first, because a tracer also writes down what is asked of sizes
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.is_cpu
        and weight.is_cpu
        and x.layout is weight.layout is torch.strided
        and x.dtype == weight.dtype
        and weight.dim() == 2
        and x.shape[-1:] == weight.shape[1:]
        and x.numel() > 0 < weight.numel()
        and (bias is None or (type(bias) in _PLAIN and bias.dtype == weight.dtype and bias.shape == weight.shape[:1]))
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b for ordinary tensors, without gradients."""
    N, K = weight.shape
    if x.numel() == K and weight.stride() == (1, N) and x.dtype in ROW_DTYPES:
        return _times_row(x, weight, bias)
    if x.dtype != torch.float32:
        # torch is three hundred times slower where the tokens of a batch do not lie together.
        return F.linear(x.contiguous(), weight, bias)
    few = K < x.numel() <= (_FEW // 2 if onednn_is_faster() else _FEW)
    if few and N * K >= _UNCACHED_WEIGHT and weight.is_contiguous():
        result = weight.mm(x.reshape(-1, K).t()).t().contiguous().view(*x.shape[:-1], N)
        return result if bias is None else result.add_(bias)
    return _by_onednn(x, weight, bias) if _suits_onednn(x, weight) else F.linear(x, weight, bias)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tell whether ordinary tensors are large enough and lie so that oneDNN is faster."""
    return (
        x.dtype == torch.float32
        and (weight.numel() >= _LARGE_WEIGHT or x.numel() * weight.shape[0] >= _LARGE)
        # With a part of a larger weight it is a hundred times slower than with a whole one.
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and onednn_is_faster()
        and not (_is_copied(x, weight) and works_in_halves())
        and torch._C._get_mkldnn_enabled()
    )


def _is_copied(x: Tensor, weight: Tensor) -> bool:
    """Tell whether oneDNN first copies the inputs, as those of a weight's gradient, and they are the larger part."""
    return x.dim() == 2 and x.stride(0) == 1 < x.shape[1] and x.shape[0] >= weight.shape[0]


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is not None:
        bias = bias.contiguous()  # the operation reads it without asking for its strides
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


@functools.cache
def onednn_is_faster(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tell whether this is a processor of AMD with 512-bit units (Linux says so in `cpuinfo`) and torch has oneDNN."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch._C._has_mkldnn:
        return False
    return "AuthenticAMD" in _read(cpuinfo) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def works_in_halves(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Tell whether this processor of AMD does 512-bit operations in two halves, as Zen 4 (family 25) does."""
    return re.search(r"^cpu family\s*: 25$", _read(cpuinfo), re.MULTILINE) is not None


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ""


def ready(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function of x, (..., K) -> (..., N), that multiplies as `linear` does and asks nothing.

    It is for many products with an fp32 weight on the CPU, of ordinary tensors, without gradients, while nobody looks
    (see `is_free`), the weight stays in its memory and the number of threads what it is: the caller answers for that.
    """
    N, K = weight.shape
    by_row = _row_product(weight, bias) if weight.stride() == (1, N) else None

    def times(x: Tensor) -> Tensor:
        return _product(x, weight, bias) if by_row is None or x.numel() != K else by_row(x)

    return times


def _times_row(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _row_product(weight, bias)(row)


def _row_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a function of one row, (..., K) -> (..., N): row W^T + b for a weight [N, K] that lies by inputs.

    Each thread takes its share of the inputs, which lies together, and their sums are added up. In half precision it
    takes its share of the outputs, where these can be shared out, so that each is rounded once.
    """
    (N, K), threads = weight.shape, torch.get_num_threads()
    pieces = threads if weight.dtype != torch.float32 and N % threads == 0 else 1
    indices, offsets, ones = _bags(K, threads, weight.dtype, by_outputs=pieces > 1)
    # Detached: for a table that wants a gradient, in inference mode too, torch prepares one.
    table = weight.detach().t()
    if pieces > 1:
        table = table.reshape(K * pieces, N // pieces)

    def times(row: Tensor) -> Tensor:
        scale = row.reshape(K)
        if pieces > 1:
            scale = torch.cat([scale] * pieces)
        sums = torch.embedding_bag(table, indices, offsets, False, 0, False, scale)[0]
        if pieces > 1:
            result = sums.view(1, N) if bias is None else sums.view(1, N).add_(bias)
        else:
            result = torch.mm(ones, sums) if bias is None else torch.addmm(bias, ones, sums)
        return result if row.dim() == 2 else result.view(*row.shape[:-1], N)

    return times


@functools.lru_cache(maxsize=256)
def _bags(K: int, threads: int, dtype: torch.dtype, *, by_outputs: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return which rows of a table each thread adds up, one's share behind the other's, and where each share begins.

    By outputs the table has `threads` rows for an input, one for each of them, else one. With them come the ones
    (1, threads) that add the sums up.
    """
    shares, ones = torch.arange(threads, device="cpu"), torch.ones(1, threads, dtype=dtype, device="cpu")
    if by_outputs:
        return torch.arange(K * threads, device="cpu").view(K, threads).t().reshape(-1), shares * K, ones
    return torch.arange(K, device="cpu"), shares * K // threads, ones
