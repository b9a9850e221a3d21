"""GradientCheckpointingLayer: a layer that can forget its activations and compute them again in the backward.

From the outside inwards: a call of the layer runs module hooks, once; `forward` of the outermost class, wrapped by
this file, calls torch.utils.checkpoint.checkpoint, or the function that the model was given; that runs `forward`
itself, once now and once more in the backward, with the same dropout.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

# The keywords by which layers of different models get a cache.
_CACHES = ("past_key_values", "past_key_value", "layer_past")


class GradientCheckpointingLayer(nn.Module):
    """Base of layers that are recomputed in the backward while `gradient_checkpointing` is True.

    A subclass only defines `forward`. Recomputation takes place in training with gradients enabled; the layer then gets
    no cache, which is said once. Positional and keyword tensors keep their gradients; a tensor that needs one and lies
    in a list, a tuple or a dictionary raises InputError under `use_reentrant=True`. Set both attributes by
    `model.gradient_checkpointing_enable()` or `model.set_gradient_checkpointing()`.
    Source: Chen et al. 2016 (arXiv 1604.06174).
    """

    gradient_checkpointing: bool = False
    _gradient_checkpointing_func: Callable[..., Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            cls.forward = _recomputed(vars(cls)["forward"])


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        # `super().forward()` in a subclass comes here too, inside what is recomputed already.
        outermost = type(self).forward is wrapper
        if not (outermost and self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return forward(self, *args, **kwargs)
        function = self._gradient_checkpointing_func or default_function()
        kwargs = _without_caches(type(self).__name__, kwargs)
        if not is_reentrant(function):
            return function(functools.partial(forward, self, **kwargs), *args)
        _check_reentrant(type(self).__name__, args, kwargs)
        # That kind of checkpoint gives gradients to what it is passed by position only.
        tensors = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}

        def by_position(*given: Any) -> Any:
            named = dict(zip(tensors, given[len(args) :], strict=True))
            return forward(self, *given[: len(args)], **{**kwargs, **named})

        return function(by_position, *args, *tensors.values())

    return wrapper


def default_function(**kwargs: Any) -> Callable[..., Any]:
    """Return torch's checkpoint function with `kwargs` bound, not reentrant unless they say so."""
    return functools.partial(checkpoint, **{"use_reentrant": False, **kwargs})


def is_reentrant(function: Callable[..., Any]) -> bool:
    """Tell whether `function` is a partial of torch's checkpoint function with `use_reentrant=True`."""
    return bool(getattr(function, "keywords", {}).get("use_reentrant"))


def _without_caches(where: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return `kwargs` without a cache; say once what was switched off."""
    changed: dict[str, Any] = {name: None for name in _CACHES if kwargs.get(name) is not None}
    if kwargs.get("use_cache"):
        changed["use_cache"] = False
    if changed:
        switched = ", ".join(f"{name}={value}" for name, value in changed.items())
        logger.warning_once(f"Caching is incompatible with gradient checkpointing in {where}: setting {switched}.")
    return {**kwargs, **changed}


def _check_reentrant(where: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for name, value in (*((f"argument {place}", arg) for place, arg in enumerate(args)), *kwargs.items()):
        if not isinstance(value, Tensor) and any(tensor.requires_grad for tensor in _tensors(value)):
            raise InputError(
                f"{where}: {name} holds a tensor that needs a gradient, to which checkpointing with use_reentrant=True "
                "gives none, because it lies in a list, a tuple or a dictionary: use use_reentrant=False"
            )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
