"""ProphetNet's decoder: the main stream and the streams that predict, one behind the other along the tokens.

    main      word[t] + position[t]       stream g      ngram[g - 1] + position[t + 1]
      |                                     |
      +------------------+------------------+     (B, (1 + G) * T, E)
                         |
                layer norm, L layers: n-gram self-attention, attention to the encoder, feed-forward

Legend: B batch, T tokens, S encoder tokens, G predict streams that are computed, E hidden size, H heads, L layers.
Source: Qi et al. 2020 (arXiv 2001.04063), section 3.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.caches import as_cache, cache_of_call
from modelwright.attention.shared_source import mask_of_source
from modelwright.checkpoint.names import Rename
from modelwright.core.errors import InputError
from modelwright.models.prophetnet.base import (
    Device,
    ProphetNetPreTrainedModel,
    config_alone,
    given_embeddings,
    prune_decoder,
)
from modelwright.models.prophetnet.configuration_prophetnet import TRANSFORMERS, ProphetNetConfig
from modelwright.models.prophetnet.encoder import NEVER
from modelwright.models.prophetnet.layers import ProphetNetDecoderLayer
from modelwright.models.prophetnet.one_token import plain_step
from modelwright.models.prophetnet.outputs import ProphetNetDecoderModelOutput
from modelwright.models.prophetnet.positions import ProphetNetPositionalEmbeddings
from modelwright.models.prophetnet.streams import Streams, checked_mask
from modelwright.nn.tracing import is_jit_traced
from modelwright.placement.offload import at_hand
from modelwright.pretrained.switches import Switches, embedded, switches_of


class ProphetNetDecoder(ProphetNetPreTrainedModel):
    """The decoder alone. It also loads from a checkpoint of the whole model.

    `word_embeddings` are shared with the caller; without them it has its own.
    """

    _checkpoint_renames: ClassVar[tuple[Rename, ...]] = (
        Rename(r"^(?:prophetnet\.)?decoder\.(?!word_embeddings)", "", inverse=NEVER),
        Rename(r"^prophetnet\.word_embeddings", "word_embeddings", inverse=NEVER),
    )
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^(prophetnet\.)?(decoder\.word_embeddings|encoder)\.",
        r"^lm_head\.",
    ]

    def __init__(
        self,
        config: ProphetNetConfig,
        word_embeddings: nn.Embedding | None = None,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        config = config_alone(config, decoder=True)
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.ngram = config.ngram
        self.word_embeddings = given_embeddings(config, word_embeddings, factory)
        self.position_embeddings = ProphetNetPositionalEmbeddings(config, **factory)
        self.ngram_embeddings = nn.Embedding(config.ngram, config.hidden_size, **factory)
        self.layers = nn.ModuleList(
            ProphetNetDecoderLayer(config, layer_idx=index, **factory) for index in range(config.num_decoder_layers)
        )
        self.embeddings_layer_norm = nn.LayerNorm(config.hidden_size, **factory)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.word_embeddings = value  # type: ignore[assignment]

    @property
    def _own_encoder_layers(self) -> int:
        return 0

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        prune_decoder(self.layers, heads_to_prune)

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
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        *,
        num_streams: int | None = None,
        with_main_states: bool = True,
    ) -> ProphetNetDecoderModelOutput | tuple[Any, ...]:
        """Return the states of the main stream (B, T, E) and of the others (B, G * T, E), the cache, and more if asked.

        `input_ids` (B, T) or `inputs_embeds`, with a cache (`past_key_values`, an object or a tuple of pairs or fours)
        those that it does not hold yet. `attention_mask`, 1 for tokens and 0 for padding, covers those that it does
        too. `encoder_hidden_states` (B, S, E) may have fewer rows, each for as many that follow one another. Head masks
        are (H,) or (L, H).

        num_streams: how many of the predict streams to compute; None is all, `config.ngram`. Decoding needs one.
        with_main_states: False leaves the last states of the main stream out, which nothing but a caller reads; they
            are there all the same if all hidden states or attentions are asked for.

        Raises InputError for inputs that do not fit, and for more tokens than `config.max_position_embeddings`.
        """
        past_key_values = as_cache(past_key_values)
        switches = switches_of(
            self,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            past_key_values=past_key_values,
        )
        hidden = embedded(self, input_ids, inputs_embeds)
        if encoder_hidden_states is not None and not self.config.add_cross_attention:
            raise InputError(
                "ProphetNetDecoder: got encoder_hidden_states, but this decoder was made without attention to an "
                "encoder; set config.add_cross_attention=True when it is made or loaded"
            )
        if switches.recomputes:
            past_key_values = None
        past_key_values = cache_of_call(past_key_values, switches.use_cache, crosses=encoder_hidden_states is not None)
        streams = self._streams(hidden, attention_mask, past_key_values, num_streams)
        call: dict[str, Any] = {
            "streams": streams,
            "past_key_values": past_key_values,
            "cache_position": cache_position,
            "output_attentions": switches.output_attentions,
        }
        words, hidden = hidden, self.dropout(self.embeddings_layer_norm(self._embedded_streams(hidden, streams)))
        step = None
        if encoder_hidden_states is not None:
            source = ("ProphetNetDecoder", self.config, words, encoder_hidden_states, encoder_attention_mask)
            if head_mask is cross_attn_head_mask is None and not _shows_all(switches):
                given = (encoder_hidden_states, encoder_attention_mask, partial(mask_of_source, *source))
                step = plain_step(self.layers, self.config, hidden, streams, past_key_values, *given)
            if step is None:
                call["encoder_hidden_states"] = encoder_hidden_states
                call["encoder_attn_mask"] = mask_of_source(*source)
        if step is None:
            own_masks, cross_masks = (
                self.get_head_mask(each, len(self.layers)) for each in (head_mask, cross_attn_head_mask)
            )
            output = self._run(hidden, switches, (own_masks, cross_masks), call, with_main_states)
        else:
            states = step(with_main_states)
            output = ProphetNetDecoderModelOutput(
                last_hidden_state=states[:, :1] if with_main_states else None,
                last_hidden_state_ngram=states[:, -1:],
                past_key_values=past_key_values if switches.use_cache else None,
            )
        return output if switches.return_dict else output.to_tuple()

    def _streams(
        self, hidden: Tensor, attention_mask: Tensor | None, past_key_values: Any, num_streams: int | None
    ) -> Streams:
        """Return who sees whom in this call; raise InputError for too many tokens or streams."""
        B, T = hidden.shape[:2]
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        longest = self.position_embeddings.num_embeddings
        if not is_jit_traced() and past + T > longest:
            raise InputError(
                f"ProphetNetDecoder: expected at most {longest} tokens, with those of the cache, as "
                f"config.max_position_embeddings says, got {past + T}; cut the text, or call "
                f"model.resize_position_embeddings({past + T})"
            )
        wanted = self.ngram if num_streams is None else num_streams
        if not 1 <= wanted <= self.ngram:
            raise InputError(f"ProphetNetDecoder: expected num_streams from 1 to {self.ngram}, got {num_streams}")
        return Streams(
            tokens=T,
            past=past,
            predict=wanted,
            num_buckets=self.config.num_buckets,
            max_distance=self.config.relative_max_distance,
            mask=checked_mask("ProphetNetDecoder", attention_mask, B, past + T),
            sees_all=self.config.relative_bias_layout == TRANSFORMERS,
            from_first_real=self.config.padding_aware_positions,
            device=hidden.device,
        )

    def _embedded_streams(self, words_BTE: Tensor, streams: Streams) -> Tensor:
        """Return the input of the first layer, (B, (1 + G) * T, E), before it is normalised."""
        table = self.position_embeddings
        counted = streams.mask if self.config.padding_aware_positions else None
        ids = table.position_ids(streams.tokens, streams.past, counted, words_BTE.device)
        ahead = table(ids + 1)
        # The last row is the first stream's, as in fairseq.
        with at_hand(self.ngram_embeddings):
            rows_GE = self.ngram_embeddings.weight
            predict = [(rows_GE[g - 1] + ahead).expand_as(words_BTE) for g in range(streams.predict)]
        return torch.cat([words_BTE + table(ids), *predict], dim=1)

    def _run(
        self,
        hidden: Tensor,
        switches: Switches,
        head_masks: tuple[Any, Any],
        call: dict[str, Any],
        with_main_states: bool,
    ) -> ProphetNetDecoderModelOutput:
        """Run the layers and collect what the switches ask for."""
        T = call["streams"].tokens
        shows_all = _shows_all(switches)
        states, ngram_states = [], []
        weights: list[tuple[Tensor | None, ...]] = []
        for index, (layer, own_mask, cross_mask) in enumerate(zip(self.layers, *head_masks, strict=True)):
            if switches.output_hidden_states:
                states.append(hidden[:, :T])
                ngram_states.append(hidden[:, T:])
            main_asks = with_main_states or shows_all or index < len(self.layers) - 1
            hidden, *others = layer(
                hidden, layer_head_mask=own_mask, cross_attn_layer_head_mask=cross_mask, main_asks=main_asks, **call
            )
            weights.append(tuple(others))
        if switches.output_hidden_states:
            states.append(hidden[:, :T])
            ngram_states.append(hidden[:, T:])
        main, predict = (hidden[:, :T], hidden[:, T:]) if with_main_states or shows_all else (None, hidden)
        attentions, ngram_attentions, cross = zip(*weights, strict=True) if switches.output_attentions else (None,) * 3
        return ProphetNetDecoderModelOutput(
            last_hidden_state=main,
            last_hidden_state_ngram=predict,
            past_key_values=call["past_key_values"] if switches.use_cache else None,
            hidden_states=tuple(states) or None,
            hidden_states_ngram=tuple(ngram_states) or None,
            attentions=attentions,
            ngram_attentions=ngram_attentions,
            cross_attentions=cross if cross and cross[0] is not None else None,
        )


def _shows_all(switches: Switches) -> bool:
    return bool(switches.output_attentions or switches.output_hidden_states)
