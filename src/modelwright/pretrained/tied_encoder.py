"""An encoder that has the weights of its decoder: `config.tie_encoder_decoder`, of a model with both.

Source: Rothe, Narayan and Severyn 2020 (arXiv 1907.12461), the "share" models.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from modelwright.core.errors import ConfigError


def encoder_pairs(model: Any) -> dict[str, str]:
    """Return {name of a parameter of the encoder: name of the decoder's that takes its place}; {} if nothing is tied.

    What only one of the two has (the decoder's cross-attention, an encoder's pooler) stays as it is. Raises ConfigError
    for two that have nothing in common, or another size.
    """
    config = model.config
    if not (getattr(config, "is_encoder_decoder", False) and getattr(config, "tie_encoder_decoder", False)):
        return {}
    encoder, decoder = (getattr(model, name, lambda: None)() for name in ("get_encoder", "get_decoder"))
    where = type(model).__name__
    if encoder is None or decoder is None:
        raise ConfigError(f"{where}: config.tie_encoder_decoder=True needs a decoder; set it to False")
    decoder = getattr(decoder, "base_model", decoder)
    names = {id(module): name for name, module in model.named_modules()}
    first, second = names[id(encoder)], names[id(decoder)]
    pairs = {}
    for of_encoder, of_decoder in _common(encoder, decoder):
        ours, theirs = encoder.get_parameter(of_encoder), decoder.get_parameter(of_decoder)
        if ours.shape != theirs.shape:
            raise ConfigError(
                f"{where}: config.tie_encoder_decoder=True needs an encoder and a decoder of the same sizes, but "
                f"{of_encoder} is {tuple(ours.shape)} in the encoder and {tuple(theirs.shape)} in the decoder"
            )
        pairs[f"{first}.{of_encoder}"] = f"{second}.{of_decoder}"
    if not pairs:
        raise ConfigError(
            f"{where}: config.tie_encoder_decoder=True needs an encoder and a decoder of one family, got "
            f"{type(encoder).__name__} and {type(decoder).__name__}; set it to False"
        )
    return pairs


def _common(encoder: nn.Module, decoder: nn.Module, prefixes: tuple[str, str] = ("", "")) -> Iterator[tuple[str, str]]:
    """Yield the names of the parameters that both have at the same place."""
    for name in decoder._parameters:
        if decoder._parameters[name] is not None and encoder._parameters.get(name) is not None:
            yield prefixes[0] + name, prefixes[1] + name
    for ours, theirs in _children(encoder, decoder):
        inner = (f"{prefixes[0]}{ours}.", f"{prefixes[1]}{theirs}.")
        yield from _common(encoder.get_submodule(ours), decoder.get_submodule(theirs), inner)


def _children(encoder: nn.Module, decoder: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of the children at the same place."""
    if not isinstance(encoder, nn.ModuleList) or not isinstance(decoder, nn.ModuleList):
        yield from ((name, name) for name, _ in decoder.named_children() if name in encoder._modules)
        return
    # A decoder's block has its cross-attention between the two parts that an encoder's block has.
    waiting = list(encoder.named_children())
    for theirs, module in decoder.named_children():
        if waiting and type(waiting[0][1]) is type(module):
            yield waiting.pop(0)[0], theirs
