"""The methods of a model that switch gradient checkpointing on and off, for its own layers and for 4.x's kind."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modelwright.core.errors import InputError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.nn.checkpointing import GradientCheckpointingLayer, default_function

logger = get_logger(__name__)

# `preserve_rng_state` hides in checkpoint's **kwargs.
_KEYWORDS = {"use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop"}


class GradientCheckpointingMixin:
    """Gradient checkpointing of a whole model: less memory in training for one more forward."""

    # Why checkpointing has nothing to do in this family, for one that stores no activations anyway.
    _gradient_checkpointing_exemption: ClassVar[str | None] = None
    _require_grads_hook: Any = None

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the model has layers that can be recomputed."""
        return self._gradient_checkpointing_exemption is not None or any(True for _ in _checkpointed(self))

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether checkpointing is switched on for any layer."""
        return any(module.gradient_checkpointing for module in _checkpointed(self))

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, every_n_layers: int = 1
    ) -> None:
        """Recompute layers in the backward instead of storing their activations.

        gradient_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`; without them it is not reentrant.
        every_n_layers: recompute the first of every n layers only, counted through the model; 1 is all of them.
        Raises InputError for a model without such layers or a number below 1, UnknownArgumentError for other keywords.
        """
        where = f"{type(self).__name__}.gradient_checkpointing_enable"
        kwargs = dict(gradient_checkpointing_kwargs or {})
        for name in kwargs:
            if name not in _KEYWORDS:
                raise UnknownArgumentError(
                    f"{where} got an unknown keyword {name!r} in gradient_checkpointing_kwargs."
                    f"{nearest(name, _KEYWORDS)}"
                )
        if isinstance(every_n_layers, bool) or not isinstance(every_n_layers, int) or every_n_layers < 1:
            raise InputError(
                f"{where}: expected every_n_layers to be a whole number of 1 or more, got {every_n_layers!r}"
            )
        self._switch(where, default_function(**kwargs), every_n_layers)
        if kwargs.get("use_reentrant") and getattr(self, "_hf_peft_config_loaded", False):
            # The reentrant kind gives no gradient to what lies behind frozen embeddings.
            self.enable_input_require_grads()

    def gradient_checkpointing_disable(self) -> None:
        """Store activations again."""
        if getattr(self, "_hf_peft_config_loaded", False):
            self.disable_input_require_grads()
        if _old_hook(self):
            cast(nn.Module, self).apply(lambda module: cast(Any, self)._set_gradient_checkpointing(module, value=False))
        for module in _checkpointed(self):
            module.gradient_checkpointing = False

    def set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] | None = None
    ) -> None:
        """Switch checkpointing on, with a function called as func(layer_call, *tensors), or off.

        gradient_checkpointing_func: None is torch's, not reentrant.
        Raises InputError for a model without layers that can be recomputed.
        """
        if not enable:
            self.gradient_checkpointing_disable()
            return
        function = gradient_checkpointing_func
        if function is None or function is checkpoint:
            function = default_function()
        self._switch(f"{type(self).__name__}.set_gradient_checkpointing", function, 1)

    def enable_input_require_grads(self) -> None:
        """Make the embeddings' output need a gradient, so that adapters on a frozen model can be trained."""
        self.disable_input_require_grads()
        embeddings: nn.Module = cast(Any, self).get_input_embeddings()
        self._require_grads_hook = embeddings.register_forward_hook(_require_grad)

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        if self._require_grads_hook is not None:
            self._require_grads_hook.remove()
            self._require_grads_hook = None

    def _switch(self, where: str, function: Callable[..., Any], every_n_layers: int) -> None:
        if self._gradient_checkpointing_exemption is not None:
            logger.warning_once(f"{where} changes nothing: {self._gradient_checkpointing_exemption}.")
            return
        if _old_hook(self):
            cast(nn.Module, self).apply(lambda module: cast(Any, self)._set_gradient_checkpointing(module, value=True))
            return
        if not self.supports_gradient_checkpointing:
            raise InputError(f"{where}: {type(self).__name__} has no layers that can be recomputed")
        count = 0
        for module in _checkpointed(self):
            chosen = True
            if isinstance(module, GradientCheckpointingLayer):
                chosen, count = count % every_n_layers == 0, count + 1
            module._gradient_checkpointing_func = function
            module.gradient_checkpointing = chosen


def _checkpointed(model: Any) -> Iterator[Any]:
    """Yield the modules with the attribute `gradient_checkpointing`: layers of ours, and models of the 4.x kind."""
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            yield module


def _old_hook(model: Any) -> bool:
    """Tell whether the class has the hook of early 4.x, which is called with each module and a value."""
    hook = getattr(model, "_set_gradient_checkpointing", None)
    return hook is not None and "value" in inspect.signature(hook).parameters


def _require_grad(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)
