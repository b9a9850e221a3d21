"""Read what a config says about rotary embeddings, in any of its spellings, into one small object.

4.x: `rope_theta` and `rope_scaling = {"rope_type" or "type": ..., ...}`. 5.x: `rope_parameters`, which holds
`rope_theta` too, flat or as {layer type: {...}}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.errors import ConfigError

DEFAULT_BASE = 10000.0


class RopeKeyError(ConfigError, KeyError):
    """Rotary settings that lack a key."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0])


@dataclass(frozen=True)
class RopeSettings:
    """The rotary settings of one kind of layer: `base` (rope_theta), `dim` rotated dimensions of `head_dim`, the rest.

    `factor_from_lengths` is set where the config itself has `original_max_position_embeddings`, as Phi-3's has: there
    the factor is the ratio of its two lengths.
    """

    field: str
    rope_type: str
    base: float
    dim: int
    head_dim: int
    max_positions: int
    values: Mapping[str, Any]
    factor_from_lengths: bool = False

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` if it is not there or None."""
        value = self.values.get(key)
        return default if value is None else value

    def required(self, key: str) -> Any:
        """Return the value of `key`; raise RopeKeyError if it is not there."""
        if self.values.get(key) is None:
            raise RopeKeyError(
                f"Missing required keys in `{self.field}` for 'rope_type'='{self.rope_type}': {{{key!r}}}"
            )
        return self.values[key]


def is_nested(parameters: Mapping[str, Any]) -> bool:
    """Tell whether `rope_parameters` holds settings per layer type."""
    return bool(parameters) and all(value is None or isinstance(value, Mapping) for value in parameters.values())


def rope_dict(config: Any, layer_type: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return the field that holds the settings, and the settings of `layer_type` (None where there is one kind only).

    Raises ConfigError if there are several kinds and `layer_type` names none of them.
    """
    parameters = getattr(config, "rope_parameters", None)
    if parameters:
        if not is_nested(parameters):
            return "rope_parameters", dict(parameters)
        if layer_type not in parameters or parameters[layer_type] is None:
            kinds = ", ".join(sorted(kind for kind, value in parameters.items() if value is not None))
            raise ConfigError(
                f"rope_parameters of {type(config).__name__} are given per layer type ({kinds}), got "
                f"layer_type={layer_type!r}"
            )
        return "rope_parameters", dict(parameters[layer_type])
    return "rope_scaling", dict(getattr(config, "rope_scaling", None) or {})


def rope_type_of(config: Any, layer_type: str | None = None) -> str:
    """Return the rope type; "type" is an old spelling of "rope_type", and nothing said means "default"."""
    values = rope_dict(config, layer_type)[1]
    return str(values.get("rope_type", values.get("type", "default")))


def head_dim_of(config: Any) -> int:
    """Return the size of a head; a config whose `head_dim` is None or missing has hidden_size / num_attention_heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_settings(config: Any, layer_type: str | None = None) -> RopeSettings:
    """Return the settings of `config` for `layer_type`."""
    field, values = rope_dict(config, layer_type)
    kind = str(values.get("rope_type", values.get("type", "default")))
    own_share = getattr(config, "partial_rotary_factor", None)
    share = values.get("partial_rotary_factor", 1.0 if own_share is None else own_share)
    values.setdefault("partial_rotary_factor", share)
    head_dim = head_dim_of(config)
    base = values.get("rope_theta", getattr(config, "rope_theta", None))
    own_original = getattr(config, "original_max_position_embeddings", None)
    if own_original:
        values["original_max_position_embeddings"] = own_original
    return RopeSettings(
        field=field,
        rope_type=kind,
        base=DEFAULT_BASE if base is None else base,
        dim=int(head_dim * share),
        head_dim=head_dim,
        max_positions=int(getattr(config, "max_position_embeddings", None) or 2048),
        values=values,
        factor_from_lengths=bool(own_original),
    )
