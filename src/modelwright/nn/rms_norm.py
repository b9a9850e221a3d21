"""Normalisation by the root mean square, without a mean and without a bias."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last dimension and scale: (..., size) -> the same.

    Computed in fp32; in half precision the result is rounded before it is scaled, as checkpoints were trained.
    Source: Zhang and Sennrich 2019 (arXiv 1910.07467).
    """

    def __init__(
        self,
        size: int,
        eps: float = 1e-6,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype))
        self.variance_epsilon = eps

    def reset_parameters(self) -> None:
        """Set the scale to one."""
        nn.init.ones_(self.weight)

    def extra_repr(self) -> str:
        """Return the size and eps, for `print(model)`."""
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the scaled, normalised input."""
        size = self.weight.shape
        if hidden_states.dtype == torch.float32:
            return F.rms_norm(hidden_states, size, self.weight, self.variance_epsilon)
        # Without a weight torch computes in fp32 and rounds once, to the dtype of its input.
        return self.weight * F.rms_norm(hidden_states, size, None, self.variance_epsilon)
