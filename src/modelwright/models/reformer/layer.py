"""One layer of the reversible stack: an attention branch and a feed-forward branch, each with its layer norm first."""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.local_attention import LocalSelfAttention
from modelwright.models.reformer.lsh_attention import LSHSelfAttention
from modelwright.nn.activations import get_activation
from modelwright.nn.chunking import apply_chunking_to_forward
from modelwright.nn.dropout import seeded_dropout
from modelwright.nn.norm import LayerNorm


class _Dense(nn.Module):
    """A linear map named `dense`, the level of naming that checkpoints have."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, **factory: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features, bias=bias, **factory)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.dense(x)
        return mapped


class ReformerAttention(nn.Module):
    """Layer norm, LSH or local self-attention, projection and dropout.

    Shapes: (B, L, E) -> the update (B, L, E) and the attention probabilities.
    """

    def __init__(self, config: ReformerConfig, kind: str, **factory: Any) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)
        attention = LSHSelfAttention if kind == "lsh" else LocalSelfAttention
        self.self_attention = attention(config, **factory)
        width = config.num_attention_heads * config.attention_head_size
        self.output = _Dense(width, config.hidden_size, bias=False, **factory)
        self.dropout = config.hidden_dropout_prob

    def forward(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor]:
        """Return what is added to the first stream, and the probabilities."""
        attended, probs = self.self_attention(self.layer_norm(x), call, layer)
        generator = layer.generator(call, "attention_output", x.device)
        return seeded_dropout(self.output(attended), self.dropout, generator), probs


class ReformerFeedForward(nn.Module):
    """Layer norm and the two-layer network, in slices of `chunk_size_feed_forward` tokens (0: all at once).

    Dropout comes before the activation, as in the original. Shapes: (B, L, E) -> the update (B, L, E).
    """

    def __init__(self, config: ReformerConfig, **factory: Any) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)
        self.dense = _Dense(config.hidden_size, config.feed_forward_size, bias=True, **factory)
        self.output = _Dense(config.feed_forward_size, config.hidden_size, bias=True, **factory)
        self.activation = get_activation(config.hidden_act)
        self.dropout = config.hidden_dropout_prob
        self.chunk_size = config.chunk_size_feed_forward

    def forward(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> Tensor:
        """Return what is added to the second stream."""
        generator = layer.generator(call, "feed_forward", x.device)

        def feed(part: Tensor) -> Tensor:
            inner = seeded_dropout(self.dense(self.layer_norm(part)), self.dropout, generator)
            return seeded_dropout(self.output(self.activation(inner)), self.dropout, generator)

        return apply_chunking_to_forward(feed, self.chunk_size, 1, x)


class ReformerLayer(nn.Module):
    """The two branches of one reversible layer; `modelwright.models.reformer.reversible` adds them to the streams."""

    def __init__(
        self, config: ReformerConfig, kind: str, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.attention = ReformerAttention(config, kind, device=device, dtype=dtype)
        self.feed_forward = ReformerFeedForward(config, device=device, dtype=dtype)
