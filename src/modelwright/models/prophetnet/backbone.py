"""ProphetNet without a head: encoder and decoder, or the decoder in the place where a seq2seq checkpoint has it.

Legend: B batch, T decoder tokens, S encoder tokens, G predict streams, E hidden size, H heads, L layers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.models.prophetnet.base import Device, ProphetNetPreTrainedModel, config_alone, part_config
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.decoder import ProphetNetDecoder
from modelwright.models.prophetnet.encoder import ProphetNetEncoder
from modelwright.models.prophetnet.outputs import ProphetNetSeq2SeqModelOutput
from modelwright.pretrained.decoding import source_outputs
from modelwright.pretrained.switches import wants_dict


class ProphetNetModel(ProphetNetPreTrainedModel):
    """Two texts to the states of the second, of its main stream and of those that predict. Source: Qi et al. 2020."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "encoder.word_embeddings.weight": "word_embeddings.weight",
        "decoder.word_embeddings.weight": "word_embeddings.weight",
    }

    def __init__(self, config: ProphetNetConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id, **factory
        )
        self.encoder = ProphetNetEncoder(part_config(config, decoder=False), self.word_embeddings, **factory)
        self.decoder = ProphetNetDecoder(part_config(config, decoder=True), self.word_embeddings, **factory)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings, which encoder and decoder share."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the encoder and of the decoder."""
        self.word_embeddings = value  # type: ignore[assignment]
        self.encoder.set_input_embeddings(value)
        self.decoder.set_input_embeddings(value)

    def get_encoder(self) -> ProphetNetEncoder:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> ProphetNetDecoder:
        """Return the decoder."""
        return self.decoder

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        first = self.config.num_encoder_layers
        self.encoder.prune_heads({number: heads for number, heads in heads_to_prune.items() if number < first})
        self.decoder.prune_heads({number - first: heads for number, heads in heads_to_prune.items() if number >= first})

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
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        *,
        num_streams: int | None = None,
        with_main_states: bool = True,
    ) -> ProphetNetSeq2SeqModelOutput | tuple[Any, ...]:
        """Return the decoder's states (B, T, E) and (B, G * T, E), its cache and the encoder's states (B, S, E).

        Encoder: `input_ids` (B, S) or `inputs_embeds`, `attention_mask` (B, S), `head_mask` (H,) or (L, H); or instead
        its `encoder_outputs`, whose first entry is (B, S, E). The rest is as in `ProphetNetDecoder.forward`, where
        `decoder_` stands before what both have. Raises InputError for inputs that do not fit.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise InputError(
                f"{type(self).__name__}: the decoder has no inputs: pass decoder_input_ids or decoder_inputs_embeds, "
                "or labels to a model with a head, which makes them of these"
            )
        wanted: dict[str, Any] = {
            "output_attentions": self.config.output_attentions if output_attentions is None else output_attentions,
            "output_hidden_states": (
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
            "return_dict": True,
        }
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                head_mask=head_mask,
                inputs_embeds=inputs_embeds,
                **wanted,
            )
        else:
            encoder_outputs = source_outputs(self, encoder_outputs, self.config.hidden_size)
        output = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=self.config.use_cache if use_cache is None else use_cache,
            cache_position=cache_position,
            num_streams=num_streams,
            with_main_states=with_main_states,
            **wanted,
        )
        result = ProphetNetSeq2SeqModelOutput(
            last_hidden_state=output.last_hidden_state,
            last_hidden_state_ngram=output.last_hidden_state_ngram,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
            decoder_ngram_hidden_states=output.hidden_states_ngram,
            decoder_attentions=output.attentions,
            decoder_ngram_attentions=output.ngram_attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )
        return result if wants_dict(self, return_dict) else result.to_tuple()


class ProphetNetDecoderWrapper(ProphetNetPreTrainedModel):
    """The decoder under the names that a seq2seq checkpoint has for it, so that this loads without its encoder."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"decoder.word_embeddings.weight": "word_embeddings.weight"}

    def __init__(self, config: ProphetNetConfig, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        config = config_alone(config, decoder=True)
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id, **factory
        )
        self.decoder = ProphetNetDecoder(config, self.word_embeddings, **factory)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.word_embeddings = value  # type: ignore[assignment]
        self.decoder.set_input_embeddings(value)

    @property
    def _own_encoder_layers(self) -> int:
        return 0

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        self.decoder._prune_heads(heads_to_prune)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the decoder."""
        return self.decoder(*args, **kwargs)
