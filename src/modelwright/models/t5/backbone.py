"""T5 without a head: encoder and decoder, or the encoder alone.

Shapes: B batch, T tokens, S tokens of the encoder, E hidden size, H heads, L layers.
"""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.models.t5.configuration_t5 import T5Config
from modelwright.models.t5.stack import Device, T5PreTrainedModel, T5Stack, stack_config
from modelwright.outputs.model_outputs import BaseModelOutput, Seq2SeqModelOutput
from modelwright.pretrained.decoding import source_outputs
from modelwright.pretrained.switches import wants_dict

TIED = {"encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight"}


class T5WithStacks(T5PreTrainedModel):
    """Word embeddings with an encoder, and a decoder unless a class has none, which share them."""

    _tied_weights_keys: ClassVar[dict[str, str]] = TIED
    _has_decoder: ClassVar[bool] = True

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.shared = nn.Embedding(config.vocab_size, config.d_model, **factory)
        self.encoder = T5Stack(stack_config(config, decoder=False), self.shared, **factory)
        if self._has_decoder:
            self.decoder = T5Stack(stack_config(config, decoder=True), self.shared, **factory)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings, which encoder and decoder share."""
        return self.shared

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the encoder and of the decoder."""
        self.shared = value  # type: ignore[assignment]
        for stack in self._stacks():
            stack.set_input_embeddings(value)

    def get_encoder(self) -> T5Stack:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> T5Stack | None:
        """Return the decoder, or None for a model that is an encoder only."""
        return self.decoder if self._has_decoder else None

    def _stacks(self) -> list[T5Stack]:
        return [self.encoder, self.decoder] if self._has_decoder else [self.encoder]

    def encode_and_decode(
        self,
        *,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        decoder_input_ids: Tensor | None,
        decoder_attention_mask: Tensor | None,
        head_mask: Tensor | None,
        decoder_head_mask: Tensor | None,
        cross_attn_head_mask: Tensor | None,
        encoder_outputs: Any,
        inputs_embeds: Tensor | None,
        decoder_inputs_embeds: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Seq2SeqModelOutput:
        """Run the encoder, unless its outputs are given, and the decoder; documented at `T5Model.forward`."""
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise InputError(
                f"{type(self).__name__}: the decoder has no inputs: pass decoder_input_ids or decoder_inputs_embeds, "
                "or labels to a model with a head, which makes them of these"
            )
        if head_mask is not None and decoder_head_mask is None:
            decoder_head_mask = self._decoder_head_mask(head_mask)
        wanted = self._wanted(output_attentions, output_hidden_states)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                head_mask=head_mask,
                **wanted,
            )
        else:
            encoder_outputs = source_outputs(self, encoder_outputs, self.config.d_model)
        output = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            use_cache=self.config.use_cache if use_cache is None else use_cache,
            cache_position=cache_position,
            **wanted,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _wanted(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, bool]:
        """Return the switches of a stack: where the caller says nothing, this config says it, not the stack's copy."""
        config = self.config
        return {
            "output_attentions": config.output_attentions if output_attentions is None else output_attentions,
            "output_hidden_states": config.output_hidden_states
            if output_hidden_states is None
            else output_hidden_states,
            "return_dict": True,
        }

    def _decoder_head_mask(self, head_mask: Tensor) -> Tensor | None:
        """Return the encoder's head mask for the decoder too, as early 4.x understood it, where the sizes agree."""
        if self.config.num_layers != self.config.num_decoder_layers:
            return None
        warnings.warn(
            f"{type(self).__name__}: head_mask without decoder_head_mask also masks heads of the decoder. Pass "
            "decoder_head_mask too; all ones (layers, heads) masks none.",
            FutureWarning,
            stacklevel=2,
        )
        return head_mask


class T5Model(T5WithStacks):
    """T5 without a head: two texts to the hidden states (B, T, E) of the second. Source: Raffel et al. 2019."""

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, device=device, dtype=dtype)
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
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
    ) -> Seq2SeqModelOutput | tuple[Any, ...]:
        """Return the decoder's hidden states (B, T, E), its cache and the encoder's states (B, S, E).

        Encoder: `input_ids` (B, S) or `inputs_embeds`, `attention_mask` (B, S), `head_mask` (H,) or (L, H); or instead
        its `encoder_outputs`, whose first entry is (B, S, E), or of fewer rows, each for as many of the decoder's that
        follow one another. Decoder: `decoder_input_ids` (B, T) or `decoder_inputs_embeds`, with a cache
        (`past_key_values`, an object or a tuple of pairs or fours) those that it does not hold yet;
        `decoder_attention_mask` covers those that it does; `decoder_head_mask`, and for the attention to the encoder
        `cross_attn_head_mask`. Raises InputError for inputs that do not fit.
        """
        result = self.encode_and_decode(
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
        return result if wants_dict(self, return_dict) else result.to_tuple()


class T5EncoderModel(T5WithStacks):
    """T5's encoder: ids or embeddings to (B, T, E)."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"encoder.embed_tokens.weight": "shared.weight"}
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^decoder\."]
    _has_decoder: ClassVar[bool] = False

    def __init__(self, config: T5Config, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(config, device=device, dtype=dtype)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Return the hidden states (B, T, E) and what else was asked for; the inputs are as in `T5Model.forward`."""
        output = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            **self._wanted(output_attentions, output_hidden_states),
        )
        result = BaseModelOutput(output.last_hidden_state, output.hidden_states, output.attentions)
        return result if wants_dict(self, return_dict) else result.to_tuple()
