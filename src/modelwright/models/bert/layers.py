"""What a BERT layer is made of: self- or cross-attention, and the feed-forward, each added and normalised.

Legend: B batch, T query tokens, S key tokens, H heads, D head size, E = H * D hidden size.

A quantized BERT needs no second copy of this file. Linear layers are swapped from outside, and every other operand that
it quantizes has a slot here, a submodule that is None until one is set: `matmul_{q,k,v,a}_input_quantizer` for queries,
keys (transposed, as they enter the product), values and probabilities, `add_{local,residual}_input_quantizer` for the
two sides of a residual addition. The names are those of QDQBERT's checkpoints. A module in a slot of attention makes it
run the eager kernel, the only one that has these operands.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.caches import encoder_states
from modelwright.attention.common import biased, implied_mask, own_heads
from modelwright.attention.eager import Transforms, eager_attention_forward
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.packing import Packing
from modelwright.attention.shared_source import attend_to_shared
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.relative_positions import relative_bias
from modelwright.nn.activations import get_activation
from modelwright.nn.checkpointing import GradientCheckpointingLayer
from modelwright.nn.chunking import apply_chunking_to_forward, apply_in_blocks
from modelwright.nn.decode_layout import apply_linear
from modelwright.nn.pruning import find_pruneable_heads_and_indices, prune_linear_layer

_MATMUL_SLOTS = tuple(f"matmul_{operand}_input_quantizer" for operand in "qkva")
_ADD_SLOTS = ("add_local_input_quantizer", "add_residual_input_quantizer")


class BertSelfAttention(nn.Module):
    """Multi-head attention to the own tokens, or to an encoder's states where they are given.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(
        self,
        config: BertConfig,
        position_embedding_type: str | None = None,
        layer_idx: int | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query = nn.Linear(config.hidden_size, self.all_head_size, **factory)
        self.key = nn.Linear(config.hidden_size, self.all_head_size, **factory)
        self.value = nn.Linear(config.hidden_size, self.all_head_size, **factory)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.position_embedding_type = position_embedding_type or config.position_embedding_type
        if self.position_embedding_type != "absolute":
            self.max_position_embeddings = config.max_position_embeddings
            rows = 2 * config.max_position_embeddings - 1
            self.distance_embedding = nn.Embedding(rows, self.attention_head_size, **factory)
        self.is_decoder = config.is_decoder
        self.layer_idx = layer_idx or 0
        self.pruned_heads: set[int] = set()
        for slot in _MATMUL_SLOTS:
            self.register_module(slot, None)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool | None = False,
        cache_position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the heads attend to, (B, T, E), and the probabilities (B, H, T, S) if asked for.

        `attention_mask` is what the kernel takes, that of the encoder's states if these are given, or a Packing. Those
        states may have fewer rows, each for as many that follow one another.
        """
        crosses = encoder_hidden_states is not None
        query = self._heads(apply_linear(self.query, hidden_states))
        first = 0
        if crosses:
            key, value = encoder_states(past_key_values, self.layer_idx, lambda: self._keys(encoder_hidden_states))
        else:
            key, value = self._keys(hidden_states)
            if past_key_values is not None:
                first = past_key_values.get_seq_length(self.layer_idx)
                key, value = past_key_values.update(key, value, self.layer_idx, {"cache_position": cache_position})
        options: dict[str, Any] = {
            "scaling": self.attention_head_size**-0.5,
            "dropout": self.dropout.p if self.training else 0.0,
        }
        scale_1H11 = None
        if head_mask is not None:
            where = f"layer {self.layer_idx}"
            scale_1H11 = own_heads(where, head_mask, self.num_attention_heads, self.pruned_heads)
        kernel, transforms = ALL_ATTENTION_FUNCTIONS[implementation_of(self.config)], self._transforms()
        if transforms is not None:
            kernel, options = eager_attention_forward, {**options, "transforms": transforms, "head_mask": scale_1H11}
        weights = None
        if isinstance(attention_mask, Packing):
            attended = attention_mask.attend(kernel, self, query, key, value, **options)
        else:
            causal = self.is_decoder and not crosses
            if self.position_embedding_type != "absolute" and not crosses:
                if attention_mask is None:
                    # A kernel with a mask, such as a bias, does not look at is_causal.
                    attention_mask = implied_mask(self, query, key, causal, None)
                attention_mask = biased(attention_mask, self._relative_bias(query, key, first) * options["scaling"])
            attended, weights = attend_to_shared(
                kernel,
                self,
                query,
                key,
                value,
                attention_mask,
                is_causal=causal,
                output_attentions=bool(output_attentions),
                **options,
            )
        if scale_1H11 is not None and transforms is None:
            # (P * m) V = m * (P V), so that every kernel does head masks.
            attended = attended * scale_1H11.transpose(1, 2)
            weights = None if weights is None else weights * scale_1H11
        return attended.flatten(-2), weights if output_attentions else None

    def _heads(self, states: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, D)."""
        return states.view(*states.shape[:-1], -1, self.attention_head_size).transpose(1, 2)

    def _keys(self, states: Any) -> tuple[Tensor, Tensor]:
        return self._heads(apply_linear(self.key, states)), self._heads(apply_linear(self.value, states))

    def _relative_bias(self, query: Tensor, key: Tensor, first_query: int) -> Tensor:
        with_keys = self.position_embedding_type == "relative_key_query"
        return relative_bias(query, key, self.distance_embedding.weight, first_query, with_keys=with_keys)

    def _transforms(self) -> Transforms | None:
        """Return what is in the slots, None if that is nothing."""
        found = [self._modules[slot] for slot in _MATMUL_SLOTS]
        return Transforms(*found) if any(module is not None for module in found) else None


