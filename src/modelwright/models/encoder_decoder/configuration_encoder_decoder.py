"""The configuration of an encoder-decoder that is made of two models: theirs, side by side."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError

# Keywords that begin like those of a part but are about the whole.
OF_THE_WHOLE = frozenset({"decoder_ngram_loss", "decoder_start_token_id", "encoder_no_repeat_ngram_size"})


class EncoderDecoderConfig(PretrainedConfig):
    """The configs of an encoder and a decoder, `encoder` and `decoder`, each with its `model_type`, or as dictionaries.

    Special ids that are None here are those of the decoder. `decoder_ngram_loss`: whether labels are scored with the
    decoder's own loss where it has one for labels that are not shifted (ProphetNet's, of the next n tokens); False
    scores the next token only, as 4.x does. `tie_encoder_decoder`: the encoder's weights are the decoder's. Raises
    ConfigError if a part is missing or is no config.
    """

    model_type = "encoder-decoder"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": PretrainedConfig, "decoder": PretrainedConfig}
    has_no_defaults_at_init = True

    encoder: Any
    decoder: Any

    def __init__(
        self, encoder: Any = None, decoder: Any = None, decoder_ngram_loss: bool = True, **kwargs: Any
    ) -> None:
        # A file says once, of the whole, which version of transformers wrote it; a part may read itself by that.
        version = kwargs.get("transformers_version")
        self.encoder = _part("encoder", encoder, version)
        self.decoder = _part("decoder", decoder, version)
        self.decoder_ngram_loss = decoder_ngram_loss
        # A file may hold a size from before the vocabulary grew.
        kwargs.pop("vocab_size", None)
        super().__init__(**{**kwargs, "is_encoder_decoder": True})

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PretrainedConfig, decoder_config: PretrainedConfig, **kwargs: Any
    ) -> Self:
        """Return a config of copies of these two, the decoder's with `is_decoder=True` and `add_cross_attention=True`.

        Other keywords are attributes of the whole.
        """
        decoder = copy.deepcopy(decoder_config)
        decoder.is_decoder, decoder.add_cross_attention = True, True
        return cls(encoder=copy.deepcopy(encoder_config), decoder=decoder, **kwargs)

    @property
    def vocab_size(self) -> int:
        """The number of tokens that the decoder knows."""
        return int(self.decoder.vocab_size)

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        if value != self.decoder.vocab_size:
            raise ConfigError(
                f"EncoderDecoderConfig.vocab_size is that of the decoder, {self.decoder.vocab_size}; got {value}. "
                "To change it call resize_token_embeddings() of the model"
            )

    def special_id(self, name: str) -> Any:
        """Return the special token id `name` of the whole, else that of the decoder, None if neither has it."""
        own = getattr(self, name)
        return getattr(self.decoder, name) if own is None else own


def _part(name: str, given: Any, version: str | None) -> Any:
    """Return the config of one part, made of a dictionary if it is one; `version` is that of the whole."""
    if isinstance(given, PretrainedConfig):
        return given
    where = f"EncoderDecoderConfig.{name}"
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{where}: expected the config of the {name} (or a dictionary with its model_type), got "
            f"{'nothing' if given is None else repr(given)}; see EncoderDecoderConfig.from_encoder_decoder_configs"
        )
    from modelwright.models.auto.configuration_auto import TABLE

    if not given.get("model_type"):
        raise ConfigError(f"{where}: expected a model_type in the dictionary, such as 'bert', found none")
    of_whole = {} if version is None else {"transformers_version": version}
    return TABLE.find(str(given["model_type"]), where).from_dict({**of_whole, **given})
