"""Modules whose calls nobody watches, so that code may do what they do without calling them.

To call a module, and to look up its parts, costs more than the product of one row with a small weight. Code that does
the same for token after token takes what it needs of the modules once, and for each token asks in one go whether the
modules are still what they were.
"""

from collections.abc import Iterable
from itertools import chain, repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from modelwright.nn.decode_layout import is_hooked
from modelwright.nn.tracing import is_recorded

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TRAINING, _VERSION = attrgetter("training"), attrgetter("_version")


class Unwatched:
    """Modules as they were found, without hooks: their classes, parts and parameters, and the numbers in these."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._types = list(map(type, self._modules))
        self._training = list(map(_TRAINING, self._modules))
        # These dictionaries are the modules' own, and change in place.
        self._own = [vars(module) for module in self._modules]
        tables: list[dict[str, Any]] = [
            each for module in self._modules for each in (module._modules, module._parameters)
        ]
        self._tables = [each for each in tables if each]
        self._hooks = [getattr(module, name) for module in self._modules for name in _HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in _HOOKS]
        self._parts = self._parts_now()
        self._tensors = [each for each in self._parts if isinstance(each, Tensor)]
        # Changes of inference tensors go unnoticed.
        self._are_plain = not any(map(is_hooked, self._modules)) and not any(map(Tensor.is_inference, self._tensors))
        self._state = self._are_plain and self._state_of_tensors()

    @property
    def in_evaluation(self) -> bool:
        """Whether no module is in training mode."""
        return not any(self._training)

    def hold(self) -> bool:
        """Tell whether the modules are as they were found and nobody follows this call, nor autocast or a gradient.

        It takes a few microseconds for ten modules.
        """
        parts = self._parts_now()
        return (
            self._are_plain
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not is_recorded()
            and not any(self._hooks)
            and not any(map(dict.get, self._own, repeat("forward")))
            and not any(map(dict.get, self._own, repeat("_compiled_call_impl")))
            and list(map(type, self._modules)) == self._types
            and list(map(_TRAINING, self._modules)) == self._training
            and len(parts) == len(self._parts)
            and all(map(is_, parts, self._parts))
            and self._state_of_tensors() == self._state
        )

    def _parts_now(self) -> list[Any]:
        return list(chain.from_iterable(table.values() for table in self._tables))

    def _state_of_tensors(self) -> tuple[list[int], list[int], int]:
        """Return where the parameters lie and how often they were changed, and the number of threads."""
        places, versions = list(map(Tensor.data_ptr, self._tensors)), list(map(_VERSION, self._tensors))
        return places, versions, torch.get_num_threads()
