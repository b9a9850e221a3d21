"""T5's normalisation and feed-forward, plain and gated, and the head that classifies a sequence.

Shapes: B batch, T tokens, E hidden size, F feed-forward size, N labels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.nn.activations import get_activation
from modelwright.nn.decode_layout import apply_each, apply_linear
from modelwright.nn.rms_norm import RMSNorm

# Below float16's largest number, so that a sum with it need not overflow again at once.
_HALF_LIMIT = torch.finfo(torch.float16).max - 1000


class T5LayerNorm(RMSNorm):
    """`RMSNorm` that returns the dtype of a half-precision weight, also for an fp32 residual stream."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the scaled, normalised input, (..., E) -> the same."""
        if hidden_states.dtype == self.weight.dtype:
            return super().forward(hidden_states)
        normed = F.rms_norm(hidden_states.float(), self.weight.shape, None, self.variance_epsilon)
        if self.weight.dtype in (torch.float16, torch.bfloat16):
            normed = normed.to(self.weight.dtype)
        return self.weight * normed


def finite_in_half(hidden_states: Tensor) -> Tensor:
    """Clamp a float16 residual stream to finite numbers; other dtypes are returned as they are."""
    if hidden_states.dtype != torch.float16:
        return hidden_states
    return hidden_states.clamp(-_HALF_LIMIT, _HALF_LIMIT)


def _project(layer: nn.Linear, hidden_states: Tensor) -> Tensor:
    """Apply `wo`, which stays in fp32 when the rest of the model is in float16."""
    weight = layer.weight
    # The weight of layers quantized by torch is a method.
    if isinstance(weight, Tensor) and hidden_states.dtype != weight.dtype and weight.is_floating_point():
        hidden_states = hidden_states.to(weight.dtype)
    return apply_linear(layer, hidden_states)


class T5DenseActDense(nn.Module):
    """The feed-forward of T5 v1.0: wo(act(wi(x)))."""

    def __init__(self, config: T5Config, **factory: Any) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False, **factory)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = get_activation(config.dense_act_fn)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        return _project(self.wo, self.dropout(self.act(apply_linear(self.wi, hidden_states))))


class T5DenseGatedActDense(nn.Module):
    """The feed-forward of T5 v1.1: wo(act(wi_0(x)) * wi_1(x)). Source: Shazeer 2020 (arXiv 2002.05202)."""

    _siblings = ("wi_0", "wi_1")

    def __init__(self, config: T5Config, **factory: Any) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False, **factory)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False, **factory)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = get_activation(config.dense_act_fn)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        gate, inner = apply_each(hidden_states, self.wi_0, self.wi_1)
        return _project(self.wo, self.dropout(self.act(gate) * inner))


class T5LayerFF(nn.Module):
    """Norm and feed-forward, added to the residual stream."""

    def __init__(self, config: T5Config, **factory: Any) -> None:
        super().__init__()
        dense = T5DenseGatedActDense if config.is_gated_act else T5DenseActDense
        self.DenseReluDense = dense(config, **factory)
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        result: Tensor = hidden_states + self.dropout(self.DenseReluDense(self.layer_norm(hidden_states)))
        return result


class T5ClassificationHead(nn.Module):
    """Scores of the labels of a sequence: out_proj(tanh(dense(x)))."""

    def __init__(self, config: T5Config, **factory: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, **factory)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.d_model, config.num_labels, **factory)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., E) -> (..., N)."""
        hidden_states = torch.tanh(self.dense(self.dropout(hidden_states)))
        result: Tensor = self.out_proj(self.dropout(hidden_states))
        return result
