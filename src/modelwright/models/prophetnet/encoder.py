"""ProphetNet's encoder. Legend: B batch, T tokens, E hidden size, H heads, L layers."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.attention.masks import create_bidirectional_mask
from modelwright.attention.packing import Unpaddable, packing_of
from modelwright.checkpoint.names import Rename
from modelwright.core.logging import get_logger
from modelwright.models.prophetnet.base import Device, ProphetNetPreTrainedModel, config_alone, given_embeddings
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.layers import ProphetNetEncoderLayer
from modelwright.models.prophetnet.positions import ProphetNetPositionalEmbeddings
from modelwright.models.prophetnet.streams import checked_mask
from modelwright.outputs.model_outputs import BaseModelOutput
from modelwright.pretrained.switches import embedded, switches_of

logger = get_logger(__name__)

# Nothing to undo when a part is saved: it is written under its own names.
NEVER = (r"(?!)", "")


class ProphetNetEncoder(ProphetNetPreTrainedModel, Unpaddable):
    """The encoder alone, ids or embeddings to (B, T, E). It also loads from a checkpoint of the whole model.

    `word_embeddings` are shared with the caller; without them it has its own.
    """

    _checkpoint_renames: ClassVar[tuple[Rename, ...]] = (
        Rename(r"^(?:prophetnet\.)?encoder\.(?!word_embeddings)", "", inverse=NEVER),
        Rename(r"^prophetnet\.word_embeddings", "word_embeddings", inverse=NEVER),
    )
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^(prophetnet\.)?(encoder\.word_embeddings|decoder)\.",
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
        config = config_alone(config, decoder=False)
        super().__init__(config)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.word_embeddings = given_embeddings(config, word_embeddings, factory)
        self.position_embeddings = ProphetNetPositionalEmbeddings(config, **factory)
        self.embeddings_layer_norm = nn.LayerNorm(config.hidden_size, **factory)
        self.layers = nn.ModuleList(ProphetNetEncoderLayer(config, **factory) for _ in range(config.num_encoder_layers))
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.word_embeddings = value  # type: ignore[assignment]

    @property
    def _num_prunable_layers(self) -> int:
        return len(self.layers)

    def _prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        for index, heads in heads_to_prune.items():
            if index < len(self.layers):
                layer: Any = self.layers[index]
                layer.self_attn.prune_heads(heads)

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
        """Return the hidden states (B, T, E), and those and the probabilities of each layer if asked for.

        `attention_mask` (B, T) is 1 for tokens and 0 for padding, `head_mask` (H,) or (L, H). Raises InputError for
        inputs that do not fit.
        """
        switches = switches_of(
            self,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
        )
        hidden = embedded(self, input_ids, inputs_embeds)
        T, table = hidden.shape[1], self.position_embeddings
        if T + table.first > table.num_embeddings + 1:
            logger.warning_once(
                f"ProphetNetEncoder: {T} tokens, but the table of positions holds {table.num_embeddings}: all behind "
                "it get the last position. model.resize_position_embeddings(n) stretches the table."
            )
        aware = self.config.padding_aware_positions
        counted = checked_mask("ProphetNetEncoder", attention_mask, *hidden.shape[:2]) if aware else None
        hidden = hidden + table(table.position_ids(T, 0, counted, hidden.device))
        hidden = self.dropout(self.embeddings_layer_norm(hidden))
        packing = None if switches.output_attentions else packing_of(self, attention_mask)
        if packing is None:
            mask: Any = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden, attention_mask=attention_mask
            )
        else:
            hidden, mask = packing.pack(hidden), packing
        states: list[Tensor] = []
        weights: list[Tensor] = []
        for layer, own_mask in zip(self.layers, self.get_head_mask(head_mask, len(self.layers)), strict=True):
            if switches.output_hidden_states:
                states.append(hidden)
            hidden, *others = layer(hidden, mask, own_mask, output_attentions=switches.output_attentions)
            weights += others
        if switches.output_hidden_states:
            states.append(hidden)
        if packing is not None:
            hidden, states = packing.unpack(hidden), list(map(packing.unpack, states))
        result = BaseModelOutput(
            last_hidden_state=hidden,
            hidden_states=tuple(states) if switches.output_hidden_states else None,
            attentions=tuple(weights) if switches.output_attentions else None,
        )
        return result if switches.return_dict else result.to_tuple()
