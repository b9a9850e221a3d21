"""The two models inside an encoder-decoder: made, loaded, and checked whether they can be what they are to be."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.hub.download import take_download
from modelwright.models.encoder_decoder.configuration_encoder_decoder import OF_THE_WHOLE, EncoderDecoderConfig
from modelwright.pretrained.construction import construct

logger = get_logger(__name__)

PARTS = ("encoder", "decoder")
# Keywords without a prefix that say how both parts are loaded.
_OF_BOTH = (
    "attn_implementation",
    "cache_dir",
    "device_map",
    "dtype",
    "force_download",
    "local_files_only",
    "token",
    "torch_dtype",
)
_WHAT_TO_SET = (
    "set is_decoder=True and add_cross_attention=True in its config before the model is made "
    "(EncoderDecoderConfig.from_encoder_decoder_configs and EncoderDecoderModel.from_encoder_decoder_pretrained do so)"
)


def auto_class(part: str) -> Any:
    """Return the auto class of the encoder (a model without head) or the decoder (a language model)."""
    from modelwright.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM

    return AutoModel if part == "encoder" else AutoModelForCausalLM


def make_part(where: str, part: str, config: Any, device: Any, dtype: torch.dtype | None) -> Any:
    """Return a new model with this very config; raise ConfigError for a model_type that has no such model."""
    model_class = auto_class(part).table.find(config.model_type, f"{where}: config.{part}")
    return construct(model_class, config, device=device, dtypes={"": dtype or torch.get_default_dtype()})


def settle_config(where: str, config: Any, encoder: Any, decoder: Any) -> Any:
    """Return the config of a model of the given parts: models, or None for those that `config` describes.

    The config of a given model is the one in the result: it says what that model is. Raises InputError if something is
    missing.
    """
    given = {name: model for name, model in zip(PARTS, (encoder, decoder), strict=True) if model is not None}
    if config is None:
        if len(given) < len(PARTS):
            missing = " and ".join(name for name in PARTS if name not in given)
            raise InputError(f"{where}: expected a config, or an encoder and a decoder; got no config and no {missing}")
        config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config)
    elif not isinstance(config, PretrainedConfig) or not hasattr(config, "encoder"):
        raise InputError(f"{where}: expected an EncoderDecoderConfig, got {type(config).__name__}")
    elif given:
        config = copy.copy(config)
    for name, model in given.items():
        before = getattr(config, name)
        if before is not model.config and before.to_dict() != model.config.to_dict():
            logger.warning_once(
                f"{where}: config.{name} differs from the config of the given {name}, which says what that model is; "
                f"config.{name} is replaced by it."
            )
        setattr(config, name, model.config)
    return config


def check_config(where: str, config: Any) -> None:
    """Raise InputError for a decoder that would have no cross-attention."""
    decoder = config.decoder
    if not decoder.add_cross_attention:
        raise InputError(
            f"{where}: the decoder ({decoder.model_type}) has no cross-attention, so it would not see the encoder's "
            f"states; {_WHAT_TO_SET}"
        )


def check_models(where: str, encoder: Any, decoder: Any) -> None:
    """Raise InputError for two models that cannot be encoder and decoder, ConfigError for widths that do not fit."""
    if encoder.get_output_embeddings() is not None:
        raise InputError(
            f"{where}: expected an encoder without a language-model head, got {type(encoder).__name__}; use the base "
            "model, as AutoModel loads it"
        )
    _check_family(where, encoder)
    name = type(decoder).__name__
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise InputError(
            f"{where}: {name} cannot be the decoder: its forward takes no encoder_hidden_states, so it has no "
            "cross-attention; use another family, such as BERT, GPT-2 or ProphetNet"
        )
    if any(getattr(module, "is_decoder", True) is False for module in decoder.modules()):
        raise InputError(
            f"{where}: {name} was made with is_decoder=False, so each token sees those after it; {_WHAT_TO_SET}"
        )
    width = decoder.config.cross_attention_hidden_size
    if width is not None and width != encoder._states_width:
        raise ConfigError(
            f"{where}: config.decoder.cross_attention_hidden_size is {width}, but the encoder's states are "
            f"{encoder._states_width} wide; set it to None, and they are projected to the decoder's width"
        )


def _check_family(where: str, encoder: Any) -> None:
    """Raise InputError for an encoder that is, or that its config makes, a model with a decoder of its own."""
    from modelwright.models.auto.modeling_auto import AutoModelForSeq2SeqLM

    family, table, pairs = encoder.config.model_type, auto_class("encoder").table, AutoModelForSeq2SeqLM.table
    whole = table.find(family, where) if family in table else type(encoder)
    if isinstance(encoder, whole) and encoder.config.is_encoder_decoder:
        raise InputError(
            f"{where}: {type(encoder).__name__} has a decoder of its own; expected a model that is an encoder only, "
            "such as BertModel"
        )
    if family in pairs:
        raise InputError(
            f"{where}: {type(encoder).__name__} is an encoder only, but its config (model_type {family!r}) is that of "
            f"{whole.__name__}, which has a decoder too, so what is saved could not be loaded; expected an encoder of "
            f"another family, such as BertModel, or use {pairs.find(family, where).__name__} instead of a pair"
        )


def take_keywords(where: str, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the keywords of the encoder, of the decoder (without their prefixes) and of the config of the whole.

    Raises UnknownArgumentError for one without a prefix that names no attribute of a config.
    """
    parts: dict[str, dict[str, Any]] = {name: {} for name in PARTS}
    whole: dict[str, Any] = {}
    for keyword, value in kwargs.items():
        prefix, _, rest = keyword.partition("_")
        if prefix in parts and rest and keyword not in OF_THE_WHOLE:
            parts[prefix][rest] = value
        elif keyword not in _OF_BOTH:
            whole[keyword] = value
    known = EncoderDecoderConfig._constructor_keywords()
    for keyword in whole:
        if keyword not in known:
            raise UnknownArgumentError(
                f"{where} got an unknown keyword {keyword!r}; those of the parts begin with encoder_ or decoder_."
                f"{nearest(keyword, {*known, *_OF_BOTH})}"
            )
    shared = {keyword: kwargs[keyword] for keyword in _OF_BOTH if keyword in kwargs}
    return {**shared, **parts["encoder"]}, {**shared, **parts["decoder"]}, whole


