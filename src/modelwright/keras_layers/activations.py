"""Activation functions for Keras by the names that configurations use."""

import math
from collections.abc import Callable
from typing import Any

from modelwright.core.errors import check_choice
from modelwright.keras_layers.keras_api import ops

Function = Callable[[Any], Any]


def _gelu_tanh(x: Any) -> Any:
    """GELU's tanh approximation (Hendrycks and Gimpel 2016, section 2)."""
    return ops.gelu(x, approximate=True)


def _gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=False)


def _mish(x: Any) -> Any:
    return x * ops.tanh(ops.softplus(x))


def _laplace(x: Any) -> Any:
    """The Laplace attention function of Mega (Ma et al. 2022, section 3.2)."""
    return 0.5 * (1.0 + ops.erf((x - 0.707107) / (0.282095 * math.sqrt(2.0))))


# The names of modelwright.nn.activations, so that a configuration means the same on both sides.
FUNCTIONS: dict[str, Function] = {
    "gelu": _gelu,
    "gelu_10": lambda x: ops.clip(_gelu(x), -10.0, 10.0),
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python": _gelu,
    "laplace": _laplace,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": _mish,
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": lambda x: ops.relu(x),
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": lambda x: ops.relu6(x),
    "sigmoid": lambda x: ops.sigmoid(x),
    "silu": lambda x: ops.silu(x),
    "swish": lambda x: ops.silu(x),
    "tanh": lambda x: ops.tanh(x),
}


def get_tf_activation(activation_string: str | Function) -> Function:
    """Return the activation function of that name, or the argument itself if it already is a function.

    Raises InputError, with the known names, if the name is unknown.
    """
    if callable(activation_string):
        return activation_string
    check_choice("activation", activation_string, FUNCTIONS)
    return FUNCTIONS[activation_string]
