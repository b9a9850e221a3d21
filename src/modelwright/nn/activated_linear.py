"""The second half of a feed-forward block, which keeps its input and nothing else for the backward.

An activation costs a hundredth of the product behind it, and its output is as large as its input: computing it again
costs no time that one can measure and saves a third of what a Transformer's layer keeps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.nn.activations import Activation
from modelwright.nn.decode_layout import apply_linear, is_hooked, is_plain_linear
from modelwright.nn.dropout import seeded_dropout
from modelwright.nn.precision import autocast_dtype
from modelwright.nn.products import is_watched, linear


def activated_linear(
    layer: nn.Module, activation: Callable[[Tensor], Tensor], inner: Tensor, dropout: float = 0.0
) -> Tensor:
    """Return `layer(dropout(activation(inner)))`, (..., F) -> (..., outputs); 0 <= `dropout` < 1.

    While gradients are recorded, the activation and what is dropped are made again in the backward, from a seed that is
    drawn from torch's own stream. Without gradients the same is dropped, as a reentrant checkpoint needs. Layers and
    activations that could do more than that (hooks, other classes) are called, and so is everything where other code
    looks into (tracing, function transforms).
    """
    if (
        (torch.is_grad_enabled() or dropout)
        and is_plain_linear(layer)
        and type(activation) is Activation
        and not is_hooked(activation)
        and not is_watched(inner, layer.weight, *(() if layer.bias is None else (layer.bias,)))  # type: ignore[arg-type]
    ):
        weight, bias, device = layer.weight, layer.bias, inner.device.type
        seed = int(torch.randint(2**62, (), device="cpu")) if dropout else None
        dtype = autocast_dtype(inner)
        if dtype is not None:
            inner, weight = inner.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            call = (activation, dropout, seed)
            result: Tensor = _ActivatedLinear.apply(inner, weight, bias, *call)  # type: ignore[no-untyped-call]
        return result
    active = activation(inner)
    if dropout:
        active = nn.functional.dropout(active, dropout)
    return apply_linear(layer, active)


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inner: Tensor, weight: Tensor, bias: Tensor | None, activation: Any, dropout: float, seed: int | None
    ) -> Tensor:
        ctx.save_for_backward(inner, weight if ctx.needs_input_grad[0] else None)
        ctx.call = (activation, dropout, seed)
        return linear(_active(inner, *ctx.call), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inner, weight = ctx.saved_tensors
        of_inner, of_weight, of_bias = ctx.needs_input_grad[:3]
        twice = torch.is_grad_enabled()
        if not twice:
            inner = inner.detach().requires_grad_(of_inner)
        with torch.enable_grad():
            active = _active(inner, *ctx.call)
        rows_RN = grad.reshape(-1, grad.shape[-1])
        d_inner = None
        if of_inner:
            (d_inner,) = torch.autograd.grad(active, inner, linear(grad, weight.t()), create_graph=twice)
        active = active if twice else active.detach()
        d_weight = linear(rows_RN.t(), active.reshape(-1, active.shape[-1]).t()) if of_weight else None
        return d_inner, d_weight, rows_RN.sum(dim=0) if of_bias else None, None, None, None


def _active(inner: Tensor, activation: Any, dropout: float, seed: int | None) -> Tensor:
    active: Tensor = activation(inner)
    if seed is None:
        return active
    return seeded_dropout(active, dropout, torch.Generator(inner.device).manual_seed(seed))
