"""What all ProphetNet models share: initialisation, pruning by number, the position tables, the parts' configs."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.positions import ProphetNetPositionalEmbeddings
from modelwright.pretrained.decoding import shifted_right
from modelwright.pretrained.modeling import PreTrainedModel

Device = torch.device | str | None


class ProphetNetPreTrainedModel(PreTrainedModel):
    """Base of ProphetNet's models.

    Heads are pruned by the number of their attention: the encoder's layers come first, then the decoder's, then the
    decoder's attentions to the encoder. In a model without an encoder the decoder's layers come first. The config of
    an encoder or decoder alone has `is_encoder_decoder=False`, by which its `pruned_heads` are known for its own.
    """

    config_class = ProphetNetConfig
    base_model_prefix = "prophetnet"
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["ProphetNetEncoderLayer", "ProphetNetDecoderLayer"]
    # An output projection is no source of embeddings: a checkpoint that holds nothing else is not whole.
    _tied_weights_not_sources: ClassVar[tuple[str, ...]] = ("lm_head.weight",)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model accepts."""
        ids = torch.tensor([[4, 3, 5, 2], [3, 4, 5, 2]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {**inputs, "decoder_input_ids": ids} if hasattr(self.base_model, "encoder") else inputs

    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights from a normal distribution; biases and the padding's embeddings are zero."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        return shifted_right(self, input_ids)

    # --- positions --------------------------------------------------------------------------------------------------

    def get_position_embeddings(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the table of positions, or those of the encoder and of the decoder."""
        tables = tuple(self._position_tables())
        return tables[0] if len(tables) == 1 else tables

    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Stretch (or shrink) the tables of positions by linear interpolation, so that longer texts fit.

        The first and the last position keep their vectors. Config and tables change in place; an optimizer that was
        made before must be made again. Raises InputError for a number that leaves no position.
        """
        for table in self._position_tables():
            table.resize(new_num_position_embeddings)
        for module in self.modules():
            if isinstance(module, ProphetNetPreTrainedModel):
                module.config.max_position_embeddings = new_num_position_embeddings

    def _position_tables(self) -> list[ProphetNetPositionalEmbeddings]:
        return [module for module in self.modules() if isinstance(module, ProphetNetPositionalEmbeddings)]

    # --- pruning ----------------------------------------------------------------------------------------------------

    @property
    def _num_prunable_layers(self) -> int:
        config = self.config
        crosses = config.num_decoder_layers if config.add_cross_attention else 0
        return int((self._own_encoder_layers or 0) + config.num_decoder_layers + crosses)

    @property
    def _own_encoder_layers(self) -> int:
        """How many of the numbers are the encoder's layers."""
        return int(self.config.num_encoder_layers)


def prune_decoder(layers: nn.ModuleList, heads_to_prune: Mapping[int, list[int]]) -> None:
    """Prune the layers of a decoder; the numbers from `len(layers)` on are their attentions to the encoder."""
    for number, heads in heads_to_prune.items():
        crosses, index = divmod(number, len(layers))
        layer: Any = layers[index]
        (layer.cross_attn if crosses else layer.self_attn).prune_heads(heads)


def part_config(config: ProphetNetConfig, *, decoder: bool) -> Any:
    """Return the config of the encoder or decoder of a model with `config`; heads to prune have the part's numbers."""
    own = copy.deepcopy(config)
    own.is_decoder, own.is_encoder_decoder, own.use_cache = decoder, False, decoder and config.use_cache
    own.tie_encoder_decoder = False
    config.share_with(own)
    first = config.num_encoder_layers if decoder else 0
    last = first + 2 * config.num_decoder_layers if decoder else config.num_encoder_layers
    own.pruned_heads = {number - first: heads for number, heads in own.pruned_heads.items() if first <= number < last}
    return own


def config_alone(config: ProphetNetConfig, *, decoder: bool) -> Any:
    """Return the config of an encoder or decoder that stands alone: the given one, unless it is of a whole model."""
    return part_config(config, decoder=decoder) if config.is_encoder_decoder else config


def given_embeddings(
    config: ProphetNetConfig, word_embeddings: nn.Embedding | None, factory: dict[str, Any]
) -> nn.Embedding:
    """Return the word embeddings that a part was given, or new ones; raise InputError for another padding row."""
    if word_embeddings is None:
        return nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id, **factory)
    if word_embeddings.embedding_dim != config.hidden_size:
        raise InputError(
            f"word_embeddings: expected {config.hidden_size} columns, as config.hidden_size says, got "
            f"{word_embeddings.embedding_dim}"
        )
    return word_embeddings
