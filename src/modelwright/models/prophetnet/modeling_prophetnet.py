"""ProphetNet that writes text, as encoder and decoder or as a decoder alone, and all classes of the folder.

Legend: B batch, T decoder tokens, S encoder tokens, G predict streams, E hidden size, V vocabulary.
"""

import copy
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.attention.caches import as_cache
from modelwright.attention.packing import leaving_out_padding, works_token_by_token
from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.models.prophetnet.backbone import ProphetNetDecoderWrapper, ProphetNetModel
from modelwright.models.prophetnet.base import Device, ProphetNetPreTrainedModel, config_alone
from modelwright.models.prophetnet.configuration_prophetnet import TRANSFORMERS, ProphetNetConfig
from modelwright.models.prophetnet.decoder import ProphetNetDecoder
from modelwright.models.prophetnet.encoder import ProphetNetEncoder
from modelwright.models.prophetnet.layers import (
    ProphetNetAttention,
    ProphetNetDecoderLayer,
    ProphetNetEncoderLayer,
    ProphetNetFeedForward,
)
from modelwright.models.prophetnet.ngram_attention import ProphetNetNgramSelfAttention
from modelwright.models.prophetnet.outputs import (
    ProphetNetDecoderLMOutput,
    ProphetNetDecoderModelOutput,
    ProphetNetSeq2SeqLMOutput,
    ProphetNetSeq2SeqModelOutput,
)
from modelwright.models.prophetnet.positions import ProphetNetPositionalEmbeddings
from modelwright.nn.decode_layout import RowLinear, apply_linear, is_hooked
from modelwright.nn.losses import linear_cross_entropy
from modelwright.nn.precision import at_least_float32
from modelwright.nn.tied_table import TiedTable, tied_table
from modelwright.nn.tracing import is_tracing
from modelwright.placement.offload import at_hand
from modelwright.pretrained.bad_inputs import FAILURES
from modelwright.pretrained.switches import wants_dict

logger = get_logger(__name__)

__all__ = [
    "ProphetNetAttention",
    "ProphetNetDecoder",
    "ProphetNetDecoderLMOutput",
    "ProphetNetDecoderLayer",
    "ProphetNetDecoderModelOutput",
    "ProphetNetDecoderWrapper",
    "ProphetNetEncoder",
    "ProphetNetEncoderLayer",
    "ProphetNetFeedForward",
    "ProphetNetForCausalLM",
    "ProphetNetForConditionalGeneration",
    "ProphetNetModel",
    "ProphetNetNgramSelfAttention",
    "ProphetNetPositionalEmbeddings",
    "ProphetNetPreTrainedModel",
    "ProphetNetSeq2SeqLMOutput",
    "ProphetNetSeq2SeqModelOutput",
]


