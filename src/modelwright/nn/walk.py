"""Going through the modules of a model."""

from collections.abc import Iterator
from typing import Any

from torch import nn


def named_modules(model: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `model.named_modules()` does, in the same order, without a chain of generators as deep as the model.

    `remove_duplicate`: a module that is there under several names comes once, under the first.
    """
    seen: set[nn.Module] = set()
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if remove_duplicate:
            if module in seen:
                continue
            seen.add(module)
        yield name, module
        prefix = f"{name}." if name else ""
        waiting.extend((prefix + key, child) for key, child in reversed(module._modules.items()) if child is not None)


def modules_with(model: nn.Module, attribute: str) -> Iterator[tuple[str, nn.Module, Any]]:
    """Yield the name, the module and its value for every module that has `attribute` of its own or of its class.

    Not by getattr, which for a module without it searches parameters, buffers and modules and then makes an error.
    """
    has: dict[type, bool] = {}
    for name, module in named_modules(model):
        kind = type(module)
        if kind not in has:
            has[kind] = hasattr(kind, attribute)
        if has[kind] or attribute in module.__dict__:
            yield name, module, getattr(module, attribute)