def load_part(where: str, part: str, name_or_path: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return the model that the keyword `model` is, or that is loaded from `name_or_path` to be this part.

    Without a keyword `config` the checkpoint's own is changed: of an encoder to see all tokens, of a decoder to see
    those before and to attend to the encoder's states, by layers that are new where the checkpoint has none.
    """
    model = keywords.pop("model", None)
    if model is not None:
        return model
    if name_or_path is None:
        raise InputError(
            f"{where}: expected the folder or repository of the {part} ({part}_pretrained_model_name_or_path), or the "
            f"model itself ({part}_model); got neither"
        )
    config = keywords.pop("config", None)
    if config is None:
        config = _config_of(part, name_or_path, keywords)
    return auto_class(part).from_pretrained(name_or_path, *args, config=config, **keywords)


def _config_of(part: str, name_or_path: Any, keywords: Mapping[str, Any]) -> Any:
    from modelwright.models.auto.configuration_auto import AutoConfig

    download, _ = take_download("EncoderDecoderModel.from_encoder_decoder_pretrained", dict(keywords))
    places = {name: keywords[name] for name in ("subfolder", "trust_remote_code") if name in keywords}
    config = AutoConfig.from_pretrained(name_or_path, **places, **download.keywords())
    if part == "encoder":
        if config.is_decoder or config.add_cross_attention:
            logger.info("%s is a decoder; as an encoder it has no causal mask and no cross-attention.", name_or_path)
            config.is_decoder, config.add_cross_attention = False, False
    elif not (config.is_decoder and config.add_cross_attention):
        logger.info(
            "%s becomes a decoder: with a causal mask, and with cross-attention layers, which are newly initialised "
            "where the checkpoint has none. Train the model before you rely on it.",
            name_or_path,
        )
        config.is_decoder, config.add_cross_attention = True, True
    return config
