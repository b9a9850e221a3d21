"""An encoder and a decoder of any two families as one model that turns a text into another.

    input_ids (B, S) --encoder--> states (B, S, E) --enc_to_dec_proj, if widths differ--> (B, S, D) ---+
    labels (B, T) --shifted right--> decoder_input_ids (B, T) --decoder, which attends to these states +--> (B, T, V)

Shapes: B batch, S source tokens, T target tokens, E and D widths of encoder and decoder, V the decoder's vocabulary.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.models.encoder_decoder.configuration_encoder_decoder import EncoderDecoderConfig
from modelwright.models.encoder_decoder.parts import (
    PARTS,
    check_config,
    check_models,
    load_part,
    make_part,
    settle_config,
    take_keywords,
)
from modelwright.nn.losses import IGNORED, cross_entropy
from modelwright.outputs.model_outputs import Seq2SeqLMOutput
from modelwright.pretrained import pruning
from modelwright.pretrained.decoding import source_outputs
from modelwright.pretrained.modeling import PreTrainedModel
from modelwright.pretrained.quantized import quantize_as_configured
from modelwright.pretrained.switches import wants_dict

Device = torch.device | str | None
# What a step of the decoder gives that `forward` takes under the same name.
_NOT_PREFIXED = ("past_key_values", "use_cache")


@dataclass
class NgramSeq2SeqLMOutput(Seq2SeqLMOutput):
    """A Seq2SeqLMOutput with the scores of a ProphetNet decoder's other streams, `logits_ngram` (B, G - 1, T, V)."""

    logits_ngram: Tensor | None = None


