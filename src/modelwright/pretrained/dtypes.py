"""Which dtype a model is built with: what the caller says, "auto", or float32."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from modelwright.checkpoint.headers import TensorInfo, main_dtype
from modelwright.core.errors import InputError

Wanted = torch.dtype | Literal["auto"] | None


def wanted_dtype(where: str, dtype: Any, torch_dtype: Any) -> Wanted:
    """Return what `dtype` and its older name `torch_dtype` ask for together; None if both are None.

    Each may be a torch.dtype, its name ("bfloat16", "torch.bfloat16") or "auto". Raises InputError for two different
    wishes and for what is no floating-point dtype.
    """
    new, old = _parse(where, "dtype", dtype), _parse(where, "torch_dtype", torch_dtype)
    if new is not None and old is not None and new != old:
        raise InputError(
            f"{where}: expected dtype and torch_dtype (its older name) to agree, got dtype={dtype!r} and "
            f"torch_dtype={torch_dtype!r}; pass dtype only"
        )
    return old if new is None else new


def resolve(wanted: Wanted, config: Any, stored: Mapping[str, TensorInfo] | None = None) -> torch.dtype:
    """Return the dtype to build with: None is float32; "auto" is the config's, else the one that holds most bytes of
    the tensors `stored` in the checkpoint, else float32.
    """
    if wanted is None:
        return torch.float32
    if wanted != "auto":
        return wanted
    configured = _parse("config.json", "dtype", getattr(config, "dtype", None))
    if isinstance(configured, torch.dtype):
        return configured
    return main_dtype(stored or {}) or torch.float32


def _parse(where: str, keyword: str, value: Any) -> Wanted:
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    if isinstance(value, dict):
        raise NotImplementedError(
            f"{where}: {keyword} as a dictionary (one dtype per sub-config) is not built yet; it comes with the models "
            f"that have sub-configs. Pass one dtype"
        )
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(
            f"{where}: expected {keyword} to be a floating-point torch.dtype, its name or 'auto', got {value!r}"
        )
    return dtype
