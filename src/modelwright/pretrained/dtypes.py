"""Which dtype a model, and each part of it, is built with: what the caller says, "auto", or float32."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from modelwright.checkpoint.headers import TensorInfo, dtype_name, main_dtype
from modelwright.core.errors import InputError, nearest

Wanted = torch.dtype | Literal["auto"] | None
# What is wanted for the model, under "", and for its sub-configs, under their names.
WantedByPart = dict[str, Wanted]


def wanted_dtypes(where: str, dtype: Any, torch_dtype: Any) -> WantedByPart:
    """Return what `dtype` and its older name `torch_dtype` ask for together; {"": None} if both are None.

    Each may be a torch.dtype, its name ("bfloat16", "torch.bfloat16"), "auto", or a dictionary of these with the names
    of sub-configs, and "" for the rest. Raises InputError for two different wishes and for what is no floating-point
    dtype.
    """
    new, old = _parse_parts(where, "dtype", dtype), _parse_parts(where, "torch_dtype", torch_dtype)
    if dtype is not None and torch_dtype is not None and new != old:
        raise InputError(
            f"{where}: expected dtype and torch_dtype (its older name) to agree, got dtype={dtype!r} and "
            f"torch_dtype={torch_dtype!r}; pass dtype only"
        )
    return old if dtype is None else new


def resolve(
    where: str, wanted: WantedByPart, config: Any, stored: Mapping[str, TensorInfo] | None = None
) -> dict[str, torch.dtype]:
    """Return the dtypes to build with, under the keys of `wanted`, and note them in the configs.

    None is float32; "auto" is the config's own, else the one that holds most bytes of the tensors `stored` in the
    checkpoint, else float32. Raises InputError for a sub-config that `config` lacks.
    """
    parts = parts_of(config)
    for name in wanted:
        if name not in parts:
            known = [part for part in parts if part]
            raise InputError(
                f"{where}: expected the keys of dtype to be '' or sub-configs of {type(config).__name__} "
                f"({', '.join(map(repr, known)) or 'it has none'}), got {name!r}.{nearest(name, known)}"
            )
    found = {"": _resolve(wanted.get(""), config, stored)}
    found |= {name: _resolve(one, parts[name], stored) for name, one in wanted.items()}
    for name, dtype in found.items():
        parts[name].dtype = dtype_name(dtype)
    return found


def parts_of(config: Any) -> dict[str, Any]:
    """Return the config itself under "" and its sub-configs under their names."""
    found = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config, **{name: part for name, part in found.items() if part is not None}}


def _resolve(wanted: Wanted, config: Any, stored: Mapping[str, TensorInfo] | None) -> torch.dtype:
    if wanted is None:
        return torch.float32
    if wanted != "auto":
        return wanted
    configured = _parse("config.json", "dtype", getattr(config, "dtype", None))
    if isinstance(configured, torch.dtype):
        return configured
    return main_dtype(stored or {}) or torch.float32


def _parse_parts(where: str, keyword: str, value: Any) -> WantedByPart:
    if not isinstance(value, Mapping):
        return {"": _parse(where, keyword, value)}
    return {"": None, **{str(name): _parse(where, f"{keyword}[{name!r}]", one) for name, one in value.items()}}


def _parse(where: str, keyword: str, value: Any) -> Wanted:
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(
            f"{where}: expected {keyword} to be a floating-point torch.dtype, its name or 'auto', got {value!r}"
        )
    return dtype
