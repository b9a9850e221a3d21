"""Conv1D: the linear layer of GPT and GPT-2, whose weight lies the other way round."""

import torch
from torch import Tensor, nn


class Conv1D(nn.Module):
    """A linear layer with the weight stored as [inputs, outputs]: (..., nx) -> (..., nf).

    The name is from the original code, where the layer was a convolution of width 1. Weights start normal with
    standard deviation 0.02, the bias at zero. GPT-2's checkpoints are in this layout.
    Source: Radford et al. 2018.
    """

    def __init__(
        self, nf: int, nx: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.nf = nf
        self.nx = nx
        self.weight = nn.Parameter(torch.empty(nx, nf, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(nf, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight and set the bias to zero."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, for `print(model)`."""
        return f"nf={self.nf}, nx={self.nx}"

    def forward(self, x: Tensor) -> Tensor:
        """Return x W + b."""
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)
