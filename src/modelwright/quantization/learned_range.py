"""Clip: limits that are learned, for quantizers with `learn_amax`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from modelwright.core.errors import InputError


class _Clip(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
        ctx.save_for_backward(x, minimum, maximum)
        return torch.maximum(torch.minimum(x, maximum), minimum)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, minimum, maximum = ctx.saved_tensors
        (gradient,) = gradients
        above, below = x > minimum, x < maximum
        own = gradient * above * below
        of_minimum = (gradient * ~above).sum().to(minimum.dtype) if ctx.needs_input_grad[1] else None
        of_maximum = (gradient * ~below).sum().to(maximum.dtype) if ctx.needs_input_grad[2] else None
        return own, of_minimum, of_maximum


def clip(inputs: Tensor, clip_value_min: Tensor, clip_value_max: Tensor) -> Tensor:
    """Return `inputs` limited to two scalars; each gets the gradient of what it limits.

    Source: PACT, Choi et al. 2018 (arXiv 1805.06085).
    """
    result: Tensor = _Clip.apply(inputs, clip_value_min, clip_value_max)  # type: ignore[no-untyped-call]
    return result


class Clip(nn.Module):
    """Limits its input to two scalars, which are parameters if they are to be learned."""

    clip_value_min: Tensor
    clip_value_max: Tensor

    def __init__(
        self, clip_value_min: Any, clip_value_max: Any, learn_min: bool = False, learn_max: bool = False
    ) -> None:
        super().__init__()
        for name, value, learned in (
            ("clip_value_min", clip_value_min, learn_min),
            ("clip_value_max", clip_value_max, learn_max),
        ):
            limit = torch.as_tensor(value, dtype=torch.float32)
            if learned and limit.numel() != 1:
                raise InputError(f"Clip: expected {name} to be one number to learn it, got {tuple(limit.shape)}")
            if learned:
                setattr(self, name, nn.Parameter(limit.clone()))
            else:
                self.register_buffer(name, limit.clone(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `inputs`, limited."""
        return clip(inputs, self.clip_value_min, self.clip_value_max)
