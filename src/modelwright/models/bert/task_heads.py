"""The heads that BERT is fine-tuned with: labels of sequences and tokens, choices, spans of answers.

Shapes: B batch, C choices, T tokens, E hidden size, N labels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.models.bert.backbone import BertWithHead, Device
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.outputs.model_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from modelwright.pretrained.switches import wants_dict
from modelwright.pretrained.task_heads import choice_output, pooled_output, span_output, token_output


class _BertForTask(BertWithHead):
    """A BERT with dropout and a linear layer on its pooled vector, or on each token's state."""

    _pooled = True

    def __init__(self, config: BertConfig, num_labels: int, device: Device, dtype: torch.dtype | None) -> None:
        super().__init__(config)
        self.num_labels = num_labels
        self.bert = self.backbone_class(config, add_pooling_layer=self._pooled, device=device, dtype=dtype)
        own = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if own is None else own)
        self.classifier = nn.Linear(config.hidden_size, num_labels, device=device, dtype=dtype)
        self.post_init()


class BertForSequenceClassification(_BertForTask):
    """BERT that scores the labels of a sequence, or of a pair of them."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, config.num_labels, device, dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Return logits (B, N) and with `labels` the loss, by `config.problem_type` or what the labels are."""
        output = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(output.pooler_output))
        result = pooled_output(output, logits, labels, self.config.problem_type)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class BertForMultipleChoice(_BertForTask):
    """BERT that chooses among several continuations, (B, C, T) ids."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, 1, device, dtype)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model accepts."""
        return {name: torch.stack([value, value.flip(0)], dim=1) for name, value in super().dummy_inputs.items()}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MultipleChoiceModelOutput | tuple[Any, ...]:
        """Return logits (B, C) and with `labels` (B), the right choices, the loss. Inputs have a choice axis."""
        shape = (inputs_embeds if input_ids is None else input_ids).shape  # type: ignore[union-attr]
        output = self.bert(
            _rows(input_ids),
            attention_mask=_rows(attention_mask),
            token_type_ids=_rows(token_type_ids),
            position_ids=_rows(position_ids),
            head_mask=head_mask,
            inputs_embeds=_rows(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(output.pooler_output)).view(-1, shape[1])
        result = choice_output(output, logits, labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class BertForTokenClassification(_BertForTask):
    """BERT that scores the labels of each token."""

    _pooled = False

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, config.num_labels, device, dtype)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits (B, T, N) and with `labels` (B, T) the loss; -100 does not count."""
        output = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = token_output(output, self.classifier(self.dropout(output.last_hidden_state)), labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class BertForQuestionAnswering(BertWithHead):
    """BERT that scores each token as the first and as the last of an answer."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.bert = self.backbone_class(config, add_pooling_layer=False, device=device, dtype=dtype)
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
        """Return `start_logits` and `end_logits` (B, T), and with both positions (B) the loss.

        Positions behind the last token do not count.
        """
        output = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = span_output(output, self.qa_outputs(output.last_hidden_state), start_positions, end_positions)
        return result if wants_dict(self, return_dict) else result.to_tuple()


def _rows(choices: Tensor | None) -> Tensor | None:
    """(B, C, ...) -> (B * C, ...)."""
    return None if choices is None else choices.flatten(0, 1)
