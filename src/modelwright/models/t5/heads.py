"""The heads on T5 that do not write text: classifiers of sequences and tokens, question answering.

Shapes: B batch, T tokens, E hidden size, N labels.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.models.t5.backbone import TIED, T5EncoderModel, T5Model, T5WithStacks
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.feed_forward import T5ClassificationHead
from modelwright.models.t5.stack import Device, T5PreTrainedModel
from modelwright.nn.task_losses import sequence_classification_loss, span_loss
from modelwright.outputs.model_outputs import (
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
    TokenClassifierOutput,
)
from modelwright.pretrained.switches import wants_dict
from modelwright.pretrained.task_heads import token_output


class T5ForSequenceClassification(T5PreTrainedModel):
    """T5 that scores the labels of a text by the decoder's state at its last end token."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {f"transformer.{a}": f"transformer.{b}" for a, b in TIED.items()}

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.transformer = T5Model(config, device=device, dtype=dtype)
        self.classification_head = T5ClassificationHead(config, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqSequenceClassifierOutput | tuple[Any, ...]:
        """Return logits (B, N) and with `labels` the loss, by `config.problem_type` or what the labels are.

        The decoder reads the text again, shifted, unless it is given inputs of its own. Raises InputError without
        `input_ids`, in which the end tokens are looked for, for rows with different numbers of these, and for
        decoder inputs of another shape.
        """
        if input_ids is None:
            raise InputError(
                "T5ForSequenceClassification: expected input_ids, got None: the end tokens, where the text is scored, "
                "cannot be seen in inputs_embeds"
            )
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(input_ids)
        output = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            head_mask=head_mask,
            decoder_head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=False if labels is not None else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        states = output.last_hidden_state
        if states.shape[:2] != input_ids.shape:
            raise InputError(
                "T5ForSequenceClassification: the decoder's state at the end token of input_ids is scored, so its "
                f"inputs must have the same shape {tuple(input_ids.shape)}, got {tuple(states.shape[:2])}"
            )
        last_B = _last_end_token(input_ids, self.config.eos_token_id).to(states.device)
        rows_B = torch.arange(len(last_B), device=last_B.device)
        logits = self.classification_head(states[rows_B, last_B])
        loss = None if labels is None else sequence_classification_loss(logits, labels, self.config.problem_type)
        values = {name: value for name, value in output.items() if name != "last_hidden_state"}
        result = Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **values)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class T5ForTokenClassification(T5PreTrainedModel):
    """T5's encoder that scores the labels of each token."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "transformer.encoder.embed_tokens.weight": "transformer.shared.weight"
    }

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.transformer = T5EncoderModel(config, device=device, dtype=dtype)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Return logits (B, T, N) and with `labels` (B, T) the loss; -100 does not count."""
        output = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        result = token_output(output, self.classifier(self.dropout(output.last_hidden_state)), labels)
        return result if wants_dict(self, return_dict) else result.to_tuple()


class T5ForQuestionAnswering(T5WithStacks):
    """T5 that scores each token of the decoder's text as the first and as the last of an answer."""

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, device=device, dtype=dtype)
        self.model_dim = config.d_model
        self.qa_outputs = nn.Linear(config.d_model, 2, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqQuestionAnsweringModelOutput | tuple[Any, ...]:
        """Return `start_logits` and `end_logits` (B, T), and with both positions (B) the loss.

        The decoder reads the text again, shifted, unless it is given inputs of its own.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise InputError(
                    "T5ForQuestionAnswering: the decoder has no inputs: pass input_ids, which it reads too, or "
                    "decoder_input_ids or decoder_inputs_embeds"
                )
            decoder_input_ids = self._shift_right(input_ids)
        output = self.encode_and_decode(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            head_mask=head_mask,
            decoder_head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache if start_positions is None or end_positions is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        start, end = (scores.contiguous() for scores in self.qa_outputs(output.last_hidden_state).unbind(dim=-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, start_positions, end_positions)
        values = {name: value for name, value in output.items() if name != "last_hidden_state"}
        result = Seq2SeqQuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end, **values)
        return result if wants_dict(self, return_dict) else result.to_tuple()


def _last_end_token(input_ids_BT: Tensor, eos_token_id: Any) -> Tensor:
    """Return the position of each row's last end token, (B,); raise InputError unless all have equally many."""
    ends = torch.tensor(eos_token_id, device=input_ids_BT.device).reshape(-1)
    found_BT = torch.isin(input_ids_BT, ends)
    counts = found_BT.sum(dim=1)
    if not counts[0] or bool((counts != counts[0]).any()):
        raise InputError(
            "T5ForSequenceClassification: expected each row to have the same number of end tokens "
            f"(config.eos_token_id={eos_token_id}), at least one, got {counts.tolist()}"
        )
    positions = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
    return (positions * found_BT).argmax(dim=1)
