"""Check the rotary settings of a config: a missing key is an error, a doubtful value a warning, said once."""

from collections.abc import Collection
from typing import Any

from modelwright.attention.rope_settings import RopeKeyError, head_dim_of, is_nested
from modelwright.core.errors import ConfigError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

_REQUIRED: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "yarn": frozenset({"factor"}),
    "longrope": frozenset({"short_factor", "long_factor"}),
    "llama3": frozenset({"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}),
    "proportional": frozenset(),
}
_ORIGINAL = "original_max_position_embeddings"
_OPTIONAL: dict[str, frozenset[str]] = {
    "dynamic": frozenset({_ORIGINAL}),
    "yarn": frozenset(
        {"attention_factor", "beta_fast", "beta_slow", _ORIGINAL, "mscale", "mscale_all_dim", "truncate"}
    ),
    "longrope": frozenset({"attention_factor", "factor", _ORIGINAL}),
    "proportional": frozenset({"factor"}),
}
_ALWAYS = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor"})


def rope_config_validation(config: Any, ignore_keys: Collection[str] | None = None) -> None:
    """Check `config.rope_parameters` (flat, or nested per layer type) or else `config.rope_scaling`; None is sound.

    `ignore_keys` names keys of the model's own. Raises RopeKeyError, a KeyError, that names the missing keys, and
    ConfigError for settings that are no dict, or an odd number of rotated dimensions. Unknown keys and types, and
    values out of range, are warnings.
    """
    for field in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, field, None)
        if settings is None or (field == "rope_scaling" and getattr(config, "rope_parameters", None)):
            continue
        if not isinstance(settings, dict):
            raise ConfigError(f"`{field}`: expected a dict such as {{'rope_type': 'default'}}, got {settings!r}")
        if is_nested(settings):
            for layer_type, of_layer in settings.items():
                if of_layer is not None:
                    _validate(config, f"{field}[{layer_type!r}]", of_layer, ignore_keys or ())
        elif settings:
            _validate(config, field, settings, ignore_keys or ())


def _validate(config: Any, field: str, settings: dict[str, Any], ignore_keys: Collection[str]) -> None:
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in _REQUIRED:
        logger.warning_once(f"`{field}`: unknown 'rope_type'={kind!r}; known are {', '.join(sorted(_REQUIRED))}")
        return
    missing = {key for key in _REQUIRED[kind] if settings.get(key) is None}
    if missing:
        raise RopeKeyError(
            f"Missing required keys in `{field}` for 'rope_type'='{kind}': {{{', '.join(map(repr, sorted(missing)))}}}"
        )
    known = _ALWAYS | _REQUIRED[kind] | _OPTIONAL.get(kind, frozenset()) | set(ignore_keys)
    unknown = sorted(set(settings) - known)
    if unknown:
        logger.warning_once(
            f"Unrecognized keys in `{field}` for 'rope_type'='{kind}': {{{', '.join(map(repr, unknown))}}}"
        )
    for line in (*_bad_numbers(settings), *_bad_lengths(config, settings), *_bad_lists(config, kind, settings)):
        logger.warning_once(f"`{field}`'s {line}")
    share = settings.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    if share in (None, 1, 1.0) and _head_dim(config) % 2:
        raise ConfigError(f"`{field}`: rotary embeddings turn pairs, got an odd head size of {_head_dim(config)}")


def _bad_numbers(settings: dict[str, Any]) -> list[str]:
    lines = []
    for key, lowest in (("factor", 1.0), ("attention_factor", 0.0)):
        value = settings.get(key)
        if value is not None and (not isinstance(value, float) or value < lowest):
            lines.append(f"{key} field must be a float >= {lowest:g}, got {value!r}")
    for key in ("beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor"):
        value = settings.get(key)
        if value is not None and not isinstance(value, float):
            lines.append(f"{key} field must be a float, got {value!r}")
    for high, low, defaults in (
        ("beta_fast", "beta_slow", (32, 1)),
        ("high_freq_factor", "low_freq_factor", (None, None)),
    ):
        above, below = settings.get(high) or defaults[0], settings.get(low) or defaults[1]
        if not (isinstance(above, int | float) and isinstance(below, int | float)):
            continue
        if above < below or (above == below and high == "high_freq_factor"):
            lines.append(f"{high} field must be greater than {low}, got {high}={above!r} and {low}={below!r}")
    share = settings.get("partial_rotary_factor")
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        lines.append(f"partial_rotary_factor field must be a number in (0, 1], got {share!r}")
    return lines


def _bad_lengths(config: Any, settings: dict[str, Any]) -> list[str]:
    original, longest = settings.get(_ORIGINAL), getattr(config, "max_position_embeddings", None)
    if original is None:
        return []
    if not isinstance(original, int) or isinstance(original, bool):
        return [f"{_ORIGINAL} field must be an integer, got {original!r}"]
    if longest is None:
        return []
    if original >= longest:
        return [f"{_ORIGINAL} field must be less than max_position_embeddings, got {original} and {longest}"]
    factor = settings.get("factor")
    if settings.get("rope_type") == "yarn" and isinstance(factor, float) and factor != longest / original:
        return [
            f"factor field {factor} is not max_position_embeddings / {_ORIGINAL} = {longest} / {original} = "
            f"{longest / original}; the factor is used as it is"
        ]
    return []


def _bad_lists(config: Any, kind: str, settings: dict[str, Any]) -> list[str]:
    if kind != "longrope":
        return []
    share = settings.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    pairs = int(_head_dim(config) * (1.0 if share is None else share)) // 2
    lines = []
    for key in ("short_factor", "long_factor"):
        values = settings[key]
        if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
            lines.append(f"{key} field must be a list of numbers, got {values!r}")
        elif len(values) != pairs:
            lines.append(f"{key} field must have length {pairs}, got {len(values)}")
    return lines


def _head_dim(config: Any) -> int:
    try:
        return head_dim_of(config)
    except AttributeError:
        return 0  # a config without heads: nothing to compare with
