"""Llama models: the layers of this folder, assembled, and the heads on them.

Shapes: B batch, T tokens, S tokens with the cached ones, E hidden size, V vocabulary, N labels.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import DynamicCache, as_cache
from modelwright.attention.interface import ALL_ATTENTION_FUNCTIONS, implementation_of
from modelwright.attention.masks import PATTERNS
from modelwright.attention.patterns import layer_types_of, window_of
from modelwright.attention.rotary import RotaryEmbedding
from modelwright.checkpoint.names import Rename
from modelwright.models.llama.configuration_llama import LlamaConfig
from modelwright.models.llama.layers import LlamaDecoderLayer
from modelwright.nn.decode_layout import apply_linear
from modelwright.nn.losses import causal_lm_loss
from modelwright.nn.rms_norm import RMSNorm
from modelwright.outputs.model_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from modelwright.pretrained.decoding import decoding_inputs
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.switches import Switches, embedded, switches_of, wants_dict
from modelwright.pretrained.task_heads import kept, sequence_output, span_output, token_dropout, token_output

Device = torch.device | str | None
# The way back of a rule that holds for reading only.
_NEVER = ("(?!)", "")


class LlamaPreTrainedModel(PreTrainedModel):
    """What all Llama models share: the config class, the base model's name and the initialisation."""

    config_class = LlamaConfig
    base_model_prefix = "model"
    _supports_attention_backend = True
    # Question answering calls the base model otherwise than its sisters; each reads the others' files.
    _checkpoint_renames = (Rename(r"^transformer\.", "model.", inverse=_NEVER),)
    # Frequencies that old checkpoints stored as buffers.
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer"]
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"rotary_emb\.inv_freq$"]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)


class LlamaModel(LlamaPreTrainedModel):
    """Llama without a head: ids or embeddings to (B, T, E). Source: Touvron et al. 2023."""

    def __init__(self, config: LlamaConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id, **factory)
        self.layers = nn.ModuleList(LlamaDecoderLayer(config, i, **factory) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, **factory)
        self.rotary_emb = RotaryEmbedding(config, device=device)
        self.layer_types = layer_types_of(config)
        self.windows = [window_of(config, kind) for kind in self.layer_types]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.embed_tokens = value  # type: ignore[assignment]

    def _prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        for layer, heads in heads_to_prune.items():
            self.layers[layer].self_attn.prune_heads(heads)  # type: ignore[union-attr, operator]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        cache_position: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Return the hidden states (B, T, E), the cache and what else was asked for; a tuple with `return_dict=False`.

        With a cache (`past_key_values`, an object or a tuple of pairs) the ids are those that it does not hold yet and
        `attention_mask` (B, S) covers those that it does. `position_ids` (B or 1, T) that start again within a row
        make it several texts that do not see each other. Raises InputError for inputs that do not fit.
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
        hidden = embedded(self, input_ids, inputs_embeds)
        if switches.recomputes:
            past_key_values = None
        elif past_key_values is None and switches.use_cache:
            past_key_values = DynamicCache(config=self.config)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        length = past + hidden.shape[1]
        # Masks read the first of these positions, which an export cannot; without them they know it themselves.
        given_position = cache_position
        if cache_position is None:
            cache_position = torch.arange(past, length, device=hidden.device)
        masks = {
            kind: PATTERNS[kind](
                self.config,
                hidden,
                attention_mask,
                cache_position=given_position,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
            for kind in dict.fromkeys(self.layer_types)
        }
        # The length is known without asking the device, unless the caller numbers the positions.
        positions = self.rotary_emb(
            hidden,
            cache_position[None] if position_ids is None else position_ids,
            seq_len=length if position_ids is None else None,
            past_key_values=past_key_values,
        )
        output = self._run(hidden, positions, switches, masks, past_key_values, cache_position)
        return output if switches.return_dict else output.to_tuple()

    def _run(
        self,
        hidden: Tensor,
        positions: tuple[Tensor, Tensor],
        switches: Switches,
        masks: dict[str, Any],
        past_key_values: Any,
        cache_position: Tensor,
    ) -> BaseModelOutputWithPast:
        """Run the layers and collect what the switches ask for."""
        kernel = ALL_ATTENTION_FUNCTIONS[implementation_of(self.config)]
        states: list[Tensor] = []
        weights: list[Tensor] = []
        for layer, kind, window in zip(self.layers, self.layer_types, self.windows, strict=True):
            if switches.output_hidden_states:
                states.append(hidden)
            hidden, own = layer(
                hidden,
                positions,
                kernel=kernel,
                attention_mask=masks[kind],
                past_key_values=past_key_values,
                cache_position=cache_position,
                sliding_window=window,
                output_attentions=switches.output_attentions,
            )
            weights.append(own)
        hidden = self.norm(hidden)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=past_key_values if switches.use_cache else None,
            hidden_states=(*states, hidden) if switches.output_hidden_states else None,
            attentions=tuple(weights) if switches.output_attentions else None,
        )