class _WithHead(ProphetNetPreTrainedModel):
    """A model whose predict streams score the vocabulary, each by its own states, all by one projection."""

    _supports_generation_cache = True
    _supports_cache_objects = True
    lm_head: nn.Linear

    @property
    def disable_ngram_loss(self) -> bool:
        """Whether the loss is the first stream's only, as the config says."""
        return bool(self.config.disable_ngram_loss)

    @disable_ngram_loss.setter
    def disable_ngram_loss(self, value: bool) -> None:
        self.config.disable_ngram_loss = value

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output projection."""
        self.lm_head = new_embeddings

    def _draft_keywords(self) -> dict[str, Any]:
        """Return the keyword that adds the second stream; raise InputError for a config that rules drafts out."""
        if self.config.ngram < 2:
            raise InputError(
                f"generate: speculative_ngram=True needs a second predict stream, but {type(self).__name__} was made "
                f"with config.ngram={self.config.ngram}; leave it out"
            )
        if self.config.relative_bias_layout == TRANSFORMERS:
            raise InputError(
                f"generate: speculative_ngram=True, but config.relative_bias_layout is {TRANSFORMERS!r}, by which a "
                "call of several tokens scores them otherwise than calls of one; leave it out, or, if the model was "
                "trained so, set config.relative_bias_layout = 'paper'"
            )
        return {"num_streams": 2}

    def _wants_logits(self, labels: Tensor | None, output_logits: bool | None, return_dict: bool | None) -> bool:
        """Tell whether a call returns logits: as asked, else unless it trains and only the loss can matter."""
        if output_logits is not None:
            return output_logits or labels is None
        # In a tuple the place of each item counts.
        if labels is None or not self.training or self.config.training_logits or not wants_dict(self, return_dict):
            return True
        logger.info_once(
            f"{type(self).__name__}: outputs.logits is None in training with labels, which saves memory and time; "
            "config.training_logits = True, or output_logits=True in a call, returns them"
        )
        return False

    def _tied_table(self, labels: Tensor | None, *parts: Any) -> TiedTable | None:
        """Return the head's table if a loss is wanted and all parts look up in it; rows can be given to them then.

        Their hooks, and those of the model around them, expect to see the ids.
        """
        if labels is None or any(map(is_hooked, (self.base_model, *parts))):
            return None
        return tied_table(self.lm_head, *(part.word_embeddings for part in parts))

    @staticmethod
    def _looked_up(
        table: TiedTable | None, part: Any, input_ids: Tensor | None, inputs_embeds: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the ids' rows of the table in their place; what fits no call stays for the part to refuse."""
        if table is not None and isinstance(input_ids, Tensor) and input_ids.dim() == 2 and inputs_embeds is None:
            with suppress(*FAILURES):
                return None, table.rows(input_ids, part.word_embeddings.padding_idx)
        return input_ids, inputs_embeds

    def _scores(self, streams_BQE: Tensor, tokens: int) -> tuple[Tensor, Tensor | None]:
        """Return the logits (B, T, V) of the first stream, and those of the others, (B, G - 1, T, V), if there are."""
        B, _, E = streams_BQE.shape
        logits_BGTV = apply_linear(self.lm_head, streams_BQE.reshape(B, -1, tokens, E))
        return logits_BGTV[:, 0], logits_BGTV[:, 1:] if logits_BGTV.shape[1] > 1 else None

    def _loss(self, streams_BQE: Tensor, labels_BT: Tensor, tokens: int, table: TiedTable | None) -> Tensor:
        """Return the mean cross-entropy of all streams, or of the first; each predicts the same labels.

        `table` is the head's, where it is tied. `config.eps` of a label's weight is spread over the vocabulary. Raises
        InputError for labels of another shape.
        """
        B, _, E = streams_BQE.shape
        if tuple(labels_BT.shape) != (B, tokens):
            raise InputError(
                f"{type(self).__name__}: expected labels of the same shape as the decoder's inputs, ({B}, {tokens}), "
                f"got {tuple(labels_BT.shape)}; without decoder_input_ids the inputs are made of the labels"
            )
        streams_BGTE = streams_BQE.reshape(B, -1, tokens, E)
        if self.disable_ngram_loss:
            streams_BGTE = streams_BGTE[:, :1]
        labels_BGT = labels_BT.to(streams_BGTE.device)[:, None].expand(streams_BGTE.shape[:3])
        head: Any = self.lm_head  # whatever somebody has put there
        streams_RE, labels_R = streams_BGTE.reshape(-1, E), labels_BGT.reshape(-1)
        if type(head) not in (nn.Linear, RowLinear) or "weight" not in head._parameters or head.bias is not None:
            # An adapter, a quantised or a pruned head, or one with a bias is more than the product with its weight.
            scores_RV = at_least_float32(apply_linear(head, streams_RE))
            return F.cross_entropy(scores_RV, labels_R, label_smoothing=self.config.eps)
        with at_hand(head):
            weight = head.weight if table is None else table.weight
            return linear_cross_entropy(streams_RE, weight, labels_R, label_smoothing=self.config.eps)


class ProphetNetForConditionalGeneration(_WithHead):
    """ProphetNet with a language model head: scores of the next tokens of the second text, given the first.

    The first predict stream scores each next token, the others those behind it.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "prophetnet.encoder.word_embeddings.weight": "prophetnet.word_embeddings.weight",
        "prophetnet.decoder.word_embeddings.weight": "prophetnet.word_embeddings.weight",
        "lm_head.weight": "prophetnet.word_embeddings.weight",
    }
    _shares_source = True

    def __init__(self, config: ProphetNetConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        self.prophetnet = ProphetNetModel(config, device=device, dtype=dtype)
        self.padding_idx = config.pad_token_id
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=device, dtype=dtype)
        self.post_init()

    def get_encoder(self) -> ProphetNetEncoder:
        """Return the encoder."""
        return self.prophetnet.encoder

    def get_decoder(self) -> ProphetNetDecoder:
        """Return the decoder."""
        return self.prophetnet.decoder

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
        *,
        num_streams: int | None = None,
        output_logits: bool | None = None,
    ) -> ProphetNetSeq2SeqLMOutput | tuple[Any, ...]:
        """Return logits (B, T, V) and (B, G - 1, T, V), and with `labels` (B, T) the loss; -100 does not count.

        Labels are the text as it is, with its end token: without `decoder_input_ids` and `decoder_inputs_embeds` the
        decoder's inputs are made of them. All streams learn them, so none is shifted. The rest is as in
        `ProphetNetModel.forward`. `torch.export` knows no cache as an output: export with `use_cache=False`.

        num_streams: how many predict streams to compute; None is all. The loss is that of these.
        output_logits: None leaves them out in training mode with labels (unless `return_dict` is False or
            `config.training_logits` True), which saves memory and a quarter of the head's time; True returns them.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(labels)
        given: Any = decoder_inputs_embeds if decoder_input_ids is None else decoder_input_ids
        table = self._tied_table(labels, self.prophetnet.encoder, self.prophetnet.decoder)
        if encoder_outputs is None:
            input_ids, inputs_embeds = self._looked_up(table, self.prophetnet.encoder, input_ids, inputs_embeds)
        target = (decoder_input_ids, decoder_inputs_embeds)
        decoder_input_ids, decoder_inputs_embeds = self._looked_up(table, self.prophetnet.decoder, *target)
        wants_logits = self._wants_logits(labels, output_logits, return_dict)
        with self._without_padding(wants_logits, output_hidden_states):
            output = self.prophetnet(
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
                # A loss is of a whole text, whose cache nobody goes on from.
                use_cache=False if labels is not None and use_cache is None else use_cache,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
                cache_position=cache_position,
                num_streams=num_streams,
                with_main_states=False,
            )
        streams, T = output.last_hidden_state_ngram, given.shape[1]
        result = ProphetNetSeq2SeqLMOutput(
            loss=None if labels is None else self._loss(streams, labels, T, table),
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.decoder_hidden_states,
            decoder_ngram_hidden_states=output.decoder_ngram_hidden_states,
            decoder_attentions=output.decoder_attentions,
            decoder_ngram_attentions=output.decoder_ngram_attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=output.encoder_last_hidden_state,
            encoder_hidden_states=output.encoder_hidden_states,
            encoder_attentions=output.encoder_attentions,
        )
        if wants_logits:
            result.logits, result.logits_ngram = self._scores(streams, T)
        return result if wants_dict(self, return_dict) else result.to_tuple()

    def _without_padding(self, wants_logits: bool, output_hidden_states: bool | None) -> AbstractContextManager[None]:
        """Return a context in which the encoder may leave padding out, unless more than the loss can matter."""
        shown = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if (
            wants_logits
            or shown
            or is_tracing()
            or is_hooked(self.prophetnet)
            or not works_token_by_token(self.prophetnet.encoder, in_training=True)
        ):
            return nullcontext()
        return leaving_out_padding()

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
        num_streams: int = 1,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step, given the decoder's ids so far, (B, T).

        `attention_mask` is that of the encoder's text, whose `encoder_outputs` are given. Only the stream that scores
        the next token is computed.
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
            "num_streams": num_streams,
        }


