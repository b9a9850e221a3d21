"""A table of embeddings that is the weight of a head too, looked up so that its gradient is made once.

torch makes each lookup a gradient of the size of the table, zeros but for the rows that were looked up, and adds it to
that of the head. Here the head's gradient runs back through the lookups, and each adds its rows to it in place:

    weight --- lookup --- lookup --- table.weight --- head
                 |          |
               rows       rows

Legend: V rows of the table, E hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.nn.decode_layout import is_hooked, is_plain_linear
from modelwright.nn.products import is_watched


class TiedTable:
    """The table in one call of a model; after the last lookup, `weight` (V, E) is for one function.

    That function gives the gradient away, or makes it anew: nobody else may read it.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def rows(self, ids: Tensor, padding_idx: int | None) -> Tensor:
        """Return the rows of `ids`, (...) -> (..., E); that of `padding_idx` gets no gradient."""
        looked_up: tuple[Tensor, Tensor] = _Rows.apply(self.weight, ids, padding_idx)  # type: ignore[no-untyped-call]
        self.weight, rows = looked_up
        return rows


def tied_table(head: nn.Module, *lookups: nn.Module) -> TiedTable | None:
    """Return the table that the head and all lookups have, or None: some do more than that, or there is no gain.

    There is on a CPU, while gradients are recorded.
    """
    if not torch.is_grad_enabled() or not is_plain_linear(head):
        return None
    weight: Tensor = head._parameters["weight"]  # type: ignore[assignment]
    fits = weight.requires_grad and weight.is_cpu and not is_watched(weight)
    return TiedTable(weight) if fits and all(_is_plain(lookup, weight) for lookup in lookups) else None


def _is_plain(lookup: nn.Module, weight: Tensor) -> bool:
    return (
        type(lookup) is nn.Embedding
        and lookup._parameters.get("weight") is weight
        and not is_hooked(lookup)
        and lookup.max_norm is None
        and not (lookup.scale_grad_by_freq or lookup.sparse)
    )


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VE: Tensor, ids: Tensor, padding_idx: int | None) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ids)
        ctx.call = (weight_VE.shape, -1 if padding_idx is None else padding_idx)
        return weight_VE.detach(), torch.embedding(weight_VE, ids)

    @staticmethod
    def backward(ctx: Any, grad_VE: Tensor | None, rows: Tensor | None) -> tuple[Tensor | None, None, None]:
        (ids,), ((V, E), padding_idx) = ctx.saved_tensors, ctx.call
        if rows is None:
            return grad_VE, None, None
        if torch.is_grad_enabled():
            # Gradients that have gradients themselves are shared with others.
            of_rows_VE = torch.ops.aten.embedding_dense_backward(rows, ids, V, padding_idx, False)
            return of_rows_VE if grad_VE is None else grad_VE + of_rows_VE, None, None
        if grad_VE is None:
            grad_VE = rows.new_zeros(V, E)
        learns = ids != padding_idx
        return grad_VE.index_add_(0, ids[learns], rows[learns].to(grad_VE.dtype)), None, None
