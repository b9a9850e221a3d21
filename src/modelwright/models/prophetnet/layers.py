"""What ProphetNet's layers are made of: attention to one text, feed-forward, each added and then normalised.

Legend: B batch, T query tokens, S key tokens, G streams of the decoder, H heads, D head size, E hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.caches import encoder_states
from modelwright.attention.common import own_heads
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.packing import Packing
from modelwright.attention.shared_source import attend_to_shared
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.ngram_attention import ProphetNetNgramSelfAttention
from modelwright.models.prophetnet.streams import Streams
from modelwright.nn.activated_linear import activated_linear
from modelwright.nn.activations import activate_over, get_activation
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.decode_layout import apply_each, apply_linear, is_plain_linear
from modelwright.nn.products import is_watched
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer


class ProphetNetAttention(nn.Module):
    """Attention of the encoder to its own tokens, or of the decoder to the encoder's states; heads can be pruned.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(
        self, config: ProphetNetConfig, num_attn_heads: int, layer_idx: int | None = None, **factory: Any
    ) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = 0 if layer_idx is None else layer_idx
        self.num_attn_heads = num_attn_heads
        self.head_dim = config.hidden_size // num_attn_heads
        # What kernels read where there is no mask.
        self.is_causal = False
        self.attention_dropout = config.attention_dropout
        E = config.hidden_size
        self.key_proj = nn.Linear(E, E, **factory)
        self.value_proj = nn.Linear(E, E, **factory)
        self.query_proj = nn.Linear(E, E, **factory)
        self.out_proj = nn.Linear(E, E, **factory)
        self.dropout = nn.Dropout(config.dropout)
        self.pruned_heads: set[int] = set()

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out."""
        new, index = find_pruneable_heads_and_indices(heads, self.num_attn_heads, self.head_dim, self.pruned_heads)
        if not new:
            return
        for name in ("query_proj", "key_proj", "value_proj"):
            setattr(self, name, prune_linear_layer(getattr(self, name), index))
        self.out_proj = prune_linear_layer(self.out_proj, index, dim=1)
        self.num_attn_heads -= len(new)
        self.pruned_heads |= new

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        attention_mask: Any = None,
        layer_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, T, E) and the probabilities (B, H, T, S) if asked for.

        `key_value_states` are an encoder's, of B rows or a divisor of it, each for as many rows that follow one
        another; their keys are computed in the first call with a cache only. `attention_mask` is what the kernel takes,
        or a Packing of the own tokens.
        """
        if key_value_states is None:
            query, key, value = map(
                self._heads, apply_each(hidden_states, self.query_proj, self.key_proj, self.value_proj)
            )
        else:
            query = self._heads(apply_linear(self.query_proj, hidden_states))
            key, value = encoder_states(past_key_values, self.layer_idx, lambda: self._keys(key_value_states))
            # A static cache may be longer than the text.
            key, value = (x[:, :, : key_value_states.shape[1]] for x in (key, value))
        kernel = ALL_ATTENTION_FUNCTIONS[implementation_of(self.config)]
        options: dict[str, Any] = {
            "scaling": self.head_dim**-0.5,
            "dropout": self.attention_dropout if self.training else 0.0,
        }
        weights = None
        if isinstance(attention_mask, Packing):
            attended = attention_mask.attend(kernel, self, query, key, value, **options)
        else:
            attended, weights = attend_to_shared(
                kernel,
                self,
                query,
                key,
                value,
                attention_mask,
                **options,
                is_causal=False,
                output_attentions=output_attentions,
            )
        if layer_head_mask is not None:
            where = f"layer {self.layer_idx}"
            scale_1H11 = own_heads(where, layer_head_mask, self.num_attn_heads, self.pruned_heads)
            # (P * m) V = m * (P V), so that every kernel does head masks.
            attended = attended * scale_1H11.transpose(1, 2)
            weights = None if weights is None else weights * scale_1H11
        return self.dropout(apply_linear(self.out_proj, attended.flatten(-2))), weights

    def _heads(self, states: Tensor) -> Tensor:
        """(B, T, H * D) -> (B, H, T, D)."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def _keys(self, states: Tensor | None) -> Iterable[Tensor]:
        assert states is not None
        keys = map(self._heads, apply_each(states, self.key_proj, self.value_proj))
        # Each step of decoding reads all of them, which takes a third less time if each head's lie together.
        return keys if torch.is_grad_enabled() else (each.contiguous() for each in keys)


class ProphetNetFeedForward(nn.Module):
    """output(act(intermediate(x)))."""

    def __init__(self, config: ProphetNetConfig, ffn_dim: int, **factory: Any) -> None:
        super().__init__()
        self.activation_fn: Callable[[Tensor], Tensor] = get_activation(config.activation_function)
        self.intermediate = nn.Linear(config.hidden_size, ffn_dim, **factory)
        self.output = nn.Linear(ffn_dim, config.hidden_size, **factory)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        inner = apply_linear(self.intermediate, hidden_states)
        is_ours = not (self.training or torch.is_grad_enabled() or is_watched(inner))
        if is_ours and is_plain_linear(self.intermediate):
            output = apply_linear(self.output, activate_over(self.activation_fn, inner))
            return self.dropout(output)  # type: ignore[no-any-return]
        dropout = self.activation_dropout.p if self.training else 0.0
        result: Tensor = self.dropout(activated_linear(self.output, self.activation_fn, inner, dropout))
        return result


class ProphetNetEncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward."""

    def __init__(self, config: ProphetNetConfig, **factory: Any) -> None:
        super().__init__()
        self.self_attn = ProphetNetAttention(config, config.num_encoder_attention_heads, **factory)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, **factory)
        self.feed_forward = ProphetNetFeedForward(config, config.encoder_ffn_dim, **factory)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, **factory)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any,
        layer_head_mask: Tensor | None,
        output_attentions: bool = False,
    ) -> tuple[Any, ...]:
        """Return (B, T, E), and the probabilities if asked for."""
        attended, weights = self.self_attn(
            hidden_states,
            attention_mask=attention_mask,
            layer_head_mask=layer_head_mask,
            output_attentions=output_attentions,
        )
        hidden_states = self.self_attn_layer_norm(attended + hidden_states)
        hidden_states = self.feed_forward_layer_norm(self.feed_forward(hidden_states) + hidden_states)
        return (hidden_states, weights) if output_attentions else (hidden_states,)