class ProphetNetForCausalLM(_WithHead):
    """The decoder alone with a language model head. It loads from a seq2seq checkpoint, whose encoder it leaves.

    With `config.add_cross_attention` it can attend to the states of an encoder that is not its own.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "prophetnet.decoder.word_embeddings.weight": "prophetnet.word_embeddings.weight",
        "lm_head.weight": "prophetnet.word_embeddings.weight",
    }
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^(prophetnet\.)?encoder\."]
    _scores_unshifted_labels = True
    _shares_source = True

    def __init__(self, config: ProphetNetConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        config = copy.deepcopy(config_alone(config, decoder=True))
        config.is_decoder = True
        super().__init__(config)
        self.prophetnet = ProphetNetDecoderWrapper(config, device=device, dtype=dtype)
        self.padding_idx = config.pad_token_id
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=device, dtype=dtype)
        self.post_init()

    def get_decoder(self) -> ProphetNetDecoder:
        """Return the decoder."""
        return self.prophetnet.decoder

    def set_decoder(self, decoder: ProphetNetDecoder) -> None:
        """Replace the decoder."""
        self.prophetnet.decoder = decoder

    @property
    def _own_encoder_layers(self) -> int:
        return 0

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        *,
        num_streams: int | None = None,
        output_logits: bool | None = None,
    ) -> ProphetNetDecoderLMOutput | tuple[Any, ...]:
        """Return logits (B, T, V) and (B, G - 1, T, V), and with `labels` (B, T) the loss; -100 does not count.

        Labels are not shifted here: that of a token is the one that follows it. `num_streams` and `output_logits` are
        as in `ProphetNetForConditionalGeneration.forward`, the rest as in `ProphetNetDecoder.forward`.
        """
        given: Any = inputs_embeds if input_ids is None else input_ids
        decoder = self.prophetnet.decoder
        table = self._tied_table(labels, decoder)
        input_ids, inputs_embeds = self._looked_up(table, decoder, input_ids, inputs_embeds)
        output = decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            head_mask=head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cache_position=cache_position,
            num_streams=num_streams,
            with_main_states=False,
        )
        streams, T = output.last_hidden_state_ngram, given.shape[1]
        result = ProphetNetDecoderLMOutput(
            loss=None if labels is None else self._loss(streams, labels, T, table),
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            hidden_states_ngram=output.hidden_states_ngram,
            attentions=output.attentions,
            ngram_attentions=output.ngram_attentions,
            cross_attentions=output.cross_attentions,
        )
        if self._wants_logits(labels, output_logits, return_dict):
            result.logits, result.logits_ngram = self._scores(streams, T)
        return result if wants_dict(self, return_dict) else result.to_tuple()

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        use_cache: bool | None = None,
        num_streams: int = 1,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step, given all ids so far, (B, T); `kwargs` go on to the call."""
        past_key_values = as_cache(past_key_values)
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {
            "input_ids": input_ids[:, past:],
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "head_mask": head_mask,
            "use_cache": use_cache,
            "num_streams": num_streams,
            **kwargs,
        }
