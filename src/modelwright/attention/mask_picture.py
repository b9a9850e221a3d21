"""A mask that prints itself as a small picture."""

import copy
from typing import Any

import torch
from torch import Tensor

VISIBLE, HIDDEN = "■", "·"
_MOST = 40


class AttentionMask(Tensor):
    """A mask matrix [B, heads or 1, T, S] whose repr is a picture. Every operation on it gives plain tensors."""

    # Operations treat it as the plain tensor that it is, at no cost.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, data: Any) -> "AttentionMask":
        """Show `data`, a tensor or nested lists, as a mask."""
        return torch.as_tensor(data).as_subclass(cls)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"AttentionMask(shape={list(self.shape)}, dtype={self.dtype})\n{picture(self.as_subclass(Tensor))}"

    __str__ = __repr__

    def __deepcopy__(self, memo: dict[int, Any]) -> "AttentionMask":
        return copy.deepcopy(self.as_subclass(Tensor), memo).as_subclass(AttentionMask)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Saved as a plain tensor, which torch.load reads without being told about this class.
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def picture(mask: Tensor) -> str:
    """Return a picture of `mask` [..., T, S]: one line per query, ■ for a key that it sees, · for one that it does not.

    Boolean masks say so themselves; in additive ones a key is seen where more than half of the lowest number is added.
    The first 40 queries and keys of the first head are drawn, for each row of the batch once if they are the same.
    """
    if mask.is_meta:
        return "(no data)"
    visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    rows = visible.detach().cpu().reshape(-1, *visible.shape[-3:])[:, 0] if visible.dim() > 2 else visible[None]
    drawings = [_draw(row) for row in rows]
    if len(set(drawings)) == 1:
        return drawings[0]
    return "\n".join(f"row {index}:\n{drawing}" for index, drawing in enumerate(drawings[:4]))


def _draw(matrix: Tensor) -> str:
    T, S = matrix.shape
    lines = ["".join(VISIBLE if seen else HIDDEN for seen in line) for line in matrix[:_MOST, :_MOST].tolist()]
    if S > _MOST:
        lines = [line + "…" for line in lines]
    if T > _MOST:
        lines.append("⋮")
    return "\n".join(lines)