class ProphetNetDecoderLayer(GradientCheckpointingLayer):
    """N-gram self-attention, attention to the encoder's states where there is one, and feed-forward.

    The layer's input is (B, G * T, E), stream after stream, the main one first.
    """

    def __init__(self, config: ProphetNetConfig, layer_idx: int | None = None, **factory: Any) -> None:
        super().__init__()
        self.self_attn = ProphetNetNgramSelfAttention(config, layer_idx=layer_idx, **factory)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, **factory)
        if config.add_cross_attention:
            self.cross_attn = ProphetNetAttention(
                config, config.num_decoder_attention_heads, layer_idx=layer_idx, **factory
            )
            self.cross_attn_layer_norm = nn.LayerNorm(config.hidden_size, **factory)
        self.feed_forward = ProphetNetFeedForward(config, config.decoder_ffn_dim, **factory)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, **factory)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *,
        streams: Streams,
        encoder_attn_mask: Any = None,
        layer_head_mask: Tensor | None = None,
        cross_attn_layer_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool = False,
        cache_position: Tensor | None = None,
        main_asks: bool = True,
    ) -> tuple[Any, ...]:
        """Return (B, G * T, E), and three kinds of probabilities if asked for: main, predict, of the encoder's states.

        With `main_asks` False the result lacks the main stream, which is what the last layer may leave out.
        """
        attended, weights, weights_ngram = self.self_attn(
            hidden_states,
            streams,
            past_key_values=past_key_values,
            layer_head_mask=layer_head_mask,
            output_attentions=output_attentions,
            cache_position=cache_position,
            main_asks=main_asks,
        )
        if not main_asks:
            hidden_states = hidden_states[:, streams.tokens :]
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        cross_weights = None
        if encoder_hidden_states is not None:
            attended, cross_weights = self.cross_attn(
                hidden_states,
                key_value_states=encoder_hidden_states,
                attention_mask=encoder_attn_mask,
                layer_head_mask=cross_attn_layer_head_mask,
                past_key_values=past_key_values,
                output_attentions=output_attentions,
            )
            hidden_states = self.cross_attn_layer_norm(attended + hidden_states)
        hidden_states = self.feed_forward_layer_norm(self.feed_forward(hidden_states) + hidden_states)
        return (hidden_states, weights, weights_ngram, cross_weights) if output_attentions else (hidden_states,)
