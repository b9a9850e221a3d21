"""BERT without a head: the layers of this folder, assembled.

Shapes: B batch, T tokens, S tokens with the cached ones, E hidden size, H heads.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import as_cache, cache_of_call
from modelwright.attention.masks import create_bidirectional_mask, create_causal_mask
from modelwright.attention.packing import Unpaddable, packing_of
from modelwright.attention.shared_source import mask_of_source
from modelwright.core.errors import InputError
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.embeddings import BertEmbeddings
from modelwright.models.bert.layers import BertLayer
from modelwright.outputs.model_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    BaseModelOutputWithPoolingAndCrossAttentions,
)
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.switches import Switches, check_one_input, switches_of

Device = torch.device | str | None


class BertPreTrainedModel(PreTrainedModel):
    """What all BERT models share: the config class, the base model's name and the initialisation."""

    config_class = BertConfig
    base_model_prefix = "bert"
    _supports_attention_backend = True
    # Counted positions, which old checkpoints stored.
    _no_split_modules: ClassVar[list[str]] = ["BertLayer"]
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"embeddings\.position_ids$"]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class BertEncoder(nn.Module, Unpaddable):
    """The layers, one after another."""

    def __init__(self, config: BertConfig, layer_idx: int | None = None, **factory: Any) -> None:
        """`layer_idx` is the number of the first layer in a cache."""
        super().__init__()
        self.config = config
        first = layer_idx or 0
        self.layer = nn.ModuleList(BertLayer(config, first + i, **factory) for i in range(config.num_hidden_layers))
        # Relative positions make scores of all pairs of tokens of a batch, so those run padded.
        self.can_unpad = not config.is_decoder and config.position_embedding_type == "absolute"

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Any = None,
        head_mask: Sequence[Tensor | None] | Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = False,
        output_hidden_states: bool | None = False,
        return_dict: bool | None = True,
        cache_position: Tensor | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Return the hidden states (B, T, E), and the cache, each layer's input and probabilities if asked for.

        Masks are what the attention kernel takes. `head_mask` has an entry for each layer.
        """
        crosses = encoder_hidden_states is not None
        past_key_values = cache_of_call(past_key_values, bool(use_cache), crosses)
        states: list[Tensor] = [hidden_states]
        weights: list[Tensor] = []
        cross_weights: list[Tensor] = []
        for index, layer in enumerate(self.layer):
            hidden_states, own, *cross = layer(
                hidden_states,
                attention_mask,
                None if head_mask is None else head_mask[index],
                encoder_hidden_states,
                encoder_attention_mask,
                past_key_values=past_key_values,
                output_attentions=output_attentions,
                cache_position=cache_position,
            )
            if output_hidden_states:
                states.append(hidden_states)
            weights.append(own)
            cross_weights += cross
        output = BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(weights) if output_attentions else None,
            cross_attentions=tuple(cross_weights) if output_attentions and cross_weights else None,
        )
        return output if return_dict else output.to_tuple()


class BertPooler(nn.Module):
    """A projection of the first token's state, and tanh."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, device=device, dtype=dtype)
        self.activation = nn.Tanh()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, E)."""
        pooled: Tensor = self.activation(self.dense(hidden_states[:, 0]))
        return pooled


class BertModel(BertPreTrainedModel):
    """BERT without a head: ids or embeddings to (B, T, E), and one vector (B, E) unless `add_pooling_layer` is False.

    A decoder with `config.is_decoder`, which attends to an encoder's states with `config.add_cross_attention`.
    Source: Devlin et al. 2019.
    """

    def __init__(
        self,
        config: BertConfig,
        add_pooling_layer: bool = True,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embeddings = BertEmbeddings(config, **factory)
        self.encoder = BertEncoder(config, **factory)
        self.pooler = BertPooler(config, **factory) if add_pooling_layer else None
        self.is_decoder = config.is_decoder
        self.crosses = config.add_cross_attention
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    def _prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            self.encoder.layer[layer].attention.prune_heads(heads)  # type: ignore[union-attr, operator]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Return the hidden states (B, T, E), the pooled one (B, E) and what else was asked for.

        `attention_mask` is (B, S), (B, T, S) or what the attention kernel takes; `token_type_ids` are zeros if not
        given; `head_mask` (H,) or (layers, H) scales heads. A decoder with a cache (`past_key_values`, an object or a
        tuple of pairs) gets the ids that it does not hold yet; in an encoder the cached tokens are a prefix that all
        see. `encoder_hidden_states` (B, S, E) need a config with `add_cross_attention`. With `return_dict=False` the
        second entry is the pooled state, None without a pooler, and the cache comes before the hidden states. Raises
        InputError for inputs that do not fit.
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
        if encoder_hidden_states is not None and not self.crosses:
            raise InputError(
                "BertModel: encoder_hidden_states need cross-attention layers; make the model with is_decoder=True and "
                "add_cross_attention=True"
            )
        check_one_input(self, input_ids, inputs_embeds)
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        if switches.recomputes:
            past_key_values = None
        past_key_values = cache_of_call(past_key_values, switches.use_cache, encoder_hidden_states is not None)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None and cache_position is not None:
            position_ids = cache_position[None]
        hidden = self.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            past_key_values_length=past,
        )
        masks = {"attention_mask": attention_mask, "encoder_attention_mask": encoder_attention_mask}
        output = self._encode(
            hidden, masks, switches, head_mask, encoder_hidden_states, past_key_values, cache_position
        )
        if self.pooler is not None and output.last_hidden_state is not None:
            output.pooler_output = self.pooler(output.last_hidden_state)
        if switches.return_dict:
            return output
        # Not the order of the output's fields: in 4.x the cache comes third.
        others = (output.past_key_values, output.hidden_states, output.attentions, output.cross_attentions)
        return output.last_hidden_state, output.pooler_output, *(each for each in others if each is not None)

    def _encode(
        self,
        hidden: Tensor,
        masks: dict[str, Any],
        switches: Switches,
        head_mask: Tensor | None,
        encoder_hidden_states: Tensor | None,
        past_key_values: Any,
        cache_position: Tensor | None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Run the layers, on the real tokens only where the encoder is unpadded."""
        if encoder_hidden_states is not None:
            masks["encoder_attention_mask"] = mask_of_source(
                type(self).__name__, self.config, hidden, encoder_hidden_states, _ready(masks["encoder_attention_mask"])
            )
        packing = None
        if past_key_values is None and not switches.output_attentions:
            packing = packing_of(self.encoder, masks["attention_mask"])
        if packing is not None:
            hidden, masks["attention_mask"] = packing.pack(hidden), packing
        else:
            masks["attention_mask"] = self._mask(hidden, masks["attention_mask"], past_key_values, cache_position)
        output = self.encoder(
            hidden,
            head_mask=self.get_head_mask(head_mask, len(self.encoder.layer)),
            encoder_hidden_states=encoder_hidden_states,
            past_key_values=past_key_values,
            use_cache=switches.use_cache,
            output_attentions=switches.output_attentions,
            output_hidden_states=switches.output_hidden_states,
            cache_position=cache_position,
            **masks,
        )
        states, last = output.hidden_states, output.last_hidden_state
        if packing is not None:
            states, last = states and tuple(map(packing.unpack, states)), packing.unpack(last)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=last,
            hidden_states=states,
            past_key_values=output.past_key_values,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )

    def _mask(self, hidden: Tensor, attention_mask: Any, past_key_values: Any, cache_position: Tensor | None) -> Any:
        """Return the mask that the kernel takes."""
        sizes = {
            "config": self.config,
            "inputs_embeds": hidden,
            "attention_mask": _ready(attention_mask),
            "past_key_values": past_key_values,
        }
        if not self.is_decoder:
            return create_bidirectional_mask(**sizes)
        return create_causal_mask(**sizes, cache_position=cache_position)


class BertWithHead(BertPreTrainedModel):
    """Base of the models with a head: which class their `bert` is, so that a variant of BERT has the same heads."""

    backbone_class: ClassVar[type[BertModel]] = BertModel


def _ready(attention_mask: Any) -> Any:
    """(B, T, S) of ones and zeros -> booleans (B, 1, T, S), which kernels take."""
    three = isinstance(attention_mask, Tensor) and attention_mask.dim() == 3
    return attention_mask[:, None].bool() if three else attention_mask
