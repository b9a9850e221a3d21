"""A tensor that grows along its token axis without being copied at every step.

Legend: B batch, G key/value heads, S tokens held, T new tokens, D head size.
"""

import torch
from torch import Tensor

from modelwright.nn.tracing import is_tracing

# Spare room of a new buffer, in tokens: at least so many, or this part of what it holds.
_SPARE, _SPARE_PART = 64, 4


class Growing:
    """The buffer behind one tensor [B, G, S, D] of a cache: what is added goes behind what is there, in place.

    It only ever writes where no tensor that it returned can see, but for those with lent tokens, and only behind the
    last one that it returned: given another (a cropped or reordered one), it begins a new buffer.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._end = self._lent = 0
        self._last: Tensor | None = None

    def append(self, held: Tensor, new: Tensor) -> Tensor:
        """Return `held` [B, G, S, D] with `new` [B, G, T, D] behind it; with gradients it is a concatenation."""
        if torch.is_grad_enabled() or is_tracing() or held.dtype != new.dtype:
            return torch.cat([held, new], dim=2)
        return self.append_and_lend(held, new, 0)[0]

    def append_and_lend(self, held: Tensor, new: Tensor, lent: int) -> tuple[Tensor, Tensor]:
        """Return `held` with all but the last `lent` tokens of `new` behind it, and that with these, until the next.

        Without gradients, and of one dtype.
        """
        S, T = held.shape[2], new.shape[2]
        buffer = self._buffer
        if buffer is None or held is not self._last or not self._takes(buffer, T):
            shape = (*held.shape[:2], S + T + max(_SPARE, (S + T) // _SPARE_PART), held.shape[3])
            buffer = self._buffer = held.new_empty(shape)
            buffer[:, :, :S] = held
            self._end = S
        first, end = self._end - S, self._end + T
        buffer.narrow(2, self._end, T).copy_(new)
        self._end, self._lent = end - lent, lent
        self._last = buffer.narrow(2, first, self._end - first)
        return self._last, buffer.narrow(2, first, end - first) if lent else self._last

    def select(self, held: Tensor, rows: Tensor) -> Tensor:
        """Return the `rows` [C] of `held`, [C, G, S, D], with room for a token, as beams add, and what is lent."""
        rows = rows.to(held.device)
        if torch.is_grad_enabled() or is_tracing():
            return held.index_select(0, rows)
        _, G, S, D = held.shape
        self._buffer, self._end = held.new_empty(len(rows), G, S + 1 + self._lent, D), S
        self._last = torch.index_select(held, 0, rows, out=self._buffer[:, :, :S])
        return self._last

    def _takes(self, buffer: Tensor, count: int) -> bool:
        # Outside inference mode torch refuses to write to a tensor that was made in it.
        same_mode = buffer.is_inference() == torch.is_inference_mode_enabled()
        return same_mode and self._end + count <= buffer.shape[2]

    def without_first(self, held: Tensor, count: int) -> Tensor:
        """Return `held` without its first `count` tokens; a copy, so that those can be freed, unless it can go on."""
        if held is not self._last:
            return held[:, :, count:].clone()
        self._last = held[:, :, count:]
        return self._last
