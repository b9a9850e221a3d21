"""Running an encoder without its padding: the real tokens of a batch in one row, attention sequence by sequence.

Legend: B sequences, T tokens with the padding, N real tokens of the batch, E hidden size, H heads, D head size.

    packing = packing_of(encoder, attention_mask_BT)        None: run as ever
    hidden_1NE = packing.pack(hidden_BTE)                   then every layer works on N tokens instead of B * T
    attended = packing.attend(kernel, module, q_1HND, k_1HND, v_1HND, ...)
    hidden_BTE = packing.unpack(hidden_1NE)                 zeros where the padding is
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.nn.decode_layout import is_hooked
from modelwright.nn.tracing import is_tracing

# Padding of a row, in tokens, whose layers cost more than a call of attention for each sequence: twice to seven times
# as much at width 512.
_WORTH_IT = 16
# Where the modules are from that make the same of a token whatever the others are, but for attention.
_TOKEN_BY_TOKEN = ("torch.nn.modules.", "modelwright.attention.", "modelwright.models.", "modelwright.nn.")
_MAY_LEAVE_OUT: ContextVar[bool] = ContextVar("may_leave_out", default=False)


class Unpaddable:
    """Mixed into the module of an encoder that can run unpadded; it does while `unpadded` is True.

    `can_unpad` is False for one that could but must not, such as a stack of decoder layers.
    """

    unpadded: bool = False
    can_unpad: bool = True


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a batch are.

    `index` [N] counts the B * T places; `places` of each sequence are a slice of its T places, or, where its tokens
    stand apart, a list.
    """

    index: Tensor
    places: list[slice | list[int]]
    lengths: list[int]
    batch: int
    tokens: int

    @classmethod
    def of_mask(cls, attention_mask_BT: Tensor) -> "Packing":
        """Return the packing of a padding mask, whose ones may be anywhere; waits for the device."""
        real_BT = attention_mask_BT.bool().cpu()
        rows = [row.nonzero().squeeze(1).tolist() for row in real_BT]
        index = real_BT.flatten().nonzero().squeeze(1).to(attention_mask_BT.device)
        return cls(index, list(map(_place, rows)), list(map(len, rows)), *attention_mask_BT.shape)

    def pack(self, x_BTE: Tensor) -> Tensor:
        """Return the real tokens, [1, N, E]."""
        return x_BTE.flatten(0, 1).index_select(0, self.index)[None]

    def unpack(self, x_1NE: Tensor) -> Tensor:
        """Return [B, T, E] with zeros where the padding is."""
        width = x_1NE.shape[-1]
        places = x_1NE.new_zeros(self.batch * self.tokens, width)
        return places.index_copy(0, self.index, x_1NE[0]).view(self.batch, self.tokens, width)

    def attend(
        self,
        kernel: Callable[..., Any],
        module: Any,
        query_1HND: Tensor,
        key_1HND: Tensor,
        value_1HND: Tensor,
        *,
        bias: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the output [1, N, H, D] of an attention kernel, called for each sequence with its tokens only.

        `bias` [1, H, T, T] is added to the scores. `options` go to the kernel.
        """
        parts = []
        split = (torch.split(x, self.lengths, dim=2) for x in (query_1HND, key_1HND, value_1HND))
        for place, query, key, value in zip(self.places, *split, strict=True):
            if query.shape[2]:
                own = None if bias is None else bias[:, :, place][..., place]
                parts.append(kernel(module, query, key, value, own, is_causal=False, **options)[0])
        return torch.cat(parts, dim=1)


@contextmanager
def leaving_out_padding() -> Iterator[None]:
    """Let encoders run unpadded in this block of this thread, also if they were not told to, where it saves time.

    For a caller who looks at no state of padding. That is on the CPU, with enough padding.
    """
    token = _MAY_LEAVE_OUT.set(True)
    try:
        yield
    finally:
        _MAY_LEAVE_OUT.reset(token)


def works_token_by_token(encoder: nn.Module, *, in_training: bool = False) -> bool:
    """Tell whether no module of an encoder does other things with padding away, but for attention.

    Hooks and foreign code may, such as layers that take the range of what they quantize from all tokens of the batch;
    and modules in training, where dropout draws for padding too, unless `in_training` says that this does not matter.
    """
    return not any(
        (module.training and not in_training)
        or is_hooked(module)
        or not type(module).__module__.startswith(_TOKEN_BY_TOKEN)
        for module in encoder.modules()
    )


def packing_of(encoder: Unpaddable, attention_mask: Any) -> Packing | None:
    """Return how `encoder` packs a batch, or None: it runs padded, nothing is padding, or the mask is no [B, T].

    Nor is anything packed while the call is traced, because lengths are values.
    """
    # First, as a compiler breaks off at the other question.
    if is_tracing():
        return None
    may = encoder.unpadded or (encoder.can_unpad and _MAY_LEAVE_OUT.get())
    if not (may and isinstance(attention_mask, Tensor) and attention_mask.dim() == 2):
        return None
    if not (encoder.unpadded or _is_worth_it(attention_mask)):
        return None
    packing = Packing.of_mask(attention_mask)
    nothing_to_gain = packing.index.shape[0] in (0, packing.batch * packing.tokens)
    return None if nothing_to_gain else packing


def _is_worth_it(mask_BT: Tensor) -> bool:
    return mask_BT.is_cpu and mask_BT.numel() - int(mask_BT.count_nonzero()) >= _WORTH_IT * mask_BT.shape[0]


def _place(row: list[int]) -> slice | list[int]:
    gapless = bool(row) and row[-1] - row[0] + 1 == len(row)
    return slice(row[0], row[-1] + 1) if gapless else row
