"""SequenceSummary: one vector for a sequence of hidden states."""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import ConfigError, InputError
from modelwright.nn.activations import get_activation

_TYPES = ("last", "first", "mean", "cls_index")


class SequenceSummary(nn.Module):
    """Pick or average hidden states, then drop out, project, activate and drop out, as far as the config says.

    Read from `config`: `summary_type` ("last", the default, "first", "mean" or "cls_index", a position given to the
    call), `summary_use_proj`, `summary_proj_to_labels` (to `num_labels` instead of `hidden_size`),
    `summary_activation` (a name, or None), `summary_first_dropout`, `summary_last_dropout` (probabilities).
    Raises NotImplementedError for "attn", which upstream does not have either, ConfigError for another type.
    """

    def __init__(
        self, config: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.summary_type: str = getattr(config, "summary_type", "last")
        if self.summary_type == "attn":
            raise NotImplementedError("SequenceSummary: summary_type='attn' does not exist yet; use 'last' or 'mean'")
        if self.summary_type not in _TYPES:
            raise ConfigError(
                f"SequenceSummary: expected summary_type to be one of {', '.join(_TYPES)}, got {self.summary_type!r}"
            )
        self.summary: nn.Module = nn.Identity()
        if getattr(config, "summary_use_proj", False):
            to_labels = getattr(config, "summary_proj_to_labels", False) and config.num_labels > 0
            outputs = config.num_labels if to_labels else config.hidden_size
            self.summary = nn.Linear(config.hidden_size, outputs, device=device, dtype=dtype)
        activation = getattr(config, "summary_activation", None)
        self.activation = get_activation(activation) if activation else nn.Identity()
        self.first_dropout = _dropout(config, "summary_first_dropout")
        self.last_dropout = _dropout(config, "summary_last_dropout")

    def forward(self, hidden_states: Tensor, cls_index: Tensor | None = None) -> Tensor:
        """Return (..., D) or (..., labels) for hidden states (..., T, D).

        `cls_index` (...) is the position for "cls_index", by default the last. Raises InputError for another shape.
        """
        summary: Tensor = self.last_dropout(
            self.activation(self.summary(self.first_dropout(self._pick(hidden_states, cls_index))))
        )
        return summary

    def _pick(self, hidden_states: Tensor, cls_index: Tensor | None) -> Tensor:
        if self.summary_type == "mean":
            return hidden_states.mean(dim=-2)
        if self.summary_type == "first":
            return hidden_states[..., 0, :]
        if self.summary_type == "last" or cls_index is None:
            return hidden_states[..., -1, :]
        if cls_index.shape != hidden_states.shape[:-2]:
            raise InputError(
                f"cls_index: expected the shape {tuple(hidden_states.shape[:-2])}, one position for each sequence, got "
                f"{tuple(cls_index.shape)}"
            )
        index = cls_index[..., None, None].expand(*cls_index.shape, 1, hidden_states.shape[-1])
        return hidden_states.gather(-2, index).squeeze(-2)


def _dropout(config: Any, name: str) -> nn.Module:
    probability = getattr(config, name, None) or 0.0
    return nn.Dropout(probability) if probability > 0 else nn.Identity()
