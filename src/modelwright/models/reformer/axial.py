"""Position embeddings: the plain table, and the axial one that is stored as two small factors.

Source of the axial form: Kitaev et al. 2020, appendix ("Axial position embeddings" of Trax).
Shapes: B batch, L tokens, E hidden size, P rows of a table, D its columns.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import ConfigError, InputError
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.nn.dropout import Dropout
from modelwright.nn.precision import at_least_float32


def interpolated_rows(table_PD: Tensor, rows: int) -> Tensor:
    """Return `rows` rows that run linearly through those of the table; the first and the last stay what they are."""
    if rows == len(table_PD):
        return table_PD
    columns_1DP = at_least_float32(table_PD).t().unsqueeze(0)
    stretched_DP = F.interpolate(columns_1DP, size=rows, mode="linear", align_corners=True)[0]
    return stretched_DP.t().to(table_PD.dtype).contiguous()


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class AxialPositionEmbeddings(nn.Module):
    """Embeds position p as the concatenation of one row per axis of `axial_pos_shape`, p written row by row in it.

    Any number of positions up to the product of the shape works, in training too. Dropout drops whole columns (all
    positions that share the place on the last axis), as the original does.
    Raises ConfigError if the widths do not add up to the hidden size or the numbers of axes differ.
    """

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.shape = tuple(config.axial_pos_shape)
        widths = tuple(config.axial_pos_embds_dim)
        if sum(widths) != config.hidden_size or len(widths) != len(self.shape):
            raise ConfigError(
                f"axial_pos_embds_dim: expected {len(self.shape)} widths (one per axis of axial_pos_shape "
                f"{list(self.shape)}) that add up to hidden_size {config.hidden_size}, got {list(widths)}"
            )
        self.dropout = config.hidden_dropout_prob
        self.weights = nn.ParameterList()
        for axis, (size, width) in enumerate(zip(self.shape, widths, strict=True)):
            shape = [1] * len(self.shape) + [width]
            shape[axis] = size
            self.weights.append(nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))

    @property
    def num_positions(self) -> int:
        """The number of positions that have an embedding."""
        return math.prod(self.shape)

    @property
    def setting(self) -> str:
        """The setting that decides it, for messages."""
        return f"axial_pos_shape {list(self.shape)}"

    @torch.no_grad()
    def resize(self, new_size: int | Sequence[int]) -> None:
        """Stretch or shrink the table of each axis to its size in `new_size`, in place; raises InputError."""
        sizes = list(new_size) if isinstance(new_size, Sequence) else [new_size]
        if len(sizes) != len(self.shape) or not all(map(_is_size, sizes)):
            example = [2 * self.shape[0], *self.shape[1:]]
            raise InputError(
                f"resize_position_embeddings: expected {len(self.shape)} positive sizes, one for each axis of "
                f"axial_pos_shape {list(self.shape)}, got {new_size!r}; {example} makes {math.prod(example)} positions"
            )
        for axis, (weight, size) in enumerate(zip(self.weights, sizes, strict=True)):
            shape = [1] * len(sizes) + [weight.shape[-1]]
            shape[axis] = size
            weight.data = interpolated_rows(weight.data.flatten(0, -2), size).view(shape)
            weight.grad = None
        self.shape = tuple(sizes)

    def at(self, position: int) -> Tensor:
        """Return the embedding (E) of one position, without dropout."""
        rows = []
        for axis in reversed(range(len(self.shape))):
            position, place = divmod(position, self.shape[axis])
            rows.append(self.weights[axis].select(axis, place).reshape(-1))
        return torch.cat(rows[::-1])

    def forward(self, position_ids_BL: Tensor) -> Tensor:
        """Return the embeddings (B, L, E) of positions (B, L)."""
        rows = []
        rest = position_ids_BL
        for weight, size in zip(reversed(list(self.weights)), reversed(self.shape), strict=True):
            rows.append(F.embedding(rest % size, weight.flatten(0, -2)))
            rest = rest // size
        embedded_BLE = torch.cat(rows[::-1], dim=-1)
        if not self.training or self.dropout == 0.0:
            return embedded_BLE
        # One draw per row of the batch and place on the last axis.
        keep = torch.ones(
            position_ids_BL.shape[0], self.shape[-1], device=embedded_BLE.device, dtype=embedded_BLE.dtype
        )
        keep = F.dropout(keep, self.dropout)
        return embedded_BLE * keep.gather(1, position_ids_BL.expand(keep.shape[0], -1) % self.shape[-1]).unsqueeze(-1)


class PositionEmbeddings(nn.Module):
    """Embeds positions with one learned row each, followed by dropout."""

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size, device=device, dtype=dtype)

    @property
    def num_positions(self) -> int:
        """The number of positions that have an embedding."""
        return self.embedding.num_embeddings

    @property
    def setting(self) -> str:
        """The setting that decides it, for messages."""
        return "max_position_embeddings"

    @torch.no_grad()
    def resize(self, new_size: int | Sequence[int]) -> None:
        """Stretch or shrink the table to `new_size` rows, in place; raises InputError."""
        if not _is_size(new_size):
            raise InputError(
                f"resize_position_embeddings: expected a positive number of positions (now {self.num_positions}; this "
                f"model has axial_pos_embds=False), got {new_size!r}"
            )
        assert isinstance(new_size, int)
        weight = self.embedding.weight
        weight.data = interpolated_rows(weight.data, new_size)
        weight.grad = None
        self.embedding.num_embeddings = new_size

    def at(self, position: int) -> Tensor:
        """Return the embedding (E) of one position, without dropout."""
        embedded: Tensor = self.embedding(torch.tensor(position, device=self.embedding.weight.device))
        return embedded

    def forward(self, position_ids_BL: Tensor) -> Tensor:
        """Return the embeddings (B, L, E) of positions (B, L)."""
        embedded: Tensor = self.dropout(self.embedding(position_ids_BL))
        return embedded


class ReformerEmbeddings(nn.Module):
    """Word embeddings (with dropout) plus position embeddings; raises InputError for positions that do not exist."""

    def __init__(
        self, config: ReformerConfig, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.word_embeddings: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size, **factory)
        kind = AxialPositionEmbeddings if config.axial_pos_embds else PositionEmbeddings
        self.position_embeddings = kind(config, **factory)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def check_length(self, length: int) -> None:
        """Raise InputError if a text of `length` tokens has more than there are positions."""
        limit = self.position_embeddings.num_positions
        if length > limit:
            raise InputError(
                f"Reformer: expected at most {limit} tokens (its number of position embeddings, "
                f"{self.position_embeddings.setting}), got {length}; cut the sequence, make that setting larger, or "
                "call model.resize_position_embeddings"
            )

    def forward(
        self, input_ids_BL: Tensor | None, position_ids_BL: Tensor | None, inputs_embeds_BLE: Tensor | None
    ) -> Tensor:
        """Return words (ids or their embeddings) plus positions (0, 1, ... if not given): (B, L, E)."""
        words_BLE: Tensor = self.word_embeddings(input_ids_BL) if inputs_embeds_BLE is None else inputs_embeds_BLE
        length = words_BLE.shape[1]
        limit = self.position_embeddings.num_positions
        if position_ids_BL is None:
            position_ids_BL = torch.arange(length, device=words_BLE.device).unsqueeze(0)
        elif torch.compiler.is_compiling():
            pass  # Values are not known while a graph is traced.
        elif position_ids_BL.numel() and not 0 <= int(position_ids_BL.min()) <= int(position_ids_BL.max()) < limit:
            # The axial table would wrap around silently.
            wrong = position_ids_BL[(position_ids_BL < 0) | (position_ids_BL >= limit)][0]
            raise InputError(f"Reformer: expected position_ids in 0..{limit - 1}, got {int(wrong)}")
        return self.add_positions(words_BLE, position_ids_BL)

    def add_position(self, words_B1E: Tensor, position: int) -> Tensor:
        """Return words plus one position that is known to exist, in evaluation; a position costs little here."""
        return words_B1E + self.position_embeddings.at(position)

    def add_positions(self, words_BLE: Tensor, position_ids_BL: Tensor) -> Tensor:
        """Return words plus positions that are known to exist."""
        embedded: Tensor = self.dropout(words_BLE) + self.position_embeddings(position_ids_BL)
        return embedded
