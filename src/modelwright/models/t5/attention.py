"""T5's attention, without a scale on the scores and with a bias per head and distance, and the block around it.

The modules return tuples and take keywords as in 4.x, because model files derived from T5 call them.

Legend: B batch, T query tokens, S key tokens, H heads, D head size, E hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from modelwright.attention.caches import encoder_states
from modelwright.attention.common import biased, own_heads
from modelwright.attention.sdpa import sdpa_attention_forward
from modelwright.attention.shared_source import attend_to_shared
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.feed_forward import T5LayerFF, T5LayerNorm, finite_in_half
from modelwright.models.t5.relative_bias import relative_bias
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.decode_layout import apply_each, apply_linear
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer


class T5Attention(nn.Module):
    """Attention to the tokens themselves or to an encoder's states; its heads can be pruned.

    The first layer of a stack owns the table of relative positions (`relative_attention_bias`), whose bias all layers
    of the stack add. The table keeps a column for each head of the unpruned model, because a head that is gone here may
    be there in another layer; a layer adds the columns of the heads that it has.
    """

    _siblings: tuple[str, ...] = ("q", "k", "v")

    def __init__(
        self, config: T5Config, has_relative_attention_bias: bool = False, layer_idx: int | None = None, **factory: Any
    ) -> None:
        super().__init__()
        self.is_decoder = config.is_decoder
        # What kernels read where there is no mask: T5's masks are always explicit.
        self.is_causal = False
        self.has_relative_attention_bias = has_relative_attention_bias
        self.max_distance = config.relative_attention_max_distance
        self.key_value_proj_dim = config.d_kv
        self.n_heads = config.num_heads
        self.inner_dim = self.n_heads * self.key_value_proj_dim
        self.dropout = config.dropout_rate
        self.layer_idx = 0 if layer_idx is None else layer_idx
        self.q = nn.Linear(config.d_model, self.inner_dim, bias=False, **factory)
        self.k = nn.Linear(config.d_model, self.inner_dim, bias=False, **factory)
        self.v = nn.Linear(config.d_model, self.inner_dim, bias=False, **factory)
        self.o = nn.Linear(self.inner_dim, config.d_model, bias=False, **factory)
        if has_relative_attention_bias:
            buckets = config.relative_attention_num_buckets
            self.relative_attention_bias = nn.Embedding(buckets, self.n_heads, **factory)
        self.pruned_heads: set[int] = set()

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out."""
        new, index = find_pruneable_heads_and_indices(heads, self.n_heads, self.key_value_proj_dim, self.pruned_heads)
        if not new:
            return
        self.q, self.k, self.v = (prune_linear_layer(layer, index) for layer in (self.q, self.k, self.v))
        self.o = prune_linear_layer(self.o, index, dim=1)
        self.n_heads -= len(new)
        self.inner_dim = self.n_heads * self.key_value_proj_dim
        self.pruned_heads |= new

    def compute_bias(self, query_length: int, key_length: int, first_query: int = 0) -> Tensor:
        """Return the bias (1, H, T, S) of the queries from position `first_query` on, for all heads of the stack."""
        return relative_bias(
            self.relative_attention_bias.weight,
            query_length,
            key_length,
            first_query,
            bidirectional=not self.is_decoder,
            max_distance=self.max_distance,
        )

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        layer_head_mask: Tensor | None = None,
        query_length: int | None = None,
        use_cache: bool = False,  # noqa: ARG002 - 4.x callers pass it; a cache that is given is always used
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        kernel: Callable[..., Any] = sdpa_attention_forward,
    ) -> tuple[Any, ...]:
        """Return what is added to the residual stream (B, T, E), the position bias, and the probabilities if asked for.

        `mask` is added to the scores (or boolean) and counts only where `position_bias` is None, because the bias that
        is returned, for the next layer, contains it. `query_length` is the number of tokens so far, the new ones too,
        for a call with a cache outside a stack. With `key_value_states` (B, S, E) the attention is to these; B may then
        be a divisor of the number of queries' rows, each B of which follow one another (beams of one text).
        """
        if key_value_states is None:
            query, key, value = map(self._heads, apply_each(hidden_states, self.q, self.k, self.v))
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx, {"cache_position": cache_position})
        else:
            query = self._heads(apply_linear(self.q, hidden_states))
            key, value = self._encoder_states(key_value_states, past_key_values)
        if position_bias is None:
            position_bias = mask
            if self.has_relative_attention_bias:
                T, S = query.shape[2], key.shape[2]
                first_query = (S if query_length is None else query_length) - T if key_value_states is None else 0
                position_bias = biased(mask, self.compute_bias(T, S, first_query))
        attended, weights = self._attend(query, key, value, position_bias, kernel, output_attentions)
        if layer_head_mask is not None:
            if layer_head_mask.dim() == 1:
                layer_head_mask = layer_head_mask[None, :, None, None]
            scale_1H11 = own_heads(f"layer {self.layer_idx}", layer_head_mask, self.n_heads, self.pruned_heads)
            # (P * m) V = m * (P V), so that every kernel does head masks.
            attended = attended * scale_1H11.transpose(1, 2)
            weights = None if weights is None else weights * scale_1H11
        output = apply_linear(self.o, attended.flatten(-2))
        return (output, position_bias, weights) if output_attentions else (output, position_bias)

    def _heads(self, states: Tensor) -> Tensor:
        """(B, T, H * D) -> (B, H, T, D)."""
        return states.view(*states.shape[:-1], -1, self.key_value_proj_dim).transpose(1, 2)

    def _encoder_states(self, states: Tensor, past_key_values: Any) -> tuple[Tensor, Tensor]:
        """Return keys and values of the encoder's states, computed in the first call with a cache only."""
        key, value = encoder_states(
            past_key_values, self.layer_idx, lambda: (self._heads(self.k(states)), self._heads(self.v(states)))
        )
        # A static cache may be longer than the text.
        length = states.shape[1]
        return key[:, :, :length], value[:, :, :length]

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position_bias: Tensor | None,
        kernel: Callable[..., Any],
        output_attentions: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended values (B, T, H, D) and the probabilities (B, H, T, S) if asked for."""
        if position_bias is not None and self.pruned_heads and position_bias.shape[1] not in (1, self.n_heads):
            position_bias = own_heads(f"layer {self.layer_idx}", position_bias, self.n_heads, self.pruned_heads)
        return attend_to_shared(
            kernel,
            self,
            query,
            key,
            value,
            position_bias,
            scaling=1.0,
            dropout=self.dropout if self.training else 0.0,
            is_causal=False,
            output_attentions=output_attentions,
        )


class T5LayerSelfAttention(nn.Module):
    """Norm and attention to the tokens themselves, added to the residual stream."""

    def __init__(
        self, config: T5Config, has_relative_attention_bias: bool = False, layer_idx: int | None = None, **factory: Any
    ) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, has_relative_attention_bias, layer_idx, **factory)
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        layer_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        kernel: Callable[..., Any] = sdpa_attention_forward,
    ) -> tuple[Any, ...]:
        """Return the stream (B, T, E), and what `T5Attention` returns after it."""
        attended, *others = self.SelfAttention(
            self.layer_norm(hidden_states),
            mask=attention_mask,
            position_bias=position_bias,
            layer_head_mask=layer_head_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=output_attentions,
            cache_position=cache_position,
            kernel=kernel,
        )
        return (hidden_states + self.dropout(attended), *others)


class T5LayerCrossAttention(nn.Module):
    """Norm and attention to the encoder's states, added to the residual stream."""

    def __init__(self, config: T5Config, layer_idx: int | None = None, **factory: Any) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(config, layer_idx=layer_idx, **factory)
        # Queries are made of other states than keys and values.
        self.EncDecAttention._siblings = ()
        self.layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        layer_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        query_length: int | None = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        *,
        kernel: Callable[..., Any] = sdpa_attention_forward,
    ) -> tuple[Any, ...]:
        """Return the stream (B, T, E), and what `T5Attention` returns after it."""
        attended, *others = self.EncDecAttention(
            self.layer_norm(hidden_states),
            mask=attention_mask,
            key_value_states=key_value_states,
            position_bias=position_bias,
            layer_head_mask=layer_head_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            query_length=query_length,
            output_attentions=output_attentions,
            cache_position=cache_position,
            kernel=kernel,
        )
        return (hidden_states + self.dropout(attended), *others)


