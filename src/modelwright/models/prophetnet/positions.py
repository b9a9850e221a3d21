"""ProphetNet's learned positions. The first token is at `pad_token_id + 1`, as fairseq counts.

A predict stream's token stands one position after the main stream's. The table has no row for the last positions of the
longest texts: they get the last row. Legend: B batch, T tokens, P rows of the table, E hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig


class ProphetNetPositionalEmbeddings(nn.Embedding):
    """A table of position vectors, (P, E); the row of the pad id is for padding."""

    def __init__(self, config: ProphetNetConfig, **factory: Any) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size, config.pad_token_id, **factory)

    @property
    def first(self) -> int:
        """The row of a text's first token."""
        return 0 if self.padding_idx is None else self.padding_idx + 1

    def position_ids(self, tokens: int, past: int, mask_BS: Tensor | None, device: torch.device) -> Tensor:
        """Return rows of the table, not yet cut to it, (1, T), or (B, T) with a mask of ones and zeros.

        `past` tokens came before; a mask, (B, past + T or more), lets only its ones count.
        """
        if mask_BS is None:
            return self.first + torch.arange(past, past + tokens, device=device)[None]
        real_BT = mask_BS[:, past : past + tokens].long()
        counted_BT = mask_BS.long().cumsum(dim=1)[:, past : past + tokens]
        # Padding gets the row before the first, which is that of the pad id.
        return (self.first - 1 + counted_BT * real_BT).clamp(min=0)

    def forward(self, position_ids: Tensor) -> Tensor:
        """(1 or B, T) -> (1 or B, T, E); positions behind the table get its last row."""
        return super().forward(position_ids.clamp(max=self.num_embeddings - 1))

    @torch.no_grad()
    def resize(self, rows: int) -> None:
        """Stretch or shrink what the table says of tokens to `rows`, by linear interpolation, in place.

        Rows up to that of the pad id stay. Raises InputError if no row would be left for tokens.
        """
        kept = self.first
        if isinstance(rows, bool) or not isinstance(rows, int) or rows <= kept:
            raise InputError(
                f"resize_position_embeddings: expected a whole number above {kept}, as {kept} rows are not for tokens, "
                f"got {rows!r}"
            )
        if rows == self.num_embeddings:
            return
        old_PE = self.weight.data
        told_1EP = old_PE[kept:].float().t()[None]
        told_PE = F.interpolate(told_1EP, size=rows - kept, mode="linear", align_corners=True)[0].t()
        self.weight.data = torch.cat([old_PE[:kept], told_PE.to(old_PE)])
        self.weight.grad = None
        self.num_embeddings = rows
