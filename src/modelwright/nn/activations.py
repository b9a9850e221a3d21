"""Activation functions by the names that configurations use (`hidden_act="gelu_new"`)."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelwright.core.errors import check_choice


def gelu_new(x: Tensor) -> Tensor:
    """GELU's tanh approximation, as the original BERT and GPT-2 wrote it (Hendrycks and Gimpel 2016, section 2)."""
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    """GELU's sigmoid approximation (Hendrycks and Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


def relu_squared(x: Tensor) -> Tensor:
    """The square of ReLU (So et al. 2021, section 4)."""
    return F.relu(x).square()


def gelu_clipped(x: Tensor) -> Tensor:
    """Exact GELU clipped to [-10, 10], which keeps a quantised range small (Wu et al. 2020, arXiv 2004.09602)."""
    return F.gelu(x).clip(-10.0, 10.0)


def laplace(x: Tensor) -> Tensor:
    """The Laplace attention function of Mega (Ma et al. 2022, section 3.2)."""
    return 0.5 * (1.0 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": gelu_clipped,
    "gelu_fast": gelu_new,
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python": F.gelu,
    "laplace": laplace,
    "leaky_relu": F.leaky_relu,
    "linear": lambda x: x,
    "mish": F.mish,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu_squared,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class Activation(nn.Module):
    """An activation function with a name, as a module without parameters.

    Shapes: any -> the same. Raises InputError if the name is unknown.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        check_choice("activation", name, _FUNCTIONS)
        self.name = name
        self._function = _FUNCTIONS[name]

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function."""
        return self._function(input)

    def extra_repr(self) -> str:
        """Return the name."""
        return self.name


def activate_over(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `activation(x)` of a tensor that nobody reads after this, without gradients.

    Exact GELU, where no hook looks at it, writes its result over x: a new block of memory costs more time than GELU.
    """
    is_gelu = type(activation) is Activation and activation._function is F.gelu
    if is_gelu and not (torch.is_grad_enabled() or activation._forward_hooks or activation._forward_pre_hooks):  # type: ignore[attr-defined]
        return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]
    return activation(x)


class _ActivationTable(Mapping[str, nn.Module]):
    """Maps a name to a new `Activation`; `ACT2FN["gelu"](x)` is what 4.x code writes."""

    def __getitem__(self, name: str) -> nn.Module:
        if name not in _FUNCTIONS:
            raise KeyError(name)
        return Activation(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_FUNCTIONS)

    def __len__(self) -> int:
        return len(_FUNCTIONS)


ACT2FN: Mapping[str, nn.Module] = _ActivationTable()


def get_activation(activation: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the activation of that name, or `activation` itself if it already is a function.

    Raises InputError, with the known names, if the name is unknown.
    """
    return Activation(activation) if isinstance(activation, str) else activation