class EncoderDecoderModel(PreTrainedModel):
    """Two models as one: made of a config, or of an `encoder` (without head) and a `decoder` (a language model).

    `model.encoder`, `model.decoder` and their configs `model.config.encoder` and `model.config.decoder` are what they
    are by themselves. The decoder needs cross-attention. States are projected if the widths differ. Raises InputError
    or ConfigError, with what to set, for parts that do not fit.
    Source: Rothe, Narayan and Severyn 2020 (arXiv 1907.12461).
    """

    config_class = EncoderDecoderConfig
    base_model_prefix = "encoder_decoder"
    # Each part is asked whether it runs a kernel.
    _supports_attention_backend = True
    _tied_parts: ClassVar[tuple[str, ...]] = PARTS

    def __init__(
        self,
        config: Any = None,
        encoder: Any = None,
        decoder: Any = None,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        where = type(self).__name__
        config = settle_config(where, config, encoder, decoder)
        check_config(where, config)
        super().__init__(config)
        self.encoder = make_part(where, "encoder", config.encoder, device, dtype) if encoder is None else encoder
        self.decoder = make_part(where, "decoder", config.decoder, device, dtype) if decoder is None else decoder
        check_models(where, self.encoder, self.decoder)
        # A class may keep a copy of the config that it was given; one object says what a part is.
        config.encoder, config.decoder = self.encoder.config, self.decoder.config
        # GPT-2 sees no later tokens whatever its config says; a file says it of every decoder.
        config.decoder.is_decoder = True
        wide, narrow = self.encoder._states_width, config.decoder.hidden_size
        self.enc_to_dec_proj: nn.Linear | None = None
        if wide != narrow and config.decoder.cross_attention_hidden_size is None:
            of_parts = {"device": self.decoder.device, "dtype": self.decoder.dtype}
            self.enc_to_dec_proj = nn.Linear(wide, narrow, **of_parts)
        # Not post_init(): the parts are initialised, or loaded.
        quantize_as_configured(self)
        self.tie_weights()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: Any = None,
        decoder_pretrained_model_name_or_path: Any = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> Self:
        """Return a model of two checkpoints (folders or repositories), in evaluation mode.

        Keywords that begin with `encoder_` or `decoder_` go, without that, to the `from_pretrained` of the part:
        attributes of its config, `config`, `dtype` and so on; `encoder_model` and `decoder_model` are the models
        themselves. `dtype`, `device_map`, `attn_implementation`, `cache_dir`, `token` without a prefix hold for both
        parts; the rest are attributes of the config of the whole (`decoder_start_token_id` too). The decoder's
        checkpoint need not have cross-attention: what it lacks is newly initialised, and must be trained.
        Raises what the parts' `from_pretrained` and this class raise, and UnknownArgumentError.
        """
        where = f"{cls.__name__}.from_encoder_decoder_pretrained"
        for_encoder, for_decoder, whole = take_keywords(where, kwargs)
        encoder = load_part(where, "encoder", encoder_pretrained_model_name_or_path, model_args, for_encoder)
        decoder = load_part(where, "decoder", decoder_pretrained_model_name_or_path, (), for_decoder)
        config = cls.config_class(encoder=encoder.config, decoder=decoder.config, **whole)
        return cls(config, encoder=encoder, decoder=decoder).eval()

    # --- parts ------------------------------------------------------------------------------------------------------

    def get_encoder(self) -> Any:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> Any:
        """Return the decoder, a language model."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings of the encoder."""
        words: nn.Module = self.encoder.get_input_embeddings()
        return words

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the encoder."""
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the layer of the decoder that scores the vocabulary."""
        head: nn.Module | None = self.decoder.get_output_embeddings()
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the layer of the decoder that scores the vocabulary."""
        self.decoder.set_output_embeddings(new_embeddings)

    def tie_weights(self) -> None:
        """Tie what each part ties, and with `config.tie_encoder_decoder` the encoder to the decoder."""
        for name in PARTS:
            getattr(self, name).tie_weights()
        super().tie_weights()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Give both parts a vocabulary of `new_num_tokens`, as for one tokenizer; return the encoder's embeddings.

        Where encoder and decoder have tokenizers of their own, call the method of `model.encoder` or `model.decoder`.
        The rest is as in `PreTrainedModel.resize_token_embeddings`.
        """
        sizes = (new_num_tokens, pad_to_multiple_of, mean_resizing)
        words: nn.Embedding = self.encoder.resize_token_embeddings(*sizes)
        self.decoder.resize_token_embeddings(*sizes)
        self.tie_weights()
        return words

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Take attention heads out of both parts: {layer: heads}, the decoder's layers counted after the encoder's.

        The configs of the parts note them. With `config.tie_encoder_decoder` a head of one is a head of the other. The
        rest is as in `PreTrainedModel.prune_heads`.
        """
        first = pruning.layer_count(self.encoder)
        for_encoder = {layer: heads for layer, heads in heads_to_prune.items() if layer < first}
        for_decoder = {layer - first: heads for layer, heads in heads_to_prune.items() if layer >= first}
        if self.config.tie_encoder_decoder:
            for_encoder = for_decoder = {
                layer: {*for_encoder.get(layer, ()), *for_decoder.get(layer, ())}
                for layer in for_encoder.keys() | for_decoder.keys()
            }
        pruning.check_heads(f"{type(self).__name__}.prune_heads", self.decoder, for_decoder)
        self.encoder.prune_heads(for_encoder)
        self.decoder.prune_heads(for_decoder)
        self.tie_weights()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model accepts."""
        ids = torch.tensor([[2, 3, 4, 1], [4, 2, 3, 1]])
        return {"input_ids": ids, "decoder_input_ids": ids}

    @property
    def _placement_refusal(self) -> str | None:
        refusals = (getattr(self, part)._placement_refusal for part in PARTS)
        return next((refusal for refusal in refusals if refusal is not None), None)

    @property
    def _no_split_modules(self) -> list[str] | None:
        # Only where both parts say what must stay whole can the pair be split.
        found = [getattr(self, part)._no_split_modules for part in PARTS]
        return None if None in found else [name for names in found for name in names]

    @property
    def _keys_to_ignore_on_load_missing(self) -> list[str]:
        return self._patterns("_keys_to_ignore_on_load_missing")

    @property
    def _keys_to_ignore_on_load_unexpected(self) -> list[str]:
        return self._patterns("_keys_to_ignore_on_load_unexpected")

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        return [f"{part}.{name}" for part in PARTS for name in getattr(self, part)._keys_to_ignore_on_save or ()]

    def _patterns(self, attribute: str) -> list[str]:
        """Return the regular expressions that the classes of the parts have under this name, for names of the whole."""
        return [
            rf"^{part}\.{pattern[1:]}" if pattern.startswith("^") else rf"^{part}\..*(?:{pattern})"
            for part in PARTS
            for pattern in getattr(getattr(self, part), attribute) or ()
        ]

    # --- a call -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Return logits (B, T, V), and with `labels` (B, T) the loss; -100 does not count.

        Labels are the text as it is: without `decoder_input_ids` and `decoder_inputs_embeds` the decoder's inputs are
        made of them, with a mask that leaves padding out. `encoder_outputs` spare the encoder. Other keywords go to
        the encoder, those that begin with `decoder_` to the decoder without that. The loss is the cross-entropy of the
        labels as they stand or, with `config.decoder_ngram_loss`, the decoder's own if it scores them so.
        Raises InputError for ids, labels and special ids that do not fit, UnknownArgumentError for other keywords.
        """
        for_encoder, for_decoder = self._keywords_of_parts(kwargs)
        wanted = self._wanted(output_attentions, output_hidden_states)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                **wanted,
                **for_encoder,
            )
        else:
            encoder_outputs = source_outputs(self, encoder_outputs, self.encoder._states_width)
        if labels is not None:
            given = decoder_inputs_embeds if decoder_input_ids is None else decoder_input_ids
            if given is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
                if decoder_attention_mask is None:
                    decoder_attention_mask = self._mask_of(decoder_input_ids)
            else:
                self._check_labels(labels, given)
            if self.config.decoder_ngram_loss and self.decoder._scores_unshifted_labels:
                for_decoder["labels"] = labels
                known = inspect.signature(self.decoder.forward).parameters
                if "output_logits" in known and not wants_dict(self, return_dict):
                    # In a tuple the place of each item counts, so training must not leave the logits out.
                    for_decoder.setdefault("output_logits", True)
        output = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=self._projected(encoder_outputs[0], past_key_values),
            encoder_attention_mask=attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **wanted,
            **for_decoder,
        )
        loss = output.loss
        if labels is not None and loss is None:
            loss = cross_entropy(output.logits.flatten(0, 1), labels.flatten())
        if not wants_dict(self, return_dict):
            output.loss = None
            return (*(() if loss is None else (loss,)), *output.to_tuple(), *encoder_outputs.to_tuple())
        return NgramSeq2SeqLMOutput(
            loss=loss,
            logits=output.logits,
            logits_ngram=output.get("logits_ngram"),
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
        )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the inputs of the decoder for `labels` (B, T): the start id before them, the last one left out.

        -100 becomes the padding id. Raises InputError if the configs lack the start id or the padding id.
        """
        pad, start = self._special_id("pad_token_id"), self._special_id("decoder_start_token_id", "bos_token_id")
        shifted = F.pad(labels[:, :-1], (1, 0), value=start)
        return shifted.masked_fill(shifted == IGNORED, pad)

    def _mask_of(self, decoder_input_ids: Tensor) -> Tensor:
        """Return the mask (B, T) of inputs that were made of labels: False where there is padding."""
        mask = decoder_input_ids != self._special_id("pad_token_id")
        # The start token may be the padding token, and counts all the same.
        mask[:, 0] = True
        return mask

    def _check_labels(self, labels: Tensor, inputs: Tensor) -> None:
        if inputs.shape[:2] != labels.shape:
            raise InputError(
                f"{type(self).__name__}: expected labels of the shape of the decoder's inputs, "
                f"{tuple(inputs.shape[:2])}, got {tuple(labels.shape)}; leave the inputs out, and they are made of the "
                "labels"
            )

    def _special_id(self, *names: str) -> int:
        """Return the first of these special ids that the config or that of the decoder has."""
        found = (self.config.special_id(name) for name in names)
        value = next((each for each in found if each is not None), None)
        if value is None:
            raise InputError(
                f"{type(self).__name__}: the inputs of the decoder are made of labels by means of "
                f"config.{names[0]}, which is None, in config.decoder too; set model.config.{names[0]}, such as "
                f"{_EXAMPLES[names[0]]}, or pass decoder_input_ids"
            )
        return int(value)

    def _projected(self, states: Tensor, past_key_values: Any) -> Tensor:
        """Return the encoder's states (B, S, D) for the decoder."""
        # A cache that has keys and values of them is why a decoder looks at no more than their number.
        held = any(getattr(past_key_values, "is_updated", {}).values())
        if self.enc_to_dec_proj is None or held:
            return states
        projected: Tensor = self.enc_to_dec_proj(states)
        return projected

    def _wanted(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, Any]:
        """Return the switches of both parts: the caller's, else True if this config says so, else what theirs say."""
        config = self.config
        return {
            "output_attentions": (config.output_attentions or None) if output_attentions is None else output_attentions,
            "output_hidden_states": (config.output_hidden_states or None)
            if output_hidden_states is None
            else output_hidden_states,
            "return_dict": True,
        }

    def _keywords_of_parts(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the other keywords of a call for the encoder, and those for the decoder without their prefix."""
        for_encoder: dict[str, Any] = {}
        for_decoder: dict[str, Any] = {}
        for name, value in kwargs.items():
            own = name.removeprefix("decoder_")
            part, into = (self.encoder, for_encoder) if own == name else (self.decoder, for_decoder)
            known = inspect.signature(part.forward).parameters
            if own not in known and not any(each.kind is each.VAR_KEYWORD for each in known.values()):
                raise UnknownArgumentError(
                    f"{type(self).__name__} got an unknown keyword {name!r}: {type(part).__name__} takes no {own!r}."
                    f"{nearest(own, known)}"
                )
            into[own] = value
        return for_encoder, for_decoder

    # --- generation -------------------------------------------------------------------------------------------------

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        use_cache: bool | None = None,
    ) -> dict[str, Any]:
        """Return the keywords of one decoding step, given the decoder's ids so far, (B, T); the decoder decides.

        `attention_mask` is that of the encoder's text, whose `encoder_outputs` are given.
        """
        step = self.decoder.prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=decoder_attention_mask,
            use_cache=use_cache,
        )
        named = {name if name in _NOT_PREFIXED else f"decoder_{name}": value for name, value in step.items()}
        return {**named, "encoder_outputs": encoder_outputs, "attention_mask": attention_mask}

    @property
    def _supports_generation_cache(self) -> bool:  # type: ignore[override]
        return bool(self.decoder._keeps_a_cache())

    @property
    def _supports_cache_objects(self) -> bool:  # type: ignore[override]
        return bool(self.decoder._supports_cache_objects)

    @property
    def _shares_source(self) -> bool:  # type: ignore[override]
        return bool(self.decoder._shares_source)

    def _can_repeat_cache(self) -> bool:
        return bool(self.decoder._can_repeat_cache())

    def _reorder_cache(self, past_key_values: Any, beam_idx: Tensor) -> Any:
        return self.decoder._reorder_cache(past_key_values, beam_idx)

    def _new_static_cache(self, tokens: int) -> Any:
        return self.decoder._new_static_cache(tokens)

    def _draft_keywords(self) -> dict[str, Any]:
        return {f"decoder_{name}": value for name, value in self.decoder._draft_keywords().items()}

    def _position_limit(self) -> int | None:
        limit: int | None = self.decoder._position_limit()
        return limit


_EXAMPLES = {
    "decoder_start_token_id": "tokenizer.cls_token_id for BERT",
    "pad_token_id": "tokenizer.pad_token_id, or tokenizer.eos_token_id where there is no padding token",
}
