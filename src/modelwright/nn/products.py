"""Products with a weight on the CPU, without gradients: two that are faster there than torch's own.

- One row times a weight that lies by inputs is a weighted sum of the rows of a table, which is `embedding_bag`: it
  reads the weight at the memory's speed on all threads, adds in fp32 and rounds once. In half precision torch's own
  product copies the weight into another order first, which takes three times as long.
- In fp32 torch multiplies with the BLAS that it was built with. oneDNN, which it has for half precision, takes half of
  the time of MKL on AMD's processors, for one row and for many.

Everything else, and every call that is recorded or counted, is torch's own product.
Legend: K inputs, N outputs, P parts, one for each thread.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.nn.tracing import is_recorded

# The dtypes that `embedding_bag` has a fast kernel for.
ROW_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Registered only where torch was built with oneDNN.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b, (..., K) -> (..., N), for a weight [N, K] and a bias [N]; by the fastest way there is."""
    return free_linear(x, weight, bias) if is_free(x, weight) else F.linear(x, weight, bias)


def free_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what `linear` does, for tensors that `is_free` was asked about."""
    N, K = weight.shape
    by_inputs = weight.stride() == (1, N)
    if by_inputs and x.numel() == K and x.dtype in ROW_DTYPES:
        return _times_row(x, weight, bias)
    # oneDNN multiplies with a part of a larger weight a hundred times slower than with a whole one.
    is_whole = by_inputs or weight.is_contiguous()
    if is_whole and x.dtype == torch.float32 and _ONEDNN is not None and torch.backends.mkldnn.enabled:
        result: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return result
    # In half precision torch is three hundred times slower where the tokens of a batch do not lie together.
    return F.linear(x.contiguous(), weight, bias)


def is_free(x: Tensor, weight: Tensor) -> bool:
    """Tell whether x W^T may be computed another way: two ordinary tensors that fit, on the CPU, without gradients.

    Not under autocast, and not where somebody records or counts what is computed (a compiler, a flop counter).
    """
    return (
        not torch.is_grad_enabled()
        and not is_recorded()
        and x.is_cpu
        and weight.is_cpu
        and type(x) is Tensor
        and type(weight) in (nn.Parameter, Tensor)
        and x.dtype == weight.dtype
        and x.shape[-1:] == weight.shape[-1:]
        and x.numel() > 0 < weight.numel()
        and not torch.is_autocast_enabled("cpu")
    )


def _times_row(row: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return row W^T + b, (..., K) -> (..., N), for a weight [N, K] that lies by inputs."""
    (N, K), threads = weight.shape, torch.get_num_threads()
    by_outputs = N % threads == 0
    parts = threads if by_outputs else math.gcd(K, threads)
    indices, offsets = _bags(K, parts, by_outputs)
    scale, pieces = row.reshape(K), parts if by_outputs else 1
    if pieces > 1:
        scale = torch.cat([scale] * pieces)
    table = weight.as_strided((K * pieces, N // pieces), (N // pieces, 1), weight.storage_offset())
    result = torch.embedding_bag(table, indices, offsets, False, 0, False, scale)[0]
    result = (result if by_outputs else result.sum(dim=0)).view(*row.shape[:-1], N)
    return result if bias is None else result + bias


@functools.lru_cache(maxsize=256)
def _bags(K: int, parts: int, by_outputs: bool) -> tuple[Tensor, Tensor]:
    """Return which rows of a table each part adds up, one part behind the other, and where each part begins.

    By outputs the table has `parts` rows for an input, one for each part, else one, and each part adds up its share.
    """
    if by_outputs:
        indices = torch.arange(K * parts, device="cpu").view(K, parts).t().reshape(-1)
    else:
        indices = torch.arange(K, device="cpu")
    return indices, torch.arange(0, len(indices), len(indices) // parts, device="cpu")
