"""GPT-2 without a head: the blocks of this folder, assembled.

Shapes: B batch, T tokens, S tokens with the cached ones, E hidden size, H heads.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import as_cache, cache_of_call
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.masks import create_causal_mask
from modelwright.attention.shared_source import mask_of_source
from modelwright.core.errors import InputError
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.layers import GPT2Block
from modelwright.nn.conv1d import Conv1D
from modelwright.outputs.model_outputs import BaseModelOutputWithPastAndCrossAttentions
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.switches import Switches, embedded, switches_of

Device = torch.device | str | None


class GPT2PreTrainedModel(PreTrainedModel):
    """What all GPT-2 models share: the config class, the base model's name and the initialisation."""

    config_class = GPT2Config
    base_model_prefix = "transformer"
    _supports_attention_backend = True
    # Causal masks that old checkpoints stored as buffers.
    _no_split_modules: ClassVar[list[str]] = ["GPT2Block"]
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"(cross)?attn(ention)?\.(masked_)?bias$"]

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | Conv1D | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        # What is added to the residual stream, scaled with its length (Radford et al. 2019, section 2.3).
        projection = getattr(module, "c_proj", None)
        if isinstance(projection, Conv1D):
            nn.init.normal_(projection.weight, std=std / math.sqrt(2 * self.config.n_layer))


class GPT2Model(GPT2PreTrainedModel):
    """GPT-2 without a head: ids or embeddings to (B, T, E). Source: Radford et al. 2019."""

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size, **factory)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size, **factory)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT2Block(config, layer_idx=i, **factory) for i in range(config.num_hidden_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon, **factory)
        self.crosses = config.add_cross_attention
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.wte = value  # type: ignore[assignment]

    def _prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            self.h[layer].attn.prune_heads(heads)  # type: ignore[union-attr, operator]

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache_position: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Return the hidden states (B, T, E), the cache and what else was asked for; a tuple with `return_dict=False`.

        With a cache (`past_key_values`, an object or a tuple of pairs) the ids are those that it does not hold yet and
        `attention_mask` (B, S) covers those that it does. `token_type_ids` (B, T) are embedded as tokens. `head_mask`
        (H,) or (layers, H) scales heads. `encoder_hidden_states` (B, S, E) need a config with `add_cross_attention`.
        Raises InputError for inputs that do not fit.
        """
        past_key_values = as_cache(past_key_values)
        switches = switches_of(
            self,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            past_key_values=past_key_values,
        )
        if encoder_hidden_states is not None and not self.crosses:
            raise InputError(
                "GPT2Model: encoder_hidden_states need cross-attention layers; make the model with "
                "add_cross_attention=True"
            )
        words = embedded(self, input_ids, inputs_embeds)
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(input_ids, attention_mask)
        # Choices (B, C, T) are rows like others.
        hidden, attention_mask = words.flatten(0, -3), _rows(attention_mask)
        if switches.recomputes:
            past_key_values = None
        past_key_values = cache_of_call(past_key_values, switches.use_cache, encoder_hidden_states is not None)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        # Masks read the first of these positions, which an export cannot; without them they know it themselves.
        given_position = cache_position
        if cache_position is None:
            cache_position = torch.arange(past, past + hidden.shape[1], device=hidden.device)
        hidden = self._embed(hidden, position_ids, token_type_ids, cache_position, past)
        masks = {
            "attention_mask": create_causal_mask(
                config=self.config,
                inputs_embeds=hidden,
                attention_mask=attention_mask,
                cache_position=given_position,
                past_key_values=past_key_values,
            ),
        }
        if encoder_hidden_states is not None:
            masks["encoder_attention_mask"] = mask_of_source(
                type(self).__name__, self.config, hidden, encoder_hidden_states, encoder_attention_mask
            )
        output = self._run(
            self.drop(hidden),
            switches,
            self.get_head_mask(head_mask, len(self.h)),
            past_key_values,
            cache_position=cache_position,
            encoder_hidden_states=encoder_hidden_states,
            **masks,
        )
        assert output.last_hidden_state is not None
        output.last_hidden_state = output.last_hidden_state.view(words.shape)
        return output if switches.return_dict else output.to_tuple()

    def _embed(
        self,
        words: Tensor,
        position_ids: Tensor | None,
        token_type_ids: Tensor | None,
        cache_position: Tensor,
        past: int,
    ) -> Tensor:
        """Return the sum of the embeddings of tokens, positions and token types."""
        limit = self.wpe.num_embeddings
        if past + words.shape[1] > limit and position_ids is None:
            raise InputError(
                f"GPT2Model: expected at most {limit} tokens (n_positions), got {words.shape[1]} after "
                f"{past} in the cache"
            )
        hidden: Tensor = words + self.wpe(cache_position[None] if position_ids is None else position_ids.flatten(0, -2))
        if token_type_ids is not None:
            hidden = hidden + self.wte(token_type_ids.view(words.shape[:2]))
        return hidden

    def _run(
        self, hidden: Tensor, switches: Switches, head_masks: Any, past_key_values: Any, **shared: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Run the blocks and collect what the switches ask for."""
        kernel = ALL_ATTENTION_FUNCTIONS[implementation_of(self.config)]
        states: list[Tensor] = []
        weights: list[Tensor] = []
        cross_weights: list[Tensor] = []
        for block, head_mask in zip(self.h, head_masks, strict=True):
            if switches.output_hidden_states:
                states.append(hidden)
            hidden, own, cross = block(
                hidden,
                kernel=kernel,
                past_key_values=past_key_values,
                head_mask=head_mask,
                output_attentions=switches.output_attentions,
                **shared,
            )
            weights.append(own)
            cross_weights.append(cross)
        hidden = self.ln_f(hidden)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden,
            past_key_values=past_key_values if switches.use_cache else None,
            hidden_states=(*states, hidden) if switches.output_hidden_states else None,
            attentions=tuple(weights) if switches.output_attentions else None,
            cross_attentions=tuple(cross_weights)
            if switches.output_attentions and shared["encoder_hidden_states"] is not None
            else None,
        )


def _rows(attention_mask: Any) -> Any:
    """(B, C, S) -> (B * C, S)."""
    choices = isinstance(attention_mask, Tensor) and attention_mask.dim() == 3
    return attention_mask.flatten(0, 1) if choices else attention_mask
