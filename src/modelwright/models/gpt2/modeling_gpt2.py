"""The heads on GPT-2: language model, double heads, classifiers, question answering.

Shapes: B batch, C choices, T tokens, E hidden size, V vocabulary, N labels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.models.gpt2.backbone import Device, GPT2Model, GPT2PreTrainedModel
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.nn.losses import causal_lm_loss, cross_entropy
from modelwright.nn.sequence_summary import SequenceSummary
from modelwright.outputs.base import ModelOutput
from modelwright.outputs.model_outputs import (
    CausalLMOutputWithCrossAttentions,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from modelwright.pretrained.decoding import decoding_inputs
from modelwright.pretrained.switches import wants_dict
from modelwright.pretrained.task_heads import kept, sequence_output, span_output, token_dropout, token_output


@dataclass
class GPT2DoubleHeadsModelOutput(ModelOutput):
    """What `GPT2DoubleHeadsModel` returns: `logits` (B, C, T, V) and `mc_logits` (B, C), each with its loss."""

    loss: Tensor | None = None
    mc_loss: Tensor | None = None
    logits: Tensor | None = None
    mc_logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class _GPT2WithLMHead(GPT2PreTrainedModel):
    """A GPT-2 whose embeddings also score the vocabulary, and that decodes with a cache."""

    _tied_weights_keys: ClassVar[list[str]] = ["lm_head.weight"]
    _supports_generation_cache = True
    _supports_cache_objects = True
    _shares_source = True
    _step_keywords: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, device=device, dtype=dtype)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=device, dtype=dtype)

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output projection."""
        self.lm_head = new_embeddings

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step; see `modelwright.pretrained.decoding`."""
        inputs = decoding_inputs(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
            head_mask=head_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=use_cache,
        )
        return {**inputs, **self._step_keywords}


class GPT2LMHeadModel(_GPT2WithLMHead):
    """GPT-2 as a language model: scores of each next token."""

    # A step needs the scores of the last token only.
    _step_keywords: ClassVar[dict[str, Any]] = {"logits_to_keep": 1}

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, device=device, dtype=dtype)
        self.post_init()

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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Return logits (B, T, V), or of the last `logits_to_keep` tokens, and with `labels` (B, T) the loss.

        Labels are shifted here: pass the ids; -100 does not count. The rest is as in `GPT2Model.forward`.
        """
        output = self.transformer(
            input_ids,
            past_key_values=past_key_values,
            cache_position=cache_position,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(kept(output.last_hidden_state, logits_to_keep))
        result = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_lm_loss(logits, labels),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class GPT2DoubleHeadsModel(_GPT2WithLMHead):
    """GPT-2 with a language model head and one that chooses among several continuations, (B, C, T) ids."""

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        # Each choice gets one score.
        config.num_labels = 1
        super().__init__(config, device=device, dtype=dtype)
        self.multiple_choice_head = SequenceSummary(config, device=device, dtype=dtype)
        self.post_init()

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
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> GPT2DoubleHeadsModelOutput | tuple[Any, ...]:
        """Return logits (B, C, T, V) and `mc_logits` (B, C), with losses for `labels` (B, C, T) and `mc_labels` (B).

        `mc_token_ids` (B, C) is the position of the token whose state is scored, by default the last.
        """
        output = self.transformer(
            input_ids,
            past_key_values=past_key_values,
            cache_position=cache_position,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        hidden = output.last_hidden_state
        logits = self.lm_head(hidden)
        choices = self.multiple_choice_head(hidden, mc_token_ids).squeeze(-1)
        result = GPT2DoubleHeadsModelOutput(
            loss=None
            if labels is None
            else causal_lm_loss(logits.flatten(0, -3), labels.reshape(-1, labels.shape[-1])),
            mc_loss=None
            if mc_labels is None
            else cross_entropy(choices.view(-1, choices.shape[-1]), mc_labels.reshape(-1), what="mc_labels"),
            logits=logits,
            mc_logits=choices,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class GPT2ForSequenceClassification(GPT2PreTrainedModel):
    """GPT-2 that scores the labels of a sequence at its last token; rows need `config.pad_token_id` to find it."""

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, device=device, dtype=dtype)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Return logits (B, N) and with `labels` the loss, by `config.problem_type` or what the labels are."""
        output = self.transformer(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = sequence_output(self, output, self.score(output.last_hidden_state), input_ids, labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class GPT2ForTokenClassification(GPT2PreTrainedModel):
    """GPT-2 that scores the labels of each token."""

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, device=device, dtype=dtype)
        self.dropout = nn.Dropout(token_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits (B, T, N) and with `labels` (B, T) the loss; -100 does not count."""
        output = self.transformer(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = token_output(output, self.classifier(self.dropout(output.last_hidden_state)), labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class GPT2ForQuestionAnswering(GPT2PreTrainedModel):
    """GPT-2 that scores each token as the first and as the last of an answer."""

    def __init__(self, config: GPT2Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config, device=device, dtype=dtype)
        self.qa_outputs = nn.Linear(config.hidden_size, 2, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
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
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = span_output(output, self.qa_outputs(output.last_hidden_state), start_positions, end_positions)
        return result if wants_dict(self, return_dict) else result.to_tuple()
