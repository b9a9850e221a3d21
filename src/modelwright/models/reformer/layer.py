"""One layer of the reversible stack: an attention branch and a feed-forward branch, each with its layer norm first.

Everything but attention itself treats tokens one by one, and so is computed in slices of tokens: nothing but the
streams is of full length. `reversible` calls the same slices again in the backward.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modelwright.models.reformer.call import ForwardCall, LayerCall
from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.local_attention import LocalSelfAttention
from modelwright.models.reformer.lsh_attention import LSHSelfAttention
from modelwright.nn.activations import get_activation
from modelwright.nn.decode_layout import apply_linear, is_hooked
from modelwright.nn.dropout import seeded_dropout
from modelwright.nn.norm import LayerNorm
from modelwright.nn.precision import autocast_dtype
from modelwright.nn.pruning import prune_linear_layer
from modelwright.nn.tracing import is_recorded

Result = TypeVar("Result")

# Tokens of a slice, all rows together: the intermediate layer of a slice stays in the processor's cache. Under
# autocast, where its numbers have half of the bytes, there are twice as many.
SLICE_TOKENS = 2048
# On a GPU, where the calls of a small slice take longer than its work.
SLICE_TOKENS_ON_GPU = 65536


def token_slices(x_BLE: Tensor, size: int = 0) -> Iterator[tuple[int, slice]]:
    """Yield number and range of the slices of dimension 1, each of `size` tokens a row (0: chosen)."""
    if not size:
        tokens = SLICE_TOKENS if autocast_dtype(x_BLE) is None else 2 * SLICE_TOKENS
        size = max(1, (SLICE_TOKENS_ON_GPU if x_BLE.is_cuda else tokens) // x_BLE.shape[0])
    for index, start in enumerate(range(0, x_BLE.shape[1], size)):
        yield index, slice(start, start + size)


class Dense(nn.Module):
    """A linear map named `dense`, the level of naming that checkpoints have."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, **factory: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features, bias=bias, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return apply_linear(self.dense, x)


class ReformerAttention(nn.Module):
    """Layer norm, LSH or local self-attention, projection and dropout.

    Shapes: (B, L, E) -> the update (B, L, E) and, if the call asks for them, the attention probabilities.
    """

    def __init__(self, config: ReformerConfig, kind: str, **factory: Any) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)
        attention = LSHSelfAttention if kind == "lsh" else LocalSelfAttention
        self.self_attention = attention(config, **factory)
        width = config.num_attention_heads * config.attention_head_size
        self.output = Dense(width, config.hidden_size, bias=False, **factory)
        self.dropout = config.hidden_dropout_prob

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as before any pruning; those that are gone already are left out."""
        index = self.self_attention.prune(heads)
        if len(index) < self.output.dense.in_features:
            self.output.dense = prune_linear_layer(self.output.dense, index, dim=1)

    def project(self, part: Tensor) -> tuple[Tensor, ...]:
        """Return the self-attention's projections of a slice of the stream."""
        return self.self_attention.project(self.layer_norm(part))

    def own_heads(self, head_mask_H: Tensor) -> Tensor:
        """Return the entries of a mask of all original heads that belong to the heads that are left."""
        left = self.self_attention.heads
        return head_mask_H if all(left) else head_mask_H[torch.tensor(left, device=head_mask_H.device)]

    def finish(self, attended: Tensor, call: ForwardCall, layer: LayerCall, index: int) -> Tensor:
        """Return what is added to slice `index` of the first stream, from that slice of the attention's output."""
        if layer.head_mask is not None:
            mask_H = self.own_heads(layer.head_mask)
            per_head = attended.view(*attended.shape[:2], len(mask_H), -1)
            attended = (per_head * mask_H.to(attended.dtype).unsqueeze(-1)).flatten(-2)
        generator = layer.generator(call, "attention_output", index, attended.device)
        return seeded_dropout(self.output(attended), self.dropout, generator)

    def goes_in_parts(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> bool:
        """Tell whether the branch can be computed part by part of a text, some tokens twice, with nobody to notice."""
        free = not (layer.training or call.keep is not None or is_recorded() or is_hooked(self.layer_norm))
        return free and isinstance(self.self_attention, LocalSelfAttention) and self.self_attention.attends_in_parts(x)

    def in_parts(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """Yield rows and places of parts of `x`, with what is added to the first stream there."""
        assert isinstance(self.self_attention, LocalSelfAttention)
        for at, attended in self.self_attention.attend_in_parts(x, self.layer_norm, call, layer):
            yield at, self.finish(attended, call, layer, 0)

    def forward(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> tuple[Tensor, Tensor | None]:
        """Return what is added to the first stream, and the probabilities."""
        attended, probs = self.self_attention(self.layer_norm(x), call, layer)
        updates = [self.finish(attended[:, part], call, layer, index) for index, part in token_slices(x)]
        if probs is not None and layer.head_mask is not None:
            probs = probs * self.own_heads(layer.head_mask).view(-1, *(1 for _ in probs.shape[2:]))
        return torch.cat(updates, dim=1), probs


class ReformerFeedForward(nn.Module):
    """Layer norm and the two-layer network, in slices of `chunk_size_feed_forward` tokens (0: about 2,048).

    Dropout comes before the activation, as in the original. Shapes: (B, L, E) -> the update (B, L, E).
    """

    def __init__(self, config: ReformerConfig, **factory: Any) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)
        self.dense = Dense(config.hidden_size, config.feed_forward_size, bias=True, **factory)
        self.output = Dense(config.feed_forward_size, config.hidden_size, bias=True, **factory)
        self.activation = get_activation(config.hidden_act)
        self.dropout = config.hidden_dropout_prob
        self.chunk_size = config.chunk_size_feed_forward

    def feed(self, part: Tensor, call: ForwardCall, layer: LayerCall, index: int) -> Tensor:
        """Return what is added to slice `index` of the second stream."""
        generator = layer.generator(call, "feed_forward", index, part.device)
        inner = seeded_dropout(self.dense(self.layer_norm(part)), self.dropout, generator)
        return seeded_dropout(self.output(self.activation(inner)), self.dropout, generator)

    def forward(self, x: Tensor, call: ForwardCall, layer: LayerCall) -> Tensor:
        """Return what is added to the second stream."""
        slices = token_slices(x, self.chunk_size)
        return torch.cat([self.feed(x[:, part], call, layer, index) for index, part in slices], dim=1)


class ReformerLayer(nn.Module):
    """The two branches of one reversible layer; `modelwright.models.reformer.reversible` adds them to the streams."""

    def __init__(
        self, config: ReformerConfig, kind: str, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.attention = ReformerAttention(config, kind, device=device, dtype=dtype)
        self.feed_forward = ReformerFeedForward(config, device=device, dtype=dtype)

    def forward(self, run: Callable[..., Result], *streams: Tensor) -> Result:
        """Return `run(self, *streams)`: whatever a stack does with a layer, it does in a call of it.

        So hooks are met that gather the weights of a sharded layer for as long as it is at work.
        """
        return run(self, *streams)
