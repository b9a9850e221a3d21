"""TFConv1D: the linear layer of GPT and GPT-2, whose weight lies the other way round."""

from typing import Any

from modelwright.core.errors import InputError
from modelwright.keras_layers.initializers import get_initializer
from modelwright.keras_layers.keras_api import keras, ops


def check_size(where: str, value: object) -> int:
    """Return `value`; raise InputError if it is not an integer above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where}: expected an integer above 0, got {value!r}")
    return value


@keras.saving.register_keras_serializable(package="modelwright")
class TFConv1D(keras.layers.Layer):
    """A linear layer with weight [nx, nf] and bias [1, nf]: (..., nx) -> (..., nf).

    The name is from the original code, where the layer was a convolution of width 1. Weights start from
    `get_initializer(initializer_range)`, the bias at zero. Further keywords go to `keras.layers.Layer`.
    Raises InputError for sizes that are none, and for inputs whose last axis is not `nx`. Source: Radford et al. 2018.
    """

    built: bool

    def __init__(self, nf: int, nx: int, initializer_range: float = 0.02, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nf = check_size("TFConv1D nf", nf)
        self.nx = check_size("TFConv1D nx", nx)
        self.initializer_range = initializer_range
        self.initializer = get_initializer(initializer_range)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Make the weights, once."""
        if self.built:
            return
        self.weight = self.add_weight(shape=(self.nx, self.nf), initializer=self.initializer, name="weight")
        self.bias = self.add_weight(shape=(1, self.nf), initializer="zeros", name="bias")
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """Return the shape of the result."""
        return (*self._checked(input_shape)[:-1], self.nf)

    def call(self, inputs: Any) -> Any:
        """Return x W + b."""
        self._checked(inputs.shape)
        return ops.matmul(inputs, self.weight) + self.bias[0]

    def _checked(self, input_shape: Any) -> tuple[Any, ...]:
        shape = tuple(input_shape)
        if not shape or shape[-1] not in (self.nx, None):
            raise InputError(f"{self.name} (TFConv1D): expected inputs of shape (..., {self.nx}), got {shape}")
        return shape

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same layer again."""
        own = {"nf": self.nf, "nx": self.nx, "initializer_range": self.initializer_range}
        return {**super().get_config(), **own}
