"""What a GPT-2 block is made of: attention over Conv1D projections, and the feed-forward.

Legend: B batch, T query tokens, S key tokens, H heads, D head size, E = H * D hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.caches import encoder_states
from modelwright.attention.common import own_heads
from modelwright.attention.shared_source import attend_to_shared
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.nn.activations import get_activation
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.conv1d import Conv1D
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_conv1d_layer


class GPT2Attention(nn.Module):
    """Multi-head attention to the tokens so far, or to an encoder's states; its heads can be pruned.

    Source: Radford et al. 2019; cross-attention: Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(
        self, config: GPT2Config, is_cross_attention: bool = False, layer_idx: int = 0, **factory: Any
    ) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.layer_idx = layer_idx
        self.is_cross_attention = is_cross_attention
        # What kernels read where there is no mask.
        self.is_causal = not is_cross_attention
        self.upcast = config.reorder_and_upcast_attn
        self.scaling = self.head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scaling /= layer_idx + 1
        self.dropout = config.attn_pdrop
        width = config.hidden_size
        if is_cross_attention:
            self.c_attn = Conv1D(2 * width, width, **factory)
            self.q_attn = Conv1D(width, width, **factory)
        else:
            self.c_attn = Conv1D(3 * width, width, **factory)
        self.c_proj = Conv1D(width, width, **factory)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.pruned_heads: set[int] = set()

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out."""
        new, index = find_pruneable_heads_and_indices(heads, self.num_heads, self.head_dim, self.pruned_heads)
        if not new:
            return
        width = self.num_heads * self.head_dim
        self.c_attn = prune_conv1d_layer(self.c_attn, torch.cat([index, index + width, index + 2 * width]), dim=1)
        self.c_proj = prune_conv1d_layer(self.c_proj, index, dim=0)
        self.num_heads -= len(new)
        self.pruned_heads |= new

    def forward(
        self,
        hidden_states: Tensor,
        *,
        kernel: Callable[..., Any],
        attention_mask: Any = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what is added to the residual stream, (B, T, E), and the attention probabilities if asked for."""
        if self.is_cross_attention:
            assert encoder_hidden_states is not None
            query = self._heads(self.q_attn(hidden_states))
            key, value = encoder_states(past_key_values, self.layer_idx, lambda: self._split(encoder_hidden_states))
        else:
            query, key, value = self._split(hidden_states)
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx, {"cache_position": cache_position})
        dtype = query.dtype
        if self.upcast:
            query, key, value = query.float(), key.float(), value.float()
        attended, weights = attend_to_shared(
            kernel,
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            is_causal=self.is_causal,
            output_attentions=output_attentions,
        )
        if head_mask is not None:
            scale_1H11 = own_heads(f"layer {self.layer_idx}", head_mask, self.num_heads, self.pruned_heads)
            # (P * m) V = m * (P V), so that every kernel does head masks.
            attended = attended * scale_1H11.transpose(1, 2)
            weights = None if weights is None else weights * scale_1H11
        output = self.resid_dropout(self.c_proj(attended.to(dtype).flatten(-2)))
        return output, weights if output_attentions else None

    def _split(self, states: Tensor) -> list[Tensor]:
        """Return what `c_attn` makes of (B, T, E): queries (but in cross-attention), keys and values, (B, H, T, D)."""
        width = self.num_heads * self.head_dim
        return [self._heads(part) for part in self.c_attn(states).split(width, dim=-1)]

    def _heads(self, states: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, D)."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)


class GPT2MLP(nn.Module):
    """The feed-forward: Conv1D up, activation, Conv1D down."""

    def __init__(self, intermediate_size: int, config: GPT2Config, **factory: Any) -> None:
        super().__init__()
        self.c_fc = Conv1D(intermediate_size, config.hidden_size, **factory)
        self.c_proj = Conv1D(config.hidden_size, intermediate_size, **factory)
        self.act = get_activation(config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        result: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(hidden_states))))
        return result


class GPT2Block(GradientCheckpointingLayer):
    """Norm, attention, norm, (cross-attention, norm,) feed-forward, each added to the residual stream."""

    def __init__(self, config: GPT2Config, layer_idx: int = 0, **factory: Any) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_epsilon
        self.ln_1 = nn.LayerNorm(width, eps=eps, **factory)
        self.attn = GPT2Attention(config, layer_idx=layer_idx, **factory)
        self.ln_2 = nn.LayerNorm(width, eps=eps, **factory)
        if config.add_cross_attention:
            self.crossattention = GPT2Attention(config, is_cross_attention=True, layer_idx=layer_idx, **factory)
            self.ln_cross_attn = nn.LayerNorm(width, eps=eps, **factory)
        self.mlp = GPT2MLP(4 * width if config.n_inner is None else config.n_inner, config, **factory)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        kernel: Callable[..., Any],
        attention_mask: Any = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Any = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the stream (B, T, E), the attention probabilities and those to the encoder, None if not asked for."""
        shared = {"kernel": kernel, "past_key_values": past_key_values, "output_attentions": output_attentions}
        attended, weights = self.attn(
            self.ln_1(hidden_states),
            attention_mask=attention_mask,
            cache_position=cache_position,
            head_mask=head_mask,
            **shared,
        )
        hidden_states = hidden_states + attended
        cross_weights = None
        if encoder_hidden_states is not None:
            attended, cross_weights = self.crossattention(
                self.ln_cross_attn(hidden_states),
                attention_mask=encoder_attention_mask,
                encoder_hidden_states=encoder_hidden_states,
                head_mask=head_mask,
                **shared,
            )
            hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.ln_2(hidden_states)), weights, cross_weights