class _AddAndNorm(nn.Module):
    """A projection, and its sum with the residual stream, normalised; the base of the two outputs of a layer."""

    def __init__(self, width: int, config: BertConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dense = nn.Linear(width, config.hidden_size, **factory)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        for slot in _ADD_SLOTS:
            self.register_module(slot, None)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """Return the new stream (B, T, E), given what was computed and the stream that it is added to."""
        local, residual = self.dropout(apply_linear(self.dense, hidden_states)), input_tensor
        of_local, of_residual = (self._modules[slot] for slot in _ADD_SLOTS)
        if of_local is not None:
            local = of_local(local)
        if of_residual is not None:
            residual = of_residual(residual)
        result: Tensor = self.LayerNorm(local + residual)
        return result


class BertSelfOutput(_AddAndNorm):
    """The projection of the attended heads."""

    def __init__(self, config: BertConfig, **factory: Any) -> None:
        super().__init__(config.hidden_size, config, **factory)


class BertOutput(_AddAndNorm):
    """The second half of the feed-forward."""

    def __init__(self, config: BertConfig, **factory: Any) -> None:
        super().__init__(config.intermediate_size, config, **factory)


class BertAttention(nn.Module):
    """Attention and its output; its heads can be pruned."""

    def __init__(
        self,
        config: BertConfig,
        position_embedding_type: str | None = None,
        layer_idx: int | None = None,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.self = BertSelfAttention(config, position_embedding_type, layer_idx, **factory)
        self.output = BertSelfOutput(config, **factory)

    @property
    def pruned_heads(self) -> set[int]:
        """The heads that are gone, numbered as in the unpruned layer."""
        return self.self.pruned_heads

    def prune_heads(self, heads: Iterable[int]) -> None:
        """Take heads away, numbered as in the unpruned layer; those that are gone already are left out."""
        own = self.self
        new, index = find_pruneable_heads_and_indices(
            heads, own.num_attention_heads, own.attention_head_size, own.pruned_heads
        )
        if not new:
            return
        own.query = prune_linear_layer(own.query, index)
        own.key = prune_linear_layer(own.key, index)
        own.value = prune_linear_layer(own.value, index)
        self.output.dense = prune_linear_layer(self.output.dense, index, dim=1)
        own.num_attention_heads -= len(new)
        own.all_head_size = own.num_attention_heads * own.attention_head_size
        own.pruned_heads |= new

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool | None = False,
        cache_position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new stream (B, T, E), and the probabilities if asked for; see `BertSelfAttention.forward`."""
        attended, weights = self.self(
            hidden_states,
            attention_mask,
            head_mask,
            encoder_hidden_states,
            past_key_values,
            output_attentions,
            cache_position,
        )
        return self.output(attended, hidden_states), weights


class BertIntermediate(nn.Module):
    """The first half of the feed-forward: a wider projection and the activation."""

    def __init__(self, config: BertConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size, device=device, dtype=dtype)
        self.intermediate_act_fn = get_activation(config.hidden_act)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, intermediate_size)."""
        return self.intermediate_act_fn(apply_linear(self.dense, hidden_states))


class BertLayer(GradientCheckpointingLayer):
    """Attention, in a decoder of an encoder's states cross-attention, and the feed-forward."""

    def __init__(self, config: BertConfig, layer_idx: int | None = None, **factory: Any) -> None:
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.seq_len_dim = 1
        self.attention = BertAttention(config, layer_idx=layer_idx, **factory)
        self.is_decoder = config.is_decoder
        self.add_cross_attention = config.add_cross_attention
        if self.add_cross_attention:
            # Distances between two texts mean nothing.
            self.crossattention = BertAttention(config, "absolute", layer_idx, **factory)
        self.intermediate = BertIntermediate(config, **factory)
        self.output = BertOutput(config, **factory)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        output_attentions: bool | None = False,
        cache_position: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Return the stream (B, T, E), the probabilities (None if not asked for), and with encoder states theirs."""
        hidden_states, *weights = self.attention(
            hidden_states,
            attention_mask,
            head_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            cache_position=cache_position,
        )
        if self.add_cross_attention and encoder_hidden_states is not None:
            hidden_states, cross_weights = self.crossattention(
                hidden_states,
                encoder_attention_mask,
                head_mask,
                encoder_hidden_states,
                past_key_values=past_key_values,
                output_attentions=output_attentions,
            )
            weights.append(cross_weights)
        size = self.chunk_size_feed_forward
        if size and not isinstance(attention_mask, Packing):
            hidden_states = apply_chunking_to_forward(self.feed_forward_chunk, size, self.seq_len_dim, hidden_states)
        else:
            hidden_states = apply_in_blocks(self.feed_forward_chunk, hidden_states, size)
        return (hidden_states, *weights)

    def feed_forward_chunk(self, attention_output: Tensor) -> Tensor:
        """Return the stream after the feed-forward, for all tokens or some of them."""
        result: Tensor = self.output(self.intermediate(attention_output), attention_output)
        return result
