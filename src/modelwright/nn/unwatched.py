"""Modules whose calls nobody watches, so that code may do what they do without calling them.

To call a module, and to look up its parts, costs more than the product of one row with a small weight. Code that does
the same for token after token takes what it needs of the modules once, and for each token asks in one go whether the
modules are still what they were.
"""

from collections.abc import Callable, Mapping
from itertools import chain, repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from modelwright.nn.decode_layout import is_hooked
from modelwright.nn.tracing import is_recorded

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORWARD, _VERSION = attrgetter("forward"), attrgetter("_version")
_PLAIN_TENSORS = {Tensor, nn.Parameter}

Forwards = Mapping[type[nn.Module], Callable[..., Any]]
"""Classes of modules, each with its `forward`."""


def as_written(*classes: type[nn.Module]) -> Forwards:
    """Return classes with what they do now; called where a module of Python is imported, before anybody patches one."""
    return {each: each.forward for each in classes}


class Unwatched:
    """The modules of a list as they were found, without hooks: classes, parts, parameters, and the numbers in these.

    They are of no other classes than those of `forwards`, and their parameters plain tensors in fp32 on the CPU; else
    this never holds. The list itself is watched as well. `in_place`: what is done reads the parameters where they are
    and has no dropout, so that neither the numbers in them nor training mode is looked at.
    """

    def __init__(self, blocks: nn.ModuleList, forwards: Forwards, *, in_place: bool = False) -> None:
        self._blocks, self._forwards = blocks, forwards
        self._modules = list(blocks.modules())
        self._types = list(map(type, self._modules))
        # These dictionaries are the modules' own, and change in place; a patched or compiled call makes them longer.
        self._own = [vars(module) for module in self._modules]
        self._lengths = list(map(len, self._own))
        self._modes = [] if in_place else self._own
        self._training = self._training_now()
        tables: list[dict[str, Any]] = [
            each for module in self._modules for each in (module._modules, module._parameters)
        ]
        self._tables = [each for each in tables if each]
        self._hooks = [getattr(module, name) for module in self._modules for name in _HOOKS]
        self._hooks += [getattr(torch_module, f"_global{name}") for name in _HOOKS]
        self._parts = self._parts_now()
        self._tensors = [each for each in self._parts if isinstance(each, Tensor)]
        self._numbers = [] if in_place else self._tensors
        self._are_plain = (
            all(each in forwards for each in self._types[1:])
            and not any(map(is_hooked, self._modules))
            # A call that is no longer compiled leaves its name, and one that is again does not make it longer.
            and not any("_compiled_call_impl" in each for each in self._own)
            and all(map(is_plain, self._tensors))
            # Changes of inference tensors go unnoticed.
            and not any(map(Tensor.is_inference, self._tensors))
        )
        self._state = self._are_plain and self._state_of_tensors()

    @property
    def in_evaluation(self) -> bool:
        """Whether no module was in training mode, unless that is not looked at."""
        return not any(self._training)

    def hold(self, blocks: nn.ModuleList) -> bool:
        """Tell whether `blocks` are that list, as found, and nobody follows this call, nor autocast or a gradient.

        It takes a few microseconds for ten modules.
        """
        parts = self._parts_now()
        return (
            self._are_plain
            and blocks is self._blocks
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not is_recorded()
            and not any(self._hooks)
            and list(map(len, self._own)) == self._lengths
            and all(map(is_, map(_FORWARD, self._forwards), self._forwards.values()))
            and list(map(type, self._modules)) == self._types
            and self._training_now() == self._training
            and len(parts) == len(self._parts)
            and all(map(is_, parts, self._parts))
            and self._state_of_tensors() == self._state
        )

    def _training_now(self) -> list[bool]:
        return list(map(dict.__getitem__, self._modes, repeat("training")))

    def _parts_now(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._tables)))

    def _state_of_tensors(self) -> tuple[list[int], list[int], int]:
        """Return where the parameters lie and how often they were changed, and the number of threads."""
        places, versions = list(map(Tensor.data_ptr, self._tensors)), list(map(_VERSION, self._numbers))
        return places, versions, torch.get_num_threads()


def is_plain(tensor: Any) -> bool:
    """Tell whether this is an ordinary tensor in fp32 on the CPU."""
    return type(tensor) in _PLAIN_TENSORS and tensor.is_cpu and tensor.dtype == torch.float32
