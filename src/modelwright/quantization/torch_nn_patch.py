"""The toolkit's `initialize()`: models that are built after it have quantized layers, because torch.nn names those.

It changes torch for the whole process, which `swap` does not need; it is here for code written for the toolkit.
"""

from collections.abc import Iterable
from typing import Any

import torch

from modelwright.core.errors import InputError
from modelwright.quantization.layers import QuantConv1d, QuantConv2d, QuantLinear

_LAYERS: tuple[tuple[Any, str, type], ...] = (
    (torch.nn, "Linear", QuantLinear),
    (torch.nn, "Conv1d", QuantConv1d),
    (torch.nn, "Conv2d", QuantConv2d),
)
_replaced: list[tuple[Any, str, Any]] = []


def initialize(
    float_module_list: Iterable[str] | None = None,
    custom_quant_modules: Iterable[tuple[Any, str, type]] | None = None,
) -> None:
    """Let `torch.nn.Linear`, `Conv1d` and `Conv2d` be the quantized layers until `deactivate()`.

    float_module_list: names to leave alone. custom_quant_modules: (module, name, class) to replace as well. Raises
    InputError if it is in force already, for an unknown name in the list, or for what the module does not have.
    """
    if _replaced:
        raise InputError("quant_modules.initialize: already in force; call deactivate() first")
    left = set(float_module_list or ())
    if unknown := left - {name for _, name, _ in _LAYERS}:
        raise InputError(
            f"quant_modules.initialize: float_module_list has {sorted(unknown)}; the layers that are replaced are "
            f"{', '.join(name for _, name, _ in _LAYERS)}"
        )
    layers = [entry for entry in _LAYERS if entry[1] not in left] + list(custom_quant_modules or ())
    for module, name, _ in layers:
        if not hasattr(module, name):
            raise InputError(f"quant_modules.initialize: {getattr(module, '__name__', module)} has no {name}")
    for module, name, replacement in layers:
        _replaced.append((module, name, getattr(module, name)))
        setattr(module, name, replacement)


def deactivate() -> None:
    """Undo `initialize()`."""
    while _replaced:
        module, name, original = _replaced.pop()
        setattr(module, name, original)
