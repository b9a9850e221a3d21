"""What the heads of families have in common: from a base model's output and scores to the head's output.

Shapes: B sequences, C choices, T tokens, N labels, E hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from modelwright.core.logging import get_logger
from modelwright.nn.task_losses import (
    last_token_index,
    sequence_classification_loss,
    span_loss,
    token_classification_loss,
)
from modelwright.outputs.model_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)

logger = get_logger(__name__)


def kept(hidden_BTE: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the hidden states of the last `logits_to_keep` tokens (0: all), or of the tokens that it indexes."""
    if isinstance(logits_to_keep, int):
        return hidden_BTE[..., -logits_to_keep:, :] if logits_to_keep else hidden_BTE
    return hidden_BTE[..., logits_to_keep, :]


def sequence_output(
    model: Any, output: Any, logits_BTN: Tensor, input_ids: Tensor | None, labels: Tensor | None
) -> SequenceClassifierOutputWithPast:
    """Return the scores at each row's last token, the last that is not `config.pad_token_id`, and the loss.

    Raises InputError for several rows without a pad id.
    """
    batch, length = logits_BTN.shape[:2]
    pad = model.config.pad_token_id
    if input_ids is None and pad is not None:
        logger.warning_once(
            f"{type(model).__name__}: padding cannot be seen in inputs_embeds, so each row's last position is scored; "
            "pass input_ids, or rows without padding at their end."
        )
    last = last_token_index(input_ids, batch, length, pad).to(logits_BTN.device)
    logits = logits_BTN[torch.arange(batch, device=logits_BTN.device), last]
    return SequenceClassifierOutputWithPast(
        loss=None if labels is None else sequence_classification_loss(logits, labels, model.config.problem_type),
        logits=logits,
        past_key_values=output.past_key_values,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def pooled_output(
    output: Any, logits_BN: Tensor, labels: Tensor | None, problem_type: str | None
) -> SequenceClassifierOutput:
    """Return the scores of each sequence and the loss."""
    return SequenceClassifierOutput(
        loss=None if labels is None else sequence_classification_loss(logits_BN, labels, problem_type),
        logits=logits_BN,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def choice_output(output: Any, logits_BC: Tensor, labels: Tensor | None) -> MultipleChoiceModelOutput:
    """Return the scores of each choice, and with `labels` (B), the right ones, the loss."""
    loss = None
    if labels is not None:
        loss = sequence_classification_loss(logits_BC, labels, "single_label_classification")
    return MultipleChoiceModelOutput(
        loss=loss, logits=logits_BC, hidden_states=output.hidden_states, attentions=output.attentions
    )


def token_output(output: Any, logits_BTN: Tensor, labels: Tensor | None) -> TokenClassifierOutput:
    """Return the scores of each token and the loss."""
    return TokenClassifierOutput(
        loss=None if labels is None else token_classification_loss(logits_BTN, labels),
        logits=logits_BTN,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def span_output(
    output: Any, logits_BT2: Tensor, start_positions: Tensor | None, end_positions: Tensor | None
) -> QuestionAnsweringModelOutput:
    """Return the scores of each token as first and as last of the answer, and with both positions the loss."""
    start, end = (logits.contiguous() for logits in logits_BT2.unbind(dim=-1))
    loss = None
    if start_positions is not None and end_positions is not None:
        loss = span_loss(start, end, start_positions, end_positions)
    return QuestionAnsweringModelOutput(
        loss=loss,
        start_logits=start,
        end_logits=end,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def token_dropout(config: Any) -> float:
    """Return the dropout probability before a token classifier: `classifier_dropout`, `hidden_dropout`, else 0.1."""
    for name in ("classifier_dropout", "hidden_dropout"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    return 0.1