class T5Block(GradientCheckpointingLayer):
    """Self-attention, in a decoder attention to the encoder's states, and feed-forward."""

    def __init__(
        self, config: T5Config, has_relative_attention_bias: bool = False, layer_idx: int | None = None, **factory: Any
    ) -> None:
        super().__init__()
        self.is_decoder = config.is_decoder
        self.layer = nn.ModuleList([T5LayerSelfAttention(config, has_relative_attention_bias, layer_idx, **factory)])
        if self.is_decoder:
            self.layer.append(T5LayerCrossAttention(config, layer_idx, **factory))
        self.layer.append(T5LayerFF(config, **factory))

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_decoder_position_bias: Tensor | None = None,
        layer_head_mask: Tensor | None = None,
        cross_attn_layer_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,  # noqa: ARG002 - 4.x callers pass it; a block always returns a tuple
        cache_position: Tensor | None = None,
        *,
        kernel: Callable[..., Any] = sdpa_attention_forward,
    ) -> tuple[Any, ...]:
        """Return the stream (B, T, E), position bias (, probabilities), and the last two of the cross attention."""
        shared = {
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "output_attentions": output_attentions,
            "cache_position": cache_position,
            "kernel": kernel,
        }
        hidden_states, *others = self.layer[0](
            hidden_states,
            attention_mask=attention_mask,
            position_bias=position_bias,
            layer_head_mask=layer_head_mask,
            **shared,
        )
        hidden_states = finite_in_half(hidden_states)
        if self.is_decoder and encoder_hidden_states is not None:
            hidden_states, *crossed = self.layer[1](
                hidden_states,
                key_value_states=encoder_hidden_states,
                attention_mask=encoder_attention_mask,
                position_bias=encoder_decoder_position_bias,
                layer_head_mask=cross_attn_layer_head_mask,
                **shared,
            )
            hidden_states = finite_in_half(hidden_states)
            others += crossed
        hidden_states = finite_in_half(self.layer[-1](hidden_states))
        return (hidden_states, *others)
