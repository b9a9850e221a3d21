"""What all T5 models share, and the stack of blocks that is their encoder or their decoder.

Shapes: B batch, T tokens, S tokens of the encoder, E hidden size, H heads, L layers.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import as_cache, cache_of_call
from modelwright.attention.common import biased
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.masks import create_bidirectional_mask, create_causal_mask
from modelwright.attention.packing import Packing, Unpaddable, packing_of
from modelwright.attention.shared_source import mask_of_source
from modelwright.core.errors import InputError
from modelwright.models.t5.attention import T5Attention, T5Block
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.feed_forward import (
    T5ClassificationHead,
    T5DenseActDense,
    T5DenseGatedActDense,
    T5LayerNorm,
)
from modelwright.models.t5.relative_bias import padding_as_4d
from modelwright.outputs.model_outputs import BaseModelOutputWithPastAndCrossAttentions
from modelwright.placement.offload import at_hand
from modelwright.pretrained.decoding import shifted_right
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.switches import Switches, embedded, switches_of

Device = torch.device | str | None


class T5PreTrainedModel(PreTrainedModel):
    """What all T5 models share: initialisation, fp32 where half precision overflows, pruning, the shifted labels.

    Heads are pruned by the number of their attention: the encoder's layers come first, then the decoder's, then the
    decoder's attentions to the encoder. So {0: [1]} is a head of the encoder, as in 4.x.
    """

    config_class = T5Config
    base_model_prefix = "transformer"
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["T5Block"]
    _keep_in_fp32_modules: ClassVar[list[str]] = ["wo"]
    # An output projection is no source of embeddings: a checkpoint that holds nothing else is not whole.
    _tied_weights_not_sources: ClassVar[tuple[str, ...]] = ("lm_head.weight",)
    # Of a table that early checkpoints held and nothing used.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$"
    ]

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model accepts."""
        ids = torch.tensor([[2, 3, 4, 1], [4, 2, 3, 1]])
        mask = torch.ones_like(ids)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if hasattr(self.base_model, "decoder"):
            inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        return inputs

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as Mesh TensorFlow's T5: with the root of the fan-in, the head size only in the queries."""
        if isinstance(module, T5LayerNorm):
            nn.init.constant_(module.weight, self.config.initializer_factor)
        for name, std in self._stds(module).items():
            layer: Any = getattr(module, name, None)
            if layer is None:
                continue
            nn.init.normal_(layer.weight, std=self.config.initializer_factor * std)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)

    def _stds(self, module: nn.Module) -> dict[str, float]:
        """Return the standard deviations of the weights of the layers of `module`, by name."""
        config = self.config
        width = config.d_model**-0.5
        if isinstance(module, T5Attention):
            values = {"q": width * config.d_kv**-0.5, "k": width, "v": width, "relative_attention_bias": width}
            return {**values, "o": (config.num_heads * config.d_kv) ** -0.5}
        if isinstance(module, T5DenseActDense | T5DenseGatedActDense):
            return {"wi": width, "wi_0": width, "wi_1": width, "wo": config.d_ff**-0.5}
        if isinstance(module, T5ClassificationHead):
            return {"dense": width, "out_proj": width}
        if isinstance(module, T5PreTrainedModel):
            return {"shared": 1.0, "lm_head": 1.0, "classifier": 1.0, "qa_outputs": width}
        return {}

    @property
    def _num_prunable_layers(self) -> int:
        return int(self.config.num_layers + 2 * self.config.num_decoder_layers)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        first = self.config.num_layers
        stacks: Any = self
        stacks.encoder.prune_heads({layer: heads for layer, heads in heads_to_prune.items() if layer < first})
        if hasattr(self, "decoder"):
            stacks.decoder.prune_heads(
                {layer - first: heads for layer, heads in heads_to_prune.items() if layer >= first}
            )

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        return shifted_right(self, input_ids)