class LlamaForCausalLM(LlamaPreTrainedModel):
    """Llama as a language model: scores of each next token."""

    _tied_weights_keys: ClassVar[list[str]] = ["lm_head.weight"]
    _supports_generation_cache = True
    _supports_cache_objects = True

    def __init__(self, config: LlamaConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.model = LlamaModel(config, device=device, dtype=dtype)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=device, dtype=dtype)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output projection."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Return logits (B, T, V), or of the last `logits_to_keep` tokens, and with `labels` (B, T) the loss.

        Labels are shifted here: pass the ids; -100 does not count. The rest is as in `LlamaModel.forward`.
        """
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            cache_position=cache_position,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = apply_linear(self.lm_head, kept(output.last_hidden_state, logits_to_keep))
        result = CausalLMOutputWithPast(
            loss=None if labels is None else causal_lm_loss(logits, labels),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step; see `modelwright.pretrained.decoding`."""
        inputs = decoding_inputs(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
        )
        # A step needs the scores of the last token only.
        return {**inputs, "logits_to_keep": 1}

    def _position_limit(self) -> int | None:
        # Rotary positions have no table that ends.
        return None


class LlamaForSequenceClassification(LlamaPreTrainedModel):
    """Llama that scores the labels of a sequence at its last token; rows need `config.pad_token_id` to find it."""

    def __init__(self, config: LlamaConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.model = LlamaModel(config, device=device, dtype=dtype)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Return logits (B, N) and with `labels` the loss, by `config.problem_type` or what the labels are."""
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = sequence_output(self, output, self.score(output.last_hidden_state), input_ids, labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class LlamaForTokenClassification(LlamaPreTrainedModel):
    """Llama that scores the labels of each token."""

    def __init__(self, config: LlamaConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.model = LlamaModel(config, device=device, dtype=dtype)
        self.dropout = nn.Dropout(token_dropout(config))
        self.score = nn.Linear(config.hidden_size, config.num_labels, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits (B, T, N) and with `labels` (B, T) the loss; -100 does not count."""
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = token_output(output, self.score(self.dropout(output.last_hidden_state)), labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class LlamaForQuestionAnswering(LlamaPreTrainedModel):
    """Llama that scores each token as the first and as the last of an answer."""

    base_model_prefix = "transformer"
    _checkpoint_renames = (Rename(r"^model\.", "transformer.", inverse=_NEVER),)

    def __init__(self, config: LlamaConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = LlamaModel(config, device=device, dtype=dtype)
        self.qa_outputs = nn.Linear(config.hidden_size, 2, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Return `start_logits` and `end_logits` (B, T), and with both positions (B) the loss."""
        output = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = span_output(output, self.qa_outputs(output.last_hidden_state), start_positions, end_positions)
        return result if wants_dict(self, return_dict) else result.to_tuple()
