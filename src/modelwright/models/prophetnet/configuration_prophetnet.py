"""The configuration of ProphetNet models."""

import re
from typing import Any, ClassVar, Self

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

PAPER, TRANSFORMERS = "paper", "transformers"


def _shared(name: str) -> Any:
    """Return a property whose value lies in the config's `_shared`."""
    return property(lambda config: config._shared[name], lambda config, value: config._shared.update({name: value}))


class ProphetNetConfig(PretrainedConfig):
    """Sizes and switches of a ProphetNet; the defaults are those of prophetnet-large-uncased.

    `ngram` streams of the decoder each predict a token: the first the next one, the second the one after it, and so on.
    `num_buckets` groups of distances are told apart, up to `relative_max_distance` tokens. `eps` is the part of a
    label's weight that the loss spreads over the vocabulary; `disable_ngram_loss` takes the first stream's loss only.
    `num_attention_heads` is another name of `num_encoder_attention_heads`. Source: Qi et al. 2020 (arXiv 2001.04063).

    relative_bias_layout: "paper" (the default) or "transformers". Since its version 4.27 transformers reads the bias of
        relative positions of the predict streams, in calls for several tokens, from other tokens, heads and streams
        than those that it is of. A model that was fine-tuned there has learned with it; "transformers" reads it so too.
        What is decoded one token after the other is the same with either.
    padding_aware_positions: True counts positions from each row's first real token, so that padding on the left changes
        nothing; False (as ever) from the first column. It needs attention masks. Padding between tokens of the target
        changes its scores even so: positions leave it out, relative distances, which go by columns, do not.
    training_logits: True returns logits in training mode beside the loss, as transformers does; False (the default)
        leaves them None there, because they are the largest tensors of a training step and the loss does without them.
        The keyword `output_logits` of a call comes before it. Where they are left out, so may be the source's padding,
        whose encoder states are zeros then. In evaluation mode logits are always there.

    Sizes, dropout and the activation function hold from when a model is made. What is assigned to `model.config` later
    takes effect with the next call if it is `eps`, `disable_ngram_loss`, `training_logits`, or one of
    `relative_bias_layout` and `padding_aware_positions`, which a model's config shares with those of its encoder and
    decoder. Heads that were pruned with "paper" lack numbers that "transformers" reads.

    Raises ConfigError for sizes that do not fit and for another layout.
    """

    model_type = "prophetnet"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {"num_attention_heads": "num_encoder_attention_heads"}
    relative_bias_layout: str = _shared("relative_bias_layout")
    padding_aware_positions: bool = _shared("padding_aware_positions")

    def __init__(
        self,
        activation_dropout: float = 0.1,
        activation_function: Any = "gelu",
        vocab_size: int = 30522,
        hidden_size: int = 1024,
        encoder_ffn_dim: int = 4096,
        num_encoder_layers: int = 12,
        num_encoder_attention_heads: int = 16,
        decoder_ffn_dim: int = 4096,
        num_decoder_layers: int = 12,
        num_decoder_attention_heads: int = 16,
        attention_dropout: float = 0.1,
        dropout: float = 0.1,
        max_position_embeddings: int = 512,
        init_std: float = 0.02,
        is_encoder_decoder: bool = True,
        add_cross_attention: bool = True,
        decoder_start_token_id: int | None = 0,
        ngram: int = 2,
        num_buckets: int = 32,
        relative_max_distance: int = 128,
        disable_ngram_loss: bool = False,
        eps: float = 0.0,
        use_cache: bool = True,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        relative_bias_layout: str | None = None,
        padding_aware_positions: bool = False,
        training_logits: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.encoder_ffn_dim = encoder_ffn_dim
        self.num_encoder_layers = num_encoder_layers
        self.num_encoder_attention_heads = num_encoder_attention_heads
        self.decoder_ffn_dim = decoder_ffn_dim
        self.num_decoder_layers = num_decoder_layers
        self.num_decoder_attention_heads = num_decoder_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.init_std = init_std
        self.activation_function = activation_function
        self.ngram = ngram
        self.num_buckets = num_buckets
        self.relative_max_distance = relative_max_distance
        self.disable_ngram_loss = disable_ngram_loss
        self.eps = eps
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.dropout = dropout
        self.use_cache = use_cache
        if relative_bias_layout is None:
            _say_how_to_choose(kwargs.get("transformers_version"))
        # One dictionary for a model and its parts: see `share_with`.
        self._shared: dict[str, Any] = {}
        self.relative_bias_layout = PAPER if relative_bias_layout is None else relative_bias_layout
        self.padding_aware_positions = padding_aware_positions
        self.training_logits = training_logits
        self._check()
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            is_encoder_decoder=is_encoder_decoder,
            add_cross_attention=add_cross_attention,
            decoder_start_token_id=decoder_start_token_id,
            **kwargs,
        )

    def _check(self) -> None:
        for name in ("num_encoder_attention_heads", "num_decoder_attention_heads"):
            heads = getattr(self, name)
            if heads < 1 or self.hidden_size % heads:
                raise ConfigError(
                    f"ProphetNetConfig: expected hidden_size ({self.hidden_size}) to be a multiple of {name}, got "
                    f"{heads}"
                )
        if self.ngram < 1:
            raise ConfigError(f"ProphetNetConfig.ngram: expected at least one stream, got {self.ngram}")
        if self.num_buckets < 2 or self.relative_max_distance <= self.num_buckets // 2:
            raise ConfigError(
                "ProphetNetConfig: expected at least 2 num_buckets, and relative_max_distance above half of them, got "
                f"{self.num_buckets} and {self.relative_max_distance}"
            )
        if self.relative_bias_layout not in (PAPER, TRANSFORMERS):
            raise ConfigError(
                f"ProphetNetConfig.relative_bias_layout: expected {PAPER!r} or {TRANSFORMERS!r}, got "
                f"{self.relative_bias_layout!r}"
            )

    def __copy__(self) -> Self:
        """Return a config with the same values, of which those that parts share are its own."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__, _shared=dict(self._shared))
        return copied

    def share_with(self, part: "ProphetNetConfig") -> None:
        """Let the config of an encoder or decoder have the values of this one that both read in each call."""
        part._shared = self._shared

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        values = super().to_dict()
        values.update(values.pop("_shared"))
        return values

    @property
    def num_hidden_layers(self) -> int:
        """The number of the encoder's layers; of the config of a decoder alone, of its own."""
        alone = self.is_decoder and not self.is_encoder_decoder
        return self.num_decoder_layers if alone else self.num_encoder_layers

    @num_hidden_layers.setter
    def num_hidden_layers(self, value: int) -> None:
        raise NotImplementedError(
            f"ProphetNetConfig.num_hidden_layers={value}: set num_encoder_layers or num_decoder_layers"
        )


def _say_how_to_choose(version: Any) -> None:
    """Note once that a checkpoint saved by transformers 4.27 or later may have learned with its layout."""
    found = re.match(r"(\d+)\.(\d+)", str(version))
    if found and tuple(map(int, found.groups())) >= (4, 27):
        logger.warning_once(
            f"A ProphetNet config was saved by transformers {version}, which reads the relative bias of the predict "
            "streams from the wrong places when it trains. If the model was fine-tuned there, load it with "
            f'relative_bias_layout="{TRANSFORMERS}"; if it was only saved there, relative_bias_layout="{PAPER}" (the '
            "default) is right. Either is kept in the config, and this note is not shown again."
        )
