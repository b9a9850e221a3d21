"""The initializer of all weights."""

from typing import Any

from modelwright.core.errors import InputError
from modelwright.keras_layers.keras_api import keras


def get_initializer(initializer_range: float = 0.02) -> Any:
    """Return a `keras.initializers.TruncatedNormal` of standard deviation `initializer_range` before it is cut.

    It is cut at two standard deviations, so samples have 0.88 of that deviation (Keras 3.15 on torch lets about four in
    a million pass). Raises InputError if the range is not a positive number.
    """
    number = isinstance(initializer_range, int | float) and not isinstance(initializer_range, bool)
    if not number or not initializer_range > 0:
        raise InputError(
            f"get_initializer: expected initializer_range to be a number above 0, got {initializer_range!r}"
        )
    return keras.initializers.TruncatedNormal(stddev=initializer_range)
