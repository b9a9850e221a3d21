"""T5 that writes text, and, at the place where 4.x code looks for them, the classes of the whole folder.

Shapes: B batch, T tokens, S tokens of the encoder, E hidden size, V vocabulary.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import as_cache
from modelwright.models.t5.attention import T5Attention, T5Block, T5LayerCrossAttention, T5LayerSelfAttention
from modelwright.models.t5.backbone import TIED, T5EncoderModel, T5Model, T5WithStacks
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.feed_forward import (
    T5ClassificationHead,
    T5DenseActDense,
    T5DenseGatedActDense,
    T5LayerFF,
    T5LayerNorm,
)
from modelwright.models.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from modelwright.models.t5.stack import Device, T5PreTrainedModel, T5Stack
from modelwright.nn.decode_layout import apply_linear
from modelwright.nn.losses import cross_entropy
from modelwright.outputs.model_outputs import Seq2SeqLMOutput
from modelwright.pretrained.switches import wants_dict

__all__ = [
    "T5Attention",
    "T5Block",
    "T5ClassificationHead",
    "T5DenseActDense",
    "T5DenseGatedActDense",
    "T5EncoderModel",
    "T5ForConditionalGeneration",
    "T5ForQuestionAnswering",
    "T5ForSequenceClassification",
    "T5ForTokenClassification",
    "T5LayerCrossAttention",
    "T5LayerFF",
    "T5LayerNorm",
    "T5LayerSelfAttention",
    "T5Model",
    "T5PreTrainedModel",
    "T5Stack",
]


class T5ForConditionalGeneration(T5WithStacks):
    """T5 with a language model head: scores of each next token of the second text, given the first.

    With `config.tie_word_embeddings` (T5 v1.0) the embeddings also score the vocabulary, of states scaled by
    `d_model ** -0.5`; without (v1.1) the head has weights of its own.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {**TIED, "lm_head.weight": "shared.weight"}
    _supports_generation_cache = True
    _supports_cache_objects = True
    _shares_source = True

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, device=device, dtype=dtype)
        self.model_dim = config.d_model
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False, device=device, dtype=dtype)
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
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Return logits (B, T, V), and with `labels` (B, T) the loss; -100 does not count.

        Labels are the text as it is, with its end token: without `decoder_input_ids` and `decoder_inputs_embeds` the
        decoder's inputs are made of them. The rest is as in `T5Model.forward`.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(labels)
        output = self.encode_and_decode(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            head_mask=head_mask,
            decoder_head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            cache_position=cache_position,
        )
        hidden = output.last_hidden_state
        assert hidden is not None
        if self.config.tie_word_embeddings:
            hidden = hidden * self.model_dim**-0.5
        logits = apply_linear(self.lm_head, hidden)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        values = {name: value for name, value in output.items() if name != "last_hidden_state"}
        result = Seq2SeqLMOutput(loss=loss, logits=logits, **values)
        return result if wants_dict(self, return_dict) else result.to_tuple()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the inputs of the decoder for `labels` (B, T); collators call this."""
        return self._shift_right(labels)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        use_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step, given the decoder's ids so far, (B, T).

        `attention_mask` is that of the encoder's text, whose `encoder_outputs` are given.
        """
        past_key_values = as_cache(past_key_values)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "decoder_input_ids": input_ids[:, past:],
            "past_key_values": past_key_values,
            "encoder_outputs": encoder_outputs,
            "attention_mask": attention_mask,
            "decoder_attention_mask": decoder_attention_mask,
            "head_mask": head_mask,
            "decoder_head_mask": decoder_head_mask,
            "cross_attn_head_mask": cross_attn_head_mask,
            "use_cache": use_cache,
        }

    def _position_limit(self) -> int | None:
        # Relative positions have no table that ends.
        return None
