"""Building a model before its weights are read: without memory where the class allows it, else for real.

A class of ours takes `device` and `dtype` and hands them to its layers, so device="meta" builds it in no memory and
without touching any state of the process. Nor do its layers then draw initial values, for which there is no place. A
class written for 4.x takes a config only. It is built on the CPU, where every parameter gets an initial value, and then
loaded into.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from modelwright.nn.walk import named_modules

_FACTORIES = frozenset(
    {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.logspace, torch.ones, torch.rand}
    | {torch.randn, torch.tensor, torch.zeros}
)


# What layers give a new weight its values with.
_FILLS = frozenset(
    {init.constant_, init.kaiming_normal_, init.kaiming_uniform_, init.normal_, init.ones_, init.trunc_normal_}
    | {init.uniform_, init.xavier_normal_, init.xavier_uniform_, init.zeros_, Tensor.fill_, Tensor.normal_}
    | {Tensor.uniform_, Tensor.zero_}
)


class _MetaUnfilled(TorchFunctionMode):
    """In this thread only, filling a tensor on meta does nothing.

    It would have no effect, but to draw normal values on meta torch imports its compiler, which takes longer than to
    load many a model.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


class DefaultFloatDtype(TorchFunctionMode):
    """In this thread only, new floating-point tensors for which no dtype is named get `dtype` instead of float32.

    What `torch.set_default_dtype` does for the whole process.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _FACTORIES and kwargs.get("dtype") is None and result.dtype == torch.get_default_dtype():
            return result.detach().to(self.dtype).requires_grad_(result.requires_grad)
        return result


def init_parameters(model_class: type) -> frozenset[str]:
    """Return the names of the keywords that the constructor of `model_class` takes beside its config."""
    parameters = list(inspect.signature(model_class.__init__).parameters.values())[2:]  # type: ignore[misc]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in named)


def takes_factory_arguments(model_class: type) -> bool:
    """Tell whether the constructor of `model_class` takes `device` and `dtype`."""
    return {"device", "dtype"} <= init_parameters(model_class)


def construct(
    model_class: type,
    config: Any,
    *args: Any,
    device: torch.device | str | None,
    dtypes: Mapping[str, torch.dtype],
    **kwargs: Any,
) -> Any:
    """Return `model_class(config)` on `device` (a class of the 4.x kind: on the CPU).

    `dtypes`: that of all parameters under "", and those of the models inside which have a sub-config for their config,
    under its name. In float16, what lies in the modules that its class, or that of a model inside, names in
    `_keep_in_fp32_modules` stays float32, and in bfloat16 too what lies in those of `_keep_in_fp32_modules_strict`.
    """
    dtype = dtypes[""]
    if takes_factory_arguments(model_class):
        with _MetaUnfilled():
            model = model_class(config, *args, device=device, dtype=dtype, **kwargs)
    elif dtype == torch.get_default_dtype():
        model = model_class(config, *args, **kwargs)
    else:
        with DefaultFloatDtype(dtype):
            model = model_class(config, *args, **kwargs)
        _cast(model.parameters(), dtype)
    dtype_of = {id(getattr(config, name)): own for name, own in dtypes.items() if name}
    for _, part in named_modules(model):
        own = dtype_of.get(id(vars(part).get("config")))
        if own is not None:
            _cast(part.parameters(), own)
        _cast(_kept_in_fp32(part, own or dtype), torch.float32)
    return model


def _kept_in_fp32(model: nn.Module, dtype: torch.dtype) -> list[nn.Parameter]:
    """Return the parameters that stay float32 though the model is built in `dtype`."""
    modules: list[str] = []
    if dtype in (torch.float16, torch.bfloat16):
        modules += getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    if dtype == torch.float16:
        modules += getattr(model, "_keep_in_fp32_modules", None) or ()
    if not modules:
        return []
    # An entry is one part of a dotted name, or several in a row.
    return [
        parameter
        for name, parameter in model.named_parameters()
        if any(f".{module}." in f".{name}." for module in modules)
    ]


def _cast(parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    for parameter in parameters:
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
