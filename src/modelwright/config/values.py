"""Values of a configuration on their way to and from JSON."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from modelwright.config.defaults import COMMON_DEFAULTS, GENERATION_DEFAULTS
from modelwright.core.errors import ConfigError

# The names of torch's dtypes (this room does not import torch), their short forms, and "auto".
_DTYPE = re.compile(
    r"auto|bool|half|float|double|b?float16|float(32|64)|float(8|4)_\w+|u?int(8|16|32|64)|short|int|long|"
    r"complex(32|64|128)|q(u?int8|int32)|quint(4x2|2x4)|u?int[1-7]|bits\w+"
)


def dtype_name(value: Any) -> str | None:
    """Return the name of a dtype ("float32") that is given as that name, as "torch.float32" or as a torch.dtype."""
    if value is None:
        return None
    name = str(value).removeprefix("torch.")
    if not _DTYPE.fullmatch(name):
        raise ConfigError(
            "dtype: expected a name such as 'float32': one of float16, bfloat16, float32, float64, 8-bit floats such "
            f"as float8_e4m3fn, whole numbers such as int8, or auto; got {value!r}"
        )
    return name


def plain(value: Any) -> Any:
    """Return a deep copy of `value` in which nested configurations are dictionaries and torch dtypes are names."""
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return dtype_name(value)
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    # A named tuple takes its fields one by one; it becomes an ordinary tuple, as in JSON.
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return copy.deepcopy(value)


def label_maps(num_labels: int) -> tuple[dict[int, str], dict[str, int]]:
    """Return `id2label` and `label2id` for labels that have no names: LABEL_0, LABEL_1, ..."""
    if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 0:
        raise ConfigError(f"num_labels: expected a whole number of 0 or more, got {num_labels!r}")
    names = [f"LABEL_{index}" for index in range(num_labels)]
    return dict(enumerate(names)), {name: index for index, name in enumerate(names)}


def int_keys(where: str, mapping: Mapping[Any, Any]) -> dict[int, Any]:
    """Return `mapping` with whole numbers as keys, which JSON turns into strings; raise ConfigError for other keys."""
    try:
        return {int(key): value for key, value in mapping.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"{where}: expected a dictionary with whole numbers as keys, got {mapping!r}") from None


def difference(
    values: Mapping[str, Any], class_defaults: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the items of `values` that must be written down.

    An item may be left out if it equals the default shared by all models and the class has no other default; what is
    specific to a class is always written, so that a file stays right when the class's defaults change.
    """
    kept = {}
    for key, value in values.items():
        shared = key in common and value == common[key]
        if not shared or (key in class_defaults and value != class_defaults[key]):
            kept[key] = value
    return kept


def common_values() -> dict[str, Any]:
    """Return what `to_dict` gives for a configuration about which nothing is said, generation fields included."""
    id2label, label2id = label_maps(2)
    return {
        **COMMON_DEFAULTS,
        **GENERATION_DEFAULTS,
        "id2label": id2label,
        "label2id": label2id,
        "model_type": "",
        "_name_or_path": "",
    }
