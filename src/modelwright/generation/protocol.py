"""What decoding needs of a model, and how its signature is read."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch


class GenerativeModel(Protocol):
    """A model that `generate` can decode with.

    Called with what `prepare_inputs_for_generation` returns, it gives an object with `logits`
    [batch, tokens, vocabulary], of which the last position is used (`_next_token_logits` may choose others). A model
    with a cache also gives it (`past_key_values`), finds it again among the keywords of the next
    `prepare_inputs_for_generation`, and says so by `_supports_generation_cache = True`.
    """

    config: Any
    _supports_generation_cache: bool

    @property
    def device(self) -> torch.device:
        """The device that the model expects its inputs on."""
        ...

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Return the keywords of one call, given all ids so far [batch, tokens] and the caller's keywords."""
        ...

    def _next_token_logits(self, outputs: Any, inputs: dict[str, Any]) -> torch.Tensor: ...

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]: ...

    def _position_limit(self) -> int | None: ...

    def __call__(self, **kwargs: Any) -> Any:
        """Run the model."""
        ...


def call_parameters(model: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of the model's `forward`, or of its `__call__` if it is no torch module."""
    return inspect.signature(model.forward if hasattr(model, "forward") else model.__call__).parameters


def accepted_keywords(model: Any) -> set[str]:
    """Return the keywords of `generate` that end up in the model.

    Those of `prepare_inputs_for_generation`, and those of the call if it hands further keywords on.
    """
    prepare = inspect.signature(model.prepare_inputs_for_generation).parameters
    names = {name for name, each in prepare.items() if each.kind is not each.VAR_KEYWORD}
    if len(names) < len(prepare) or "model_kwargs" in names:
        names |= {name for name, each in call_parameters(model).items() if each.kind is not each.VAR_KEYWORD}
    return names - {"input_ids", "model_kwargs", "return_dict", "labels"}
