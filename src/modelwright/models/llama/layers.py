"""What a Llama layer is made of: attention with rotary positions and grouped heads, and the gated feed-forward.

Legend: B batch, T query tokens, H query heads, G key/value heads, D head size, E hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from modelwright.attention.rotary import apply_rotary_pos_emb
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.nn.activations import get_activation
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.decode_layout import apply_each, apply_linear
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer
from modelwright.nn.rms_norm import RMSNorm


class LlamaAttention(nn.Module):
    """Attention of H query heads to G key/value heads, all of size D, rotated by position.

    Source: Su et al. 2021 (rotary positions), Ainslie et al. 2023 (grouped heads).
    """

    _siblings = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: LlamaConfig, layer_idx: int, **factory: Any) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_heads = config.num_attention_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        width, bias = config.hidden_size, config.attention_bias
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, queries, bias=bias, **factory)
        self.k_proj = nn.Linear(width, keys, bias=bias, **factory)
        self.v_proj = nn.Linear(width, keys, bias=bias, **factory)
        self.o_proj = nn.Linear(queries, width, bias=bias, **factory)
        self.pruned_heads: set[int] = set()

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out.

        Raises NotImplementedError if query heads share key/value heads.
        """
        if self.num_key_value_groups > 1:
            raise NotImplementedError(
                f"LlamaAttention: heads cannot be pruned: each key/value head serves {self.num_key_value_groups} query "
                "heads, so taking one of these out would leave groups of unequal size"
            )
        new, index = find_pruneable_heads_and_indices(heads, self.num_heads, self.head_dim, self.pruned_heads)
        if not new:
            return
        self.q_proj, self.k_proj, self.v_proj = (
            prune_linear_layer(layer, index) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        self.o_proj = prune_linear_layer(self.o_proj, index, dim=1)
        self.num_heads -= len(new)
        self.pruned_heads |= new

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *,
        kernel: Callable[..., Any],
        attention_mask: Any = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        sliding_window: int | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what is added to the residual stream, (B, T, E), and the attention probabilities if asked for."""
        query, key, value = (
            states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)
            for states in apply_each(hidden_states, self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = position_embeddings
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        if past_key_values is not None:
            extra = {"sin": sin, "cos": cos, "cache_position": cache_position}
            key, value = past_key_values.update(key, value, self.layer_idx, extra)
        attended, weights = kernel(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            sliding_window=sliding_window,
            output_attentions=output_attentions,
        )
        return apply_linear(self.o_proj, attended.flatten(-2)), weights if output_attentions else None


class LlamaMLP(nn.Module):
    """The gated feed-forward, down(act(gate(x)) * up(x)). Source: Shazeer 2020 (arXiv 2002.05202)."""

    _siblings = ("gate_proj", "up_proj")

    def __init__(self, config: LlamaConfig, **factory: Any) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias, **factory)
        self.up_proj = nn.Linear(width, inner, bias=bias, **factory)
        self.down_proj = nn.Linear(inner, width, bias=bias, **factory)
        self.act_fn = get_activation(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        gate, up = apply_each(hidden_states, self.gate_proj, self.up_proj)
        return apply_linear(self.down_proj, self.act_fn(gate) * up)


class LlamaDecoderLayer(GradientCheckpointingLayer):
    """Norm, attention, norm, feed-forward, each added to the residual stream."""

    def __init__(self, config: LlamaConfig, layer_idx: int, **factory: Any) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layer_idx, **factory)
        self.mlp = LlamaMLP(config, **factory)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **factory)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **factory)

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **attention: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the stream (B, T, E) and the attention probabilities, None if not asked for."""
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), position_embeddings, **attention)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)), weights
