"""Modules whose calls nobody watches, so that code may do what they do without calling them.

To call a module, and to look up its parts, costs more than the product of one row with a small weight. Code that does
the same for token after token takes what it needs of the modules once, and for each token asks in one go whether the
modules are still what they were.
"""

from collections.abc import Iterable
from itertools import chain, repeat
from operator import is_

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from modelwright.nn.decode_layout import is_hooked
from modelwright.nn.tracing import is_recorded

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unwatched:
    """Modules as they were found, without hooks: their classes, parts, parameters, and where these lie in memory."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(modules)
        self._types = list(map(type, self._modules))
        # These dictionaries are the modules' own, and change in place.
        self._own = [vars(module) for module in self._modules]
        self._tables = [each for module in self._modules for each in (module._modules, module._parameters)]
        self._hooks = [getattr(module, name) for module in self._modules for name in _HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in _HOOKS]
        self._parts = list(chain.from_iterable(map(dict.values, self._tables)))
        self._tensors = [each for each in self._parts if isinstance(each, Tensor)]
        self._places = [each.data_ptr() for each in self._tensors]
        self._threads = torch.get_num_threads()
        self._were_plain = not any(map(is_hooked, self._modules))

    def hold(self) -> bool:
        """Tell whether the modules are as they were found and nobody follows this call, nor autocast or a gradient."""
        parts = list(chain.from_iterable(map(dict.values, self._tables)))
        return (
            self._were_plain
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not is_recorded()
            and not any(self._hooks)
            and not any(map(dict.get, self._own, repeat("forward")))
            and not any(map(dict.get, self._own, repeat("_compiled_call_impl")))
            and list(map(type, self._modules)) == self._types
            and len(parts) == len(self._parts)
            and all(map(is_, parts, self._parts))
            and [each.data_ptr() for each in self._tensors] == self._places
            and torch.get_num_threads() == self._threads
        )