class T5Stack(T5PreTrainedModel, Unpaddable):
    """The blocks of an encoder, or with `config.is_decoder` of a decoder, and the norm behind them.

    `embed_tokens` is shared with the caller; without it the stack takes `inputs_embeds` only.
    """

    def __init__(
        self,
        config: T5Config,
        embed_tokens: nn.Embedding | None = None,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.is_decoder = config.is_decoder
        self.can_unpad = not config.is_decoder
        self.embed_tokens = embed_tokens
        self.block = nn.ModuleList(
            T5Block(config, has_relative_attention_bias=index == 0, layer_idx=index, **factory)
            for index in range(config.num_layers)
        )
        self.final_layer_norm = T5LayerNorm(config.d_model, eps=config.layer_norm_epsilon, **factory)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings; raise NotImplementedError for a stack without them."""
        if self.embed_tokens is None:
            raise NotImplementedError("T5Stack was made without embed_tokens: pass inputs_embeds")
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.embed_tokens = value  # type: ignore[assignment]

    @property
    def _num_prunable_layers(self) -> int:
        return len(self.block) * (2 if self.is_decoder else 1)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for number, heads in heads_to_prune.items():
            crosses, layer = divmod(number, len(self.block))
            parts: Any = self.block[layer].layer
            (parts[1].EncDecAttention if crosses else parts[0].SelfAttention).prune_heads(heads)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Return the hidden states (B, T, E), of a decoder the cache, and what else was asked for.

        `attention_mask` is 1 for tokens and 0 for padding, (B, T and what the cache holds), or has a row for each
        query, (B, T, S), or is ready, (B, H or 1, T, S). `encoder_hidden_states` may have fewer rows than the ids, each
        for as many rows that follow one another. Raises InputError for inputs that do not fit.
        """
        past_key_values = as_cache(past_key_values)
        switches = switches_of(
            self,
            use_cache=use_cache if self.is_decoder else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            past_key_values=past_key_values,
        )
        if not self.is_decoder and (use_cache or past_key_values is not None):
            raise InputError(
                "T5Stack: an encoder has no cache: use_cache and past_key_values need config.is_decoder=True"
            )
        hidden = embedded(self, input_ids, inputs_embeds)
        kernel: Any = ALL_ATTENTION_FUNCTIONS[implementation_of(self.config)]
        packing = None if switches.output_attentions else packing_of(self, attention_mask)
        if switches.recomputes:
            past_key_values = None
        past_key_values = cache_of_call(past_key_values, switches.use_cache, crosses=self.is_decoder)
        attentions: dict[str, Any] = {
            "position_bias": self._position_bias(hidden, None if packing else attention_mask, past_key_values),
            "kernel": kernel if packing is None else partial(_attend_packed, packing, kernel),
            "past_key_values": past_key_values,
            "cache_position": cache_position,
        }
        if self.is_decoder and encoder_hidden_states is not None:
            attentions["encoder_hidden_states"] = encoder_hidden_states
            attentions["encoder_decoder_position_bias"] = mask_of_source(
                "T5Stack", self.config, hidden, encoder_hidden_states, padding_as_4d(encoder_attention_mask)
            )
        head_masks = (
            self.get_head_mask(head_mask, len(self.block)),
            self.get_head_mask(cross_attn_head_mask, len(self.block)),
        )
        if packing is not None:
            hidden = packing.pack(hidden)
        output = self._run(self.dropout(hidden), switches, head_masks, attentions)
        if packing is not None and output.last_hidden_state is not None:
            output.last_hidden_state = packing.unpack(output.last_hidden_state)
            output.hidden_states = output.hidden_states and tuple(map(packing.unpack, output.hidden_states))
        return output if switches.return_dict else output.to_tuple()

    def _position_bias(self, hidden: Tensor, attention_mask: Tensor | None, past_key_values: Any) -> Tensor:
        """Return what all layers add to the scores of the tokens among themselves, [1 or B, H, T, S]."""
        mask, T = padding_as_4d(attention_mask), hidden.shape[1]
        options = {"config": self.config, "inputs_embeds": hidden, "attention_mask": mask}
        if self.is_decoder:
            # One new token may see all that a growing cache holds; more of them need the mask next to the bias.
            mask = create_causal_mask(**options, past_key_values=past_key_values, allow_is_causal_skip=T == 1)
        else:
            mask = create_bidirectional_mask(**options)
        past, S = 0, T
        if past_key_values is not None:
            past, (S, _) = past_key_values.get_seq_length(), past_key_values.get_mask_sizes(T)
        first: Any = self.block[0]
        with at_hand(first):
            bias = first.layer[0].SelfAttention.compute_bias(T, S, past)
        return biased(mask, bias.to(hidden.device)).to(hidden.dtype)

    def _run(
        self, hidden: Tensor, switches: Switches, head_masks: tuple[Any, Any], attentions: dict[str, Any]
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Run the blocks and collect what the switches ask for."""
        states: list[Tensor] = []
        weights: list[Tensor] = []
        cross_weights: list[Tensor] = []
        for block, own_mask, cross_mask in zip(self.block, *head_masks, strict=True):
            if switches.output_hidden_states:
                states.append(hidden)
            hidden, *others = block(
                hidden,
                layer_head_mask=own_mask,
                cross_attn_layer_head_mask=cross_mask,
                use_cache=switches.use_cache,
                output_attentions=switches.output_attentions,
                **attentions,
            )
            if switches.output_attentions:
                weights.append(others[1])
                cross_weights += others[3:]
        hidden = self.dropout(self.final_layer_norm(hidden))
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden,
            past_key_values=attentions["past_key_values"] if switches.use_cache else None,
            hidden_states=(*states, hidden) if switches.output_hidden_states else None,
            attentions=tuple(weights) if switches.output_attentions else None,
            cross_attentions=tuple(cross_weights) if cross_weights else None,
        )


def _attend_packed(
    packing: Packing, kernel: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, **options: Any
) -> tuple[Tensor, None]:
    """Attend as `kernel` does, within each of the packed sequences."""
    wanted = {name: options[name] for name in ("scaling", "dropout")}
    return packing.attend(kernel, module, query, key, value, bias=bias, **wanted), None


def stack_config(config: T5Config, *, decoder: bool) -> Any:
    """Return the config of a stack of a model with `config`; heads to prune come from the model."""
    own = copy.deepcopy(config)
    own.is_decoder, own.is_encoder_decoder, own.use_cache = decoder, False, decoder and config.use_cache
    own.tie_encoder_decoder = False
    own.pruned_heads = {}
    if decoder:
        own.num_layers = config.num_decoder_layers
    return own
