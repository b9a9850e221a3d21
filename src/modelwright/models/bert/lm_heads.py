"""The heads that BERT is pretrained with: masked and next tokens, next sentences.

Shapes: B batch, T tokens, E hidden size, V vocabulary.
"""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import reject_unknown
from modelwright.core.logging import get_logger
from modelwright.models.bert.backbone import BertWithHead, Device
from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.nn.activations import get_activation
from modelwright.nn.losses import causal_lm_loss
from modelwright.nn.task_losses import sequence_classification_loss, token_classification_loss
from modelwright.outputs.base import ModelOutput
from modelwright.outputs.model_outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    NextSentencePredictorOutput,
)
from modelwright.pretrained.decoding import decoding_inputs
from modelwright.pretrained.switches import wants_dict

logger = get_logger(__name__)
_CLASSES = "single_label_classification"


@dataclass
class BertForPreTrainingOutput(ModelOutput):
    """What `BertForPreTraining` returns: `prediction_logits` (B, T, V) and `seq_relationship_logits` (B, 2)."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class BertPredictionHeadTransform(nn.Module):
    """A projection, the activation and a norm, before the vocabulary is scored."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, **factory)
        self.transform_act_fn = get_activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, **factory)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        hidden: Tensor = self.LayerNorm(self.transform_act_fn(self.dense(hidden_states)))
        return hidden


class BertLMPredictionHead(nn.Module):
    """Scores of the vocabulary; its bias is a parameter under two names, `bias` and `decoder.bias`."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.transform = BertPredictionHeadTransform(config, **factory)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, **factory)
        nn.init.zeros_(self.decoder.bias)
        self._tie_weights()

    def _tie_weights(self) -> None:
        # The decoder's is the one that grows and shrinks with the vocabulary.
        self.bias = self.decoder.bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, V)."""
        scores: Tensor = self.decoder(self.transform(hidden_states))
        return scores


class BertOnlyMLMHead(nn.Module):
    """The scores of the vocabulary alone."""

    def __init__(self, config: BertConfig, **factory: Any) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config, **factory)

    def forward(self, sequence_output: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, V)."""
        scores: Tensor = self.predictions(sequence_output)
        return scores


class BertOnlyNSPHead(nn.Module):
    """The scores of "the second sentence follows" and "it does not" alone."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.seq_relationship = nn.Linear(config.hidden_size, 2, device=device, dtype=dtype)

    def forward(self, pooled_output: Tensor) -> Tensor:
        """(B, E) -> (B, 2)."""
        scores: Tensor = self.seq_relationship(pooled_output)
        return scores


class BertPreTrainingHeads(nn.Module):
    """Both."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(config, device=device, dtype=dtype)
        self.seq_relationship = nn.Linear(config.hidden_size, 2, device=device, dtype=dtype)

    def forward(self, sequence_output: Tensor, pooled_output: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E) and (B, E) -> (B, T, V) and (B, 2)."""
        return self.predictions(sequence_output), self.seq_relationship(pooled_output)


class _BertWithLMHead(BertWithHead):
    """A BERT whose word embeddings also score the vocabulary."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        r"cls\.predictions\.decoder\.weight": "bert.embeddings.word_embeddings.weight",
        r"cls\.predictions\.decoder\.bias": "cls.predictions.bias",
    }
    cls: BertOnlyMLMHead | BertPreTrainingHeads

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output projection, with its bias."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions._tie_weights()


class BertForPreTraining(_BertWithLMHead):
    """BERT with both heads that it is pretrained with."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.bert = self.backbone_class(config, device=device, dtype=dtype)
        self.cls = BertPreTrainingHeads(config, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BertForPreTrainingOutput | tuple[Any, ...]:
        """Return both logits, and with `labels` (B, T) and `next_sentence_label` (B) the sum of their losses.

        Labels of -100 do not count; next sentence 0 follows, 1 does not. The rest is as in `BertModel.forward`.
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
        words, follows = self.cls(output.last_hidden_state, output.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = token_classification_loss(words, labels)
            loss = loss + sequence_classification_loss(follows, next_sentence_label, _CLASSES)
        result = BertForPreTrainingOutput(
            loss=loss,
            prediction_logits=words,
            seq_relationship_logits=follows,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class BertLMHeadModel(_BertWithLMHead):
    """BERT as a language model: scores of each next token. The config needs `is_decoder=True` for that."""

    _supports_generation_cache = True
    _shares_source = True

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning_once(
                "BertLMHeadModel: config.is_decoder is False, so each token sees those after it; set it to True for a "
                "language model that predicts the next token."
            )
        self.bert = self.backbone_class(config, add_pooling_layer=False, device=device, dtype=dtype)
        self.cls = BertOnlyMLMHead(config, device=device, dtype=dtype)
        self.post_init()

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
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """Return logits (B, T, V), and with `labels` (B, T) the loss and no cache.

        Labels are shifted here: pass the ids; -100 does not count. The rest is as in `BertModel.forward`.
        """
        output = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cache_position=cache_position,
        )
        logits = self.cls(output.last_hidden_state)
        result = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else causal_lm_loss(logits, labels),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()

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
        return decoding_inputs(
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


class BertForMaskedLM(_BertWithLMHead):
    """BERT that scores the vocabulary at each place, for tokens that are masked."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        if config.is_decoder:
            logger.warning_once(
                "BertForMaskedLM: config.is_decoder is True, so no token sees those after it; set it to False for "
                "attention to both sides."
            )
        self.bert = self.backbone_class(config, add_pooling_layer=False, device=device, dtype=dtype)
        self.cls = BertOnlyMLMHead(config, device=device, dtype=dtype)
        self.post_init()

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
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Return logits (B, T, V), and with `labels` (B, T) the loss; -100 does not count."""
        output = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.cls(output.last_hidden_state)
        result = MaskedLMOutput(
            loss=None if labels is None else token_classification_loss(logits, labels),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class BertForNextSentencePrediction(BertWithHead):
    """BERT that tells whether the second of two sentences follows the first."""

    def __init__(self, config: BertConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.bert = self.backbone_class(config, device=device, dtype=dtype)
        self.cls = BertOnlyNSPHead(config, device=device, dtype=dtype)
        self.post_init()

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
        **kwargs: Any,
    ) -> NextSentencePredictorOutput | tuple[Any, ...]:
        """Return logits (B, 2), and with `labels` (B) the loss: 0 follows, 1 does not.

        `next_sentence_label` is the older name of `labels`.
        """
        reject_unknown("BertForNextSentencePrediction.forward", kwargs, ("next_sentence_label",))
        if "next_sentence_label" in kwargs:
            warnings.warn("next_sentence_label is the older name of labels; pass labels", FutureWarning, stacklevel=2)
            labels = kwargs["next_sentence_label"]
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
        logits = self.cls(output.pooler_output)
        result = NextSentencePredictorOutput(
            loss=None if labels is None else sequence_classification_loss(logits, labels, _CLASSES),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()
