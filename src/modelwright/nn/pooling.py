"""The scores of XLNet's and XLM's heads for questions about a text: start, end, and whether there is an answer.

Shapes: B sequences, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError

Device = torch.device | str | None


class PoolerStartLogits(nn.Module):
    """Scores of each token as the first of the answer; reads `config.hidden_size`."""

    def __init__(self, config: Any, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 1, device=device, dtype=dtype)

    def forward(self, hidden_states: Tensor, p_mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T); `p_mask` (B, T) is 1 at tokens that cannot be in an answer."""
        return _without(self.dense(hidden_states).squeeze(-1), p_mask)


class PoolerEndLogits(nn.Module):
    """Scores of each token as the last of the answer, given its start; reads `hidden_size` and `layer_norm_eps`."""

    def __init__(self, config: Any, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dense_0 = nn.Linear(2 * width, width, **factory)
        self.activation = nn.Tanh()
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps, **factory)
        self.dense_1 = nn.Linear(width, 1, **factory)

    def forward(
        self,
        hidden_states: Tensor,
        start_states: Tensor | None = None,
        start_positions: Tensor | None = None,
        p_mask: Tensor | None = None,
    ) -> Tensor:
        """(..., T, D) -> (..., T), given the start's states (as `hidden_states`) or its positions (B), which win.

        `p_mask` is 1 at tokens that cannot be in an answer. Raises InputError without a start.
        """
        if start_positions is not None:
            start_states = state_at(hidden_states, start_positions)[:, None].expand_as(hidden_states)
        if start_states is None:
            raise _no_start(self)
        joined = torch.cat([hidden_states, start_states], dim=-1)
        scores = self.dense_1(self.LayerNorm(self.activation(self.dense_0(joined))))
        return _without(scores.squeeze(-1), p_mask)


class PoolerAnswerClass(nn.Module):
    """The score that the text has no answer, from the states of its start and of its class token."""

    def __init__(self, config: Any, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense_0 = nn.Linear(2 * width, width, device=device, dtype=dtype)
        self.activation = nn.Tanh()
        self.dense_1 = nn.Linear(width, 1, bias=False, device=device, dtype=dtype)

    def forward(
        self,
        hidden_states: Tensor,
        start_states: Tensor | None = None,
        start_positions: Tensor | None = None,
        cls_index: Tensor | None = None,
    ) -> Tensor:
        """Return (B), given the start's states (B, D) or its positions (B), which win.

        `cls_index` (B) is where the class token is, by default the last. Raises InputError without a start.
        """
        if start_positions is not None:
            start_states = state_at(hidden_states, start_positions)
        if start_states is None:
            raise _no_start(self)
        class_state = hidden_states[:, -1] if cls_index is None else state_at(hidden_states, cls_index)
        joined = torch.cat([start_states, class_state], dim=-1)
        scores: Tensor = self.dense_1(self.activation(self.dense_0(joined)))
        return scores.squeeze(-1)


def state_at(hidden_states: Tensor, positions: Tensor) -> Tensor:
    """Return (B, D), the states of (B, T, D) at the positions (B); raise InputError for another shape."""
    if positions.shape != hidden_states.shape[:1]:
        raise InputError(
            f"positions: expected one for each of {hidden_states.shape[0]} sequences, got shape "
            f"{tuple(positions.shape)}"
        )
    return hidden_states[torch.arange(hidden_states.shape[0], device=hidden_states.device), positions]


def _without(scores: Tensor, p_mask: Tensor | None) -> Tensor:
    """Give tokens that cannot be in an answer a score that no softmax sees."""
    if p_mask is None:
        return scores
    return scores.masked_fill(p_mask.bool(), -65500.0 if scores.dtype == torch.float16 else -1e30)


def _no_start(module: nn.Module) -> InputError:
    return InputError(f"{type(module).__name__}: expected start_states or start_positions, got neither")
