"""More or fewer rows of a table of embeddings, in place.

The parameter stays the same object, so that whatever is tied to it stays tied. V rows, E columns.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# So much smaller than the spread of the rows is that of new ones around their mean (its square).
_NOISE = 1e-9
_BLOCK = 256

Fill = Callable[[Tensor, int], Tensor]


@torch.no_grad()
def resize_rows(parameter: Tensor, rows: int, fill: Fill) -> None:
    """Cut `parameter` (V, ...) to its first `rows`, or append what `fill(old rows, number of new ones)` returns.

    Its dtype, device and requires_grad stay; a gradient of the old shape is dropped. An optimizer made before must be
    made again.
    """
    old = parameter.data
    if rows == len(old):
        return
    if rows < len(old):
        parameter.data = old[:rows].clone()
    else:
        parameter.data = torch.cat([old, fill(old, rows - len(old)).to(old)])
    parameter.grad = None


def near_mean(rows_VE: Tensor, count: int) -> Tensor:
    """Return `count` rows drawn around the mean of `rows_VE` with 1e-9 of their covariance; also for (V,).

    A language model that is to choose among more tokens then gives each new one about the average probability, so that
    the old ones lose little. Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    rows_VE = rows_VE.to(torch.promote_types(rows_VE.dtype, torch.float32))
    mean_E = rows_VE.mean(dim=0)
    centered_VE = rows_VE - mean_E
    # Normal weights on the centered rows have exactly their covariance, whatever its rank.
    scale = math.sqrt(_NOISE / len(rows_VE))
    drawn = [
        torch.randn(min(_BLOCK, count - start), len(rows_VE), device=rows_VE.device, dtype=rows_VE.dtype) @ centered_VE
        for start in range(0, count, _BLOCK)
    ]
    return mean_E + scale * torch.cat(drawn)


def zeros(rows_VE: Tensor, count: int) -> Tensor:
    """Return `count` rows of zeros."""
    return rows_VE.new_zeros(count, *rows_VE.shape[1:])
