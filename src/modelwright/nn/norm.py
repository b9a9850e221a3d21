"""Layer normalisation with its statistics in fp32."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.nn.precision import at_least_float32


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in fp32 and returns the dtype of its weight.

    Shapes: (..., *normalized_shape) -> the same. A half-precision block can so read an fp32 residual stream.
    Source: Ba et al. 2016.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input, in the weight's dtype."""
        if self.weight is not None and input.dtype is self.weight.dtype is torch.float32:
            return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)  # The same, sooner.
        weight = None if self.weight is None else at_least_float32(self.weight)
        bias = None if self.bias is None else at_least_float32(self.bias)
        normed = F.layer_norm(at_least_float32(input), self.normalized_shape, weight, bias, self.eps)
        return normed if self.weight is None else normed.to(self.weight.dtype)


def ready_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """Return a function that does what a norm in fp32 does, and looks nothing up; while `norm` stays what it is."""
    shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
