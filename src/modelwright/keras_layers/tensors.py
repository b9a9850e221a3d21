"""What the layers and losses ask of a tensor on any backend: its shape, its values if it has any yet, its range."""

from typing import Any

import numpy as np

from modelwright.core.errors import InputError
from modelwright.keras_layers.keras_api import keras, ops

_TOO_HIGH = 2.0**30


def shape_list(tensor: Any) -> list[Any]:
    """Return the shape as a list: integers where the size is known.

    An unknown size is None for a symbolic Keras tensor, and a scalar tensor in a TensorFlow graph, where it can be
    used in a reshape. Raises InputError for a tensor whose number of axes is unknown.
    """
    if isinstance(tensor, np.ndarray):
        return list(tensor.shape)
    try:
        return list(ops.shape(tensor))
    except ValueError as error:
        raise InputError(f"shape_list: expected a tensor with a known number of axes: {error}") from error


def concrete(values: Any) -> np.ndarray[Any, Any] | None:
    """Return the numbers that `values` holds, or None while a function is being traced or a model put together."""
    if isinstance(values, np.ndarray | list | tuple | int | float):
        return np.asarray(values)
    if keras.backend.is_keras_tensor(values) or _torch_is_compiling():
        return None
    try:
        array: np.ndarray[Any, Any] = ops.convert_to_numpy(values)
    except (TypeError, AttributeError, NotImplementedError):
        # What JAX's tracers, TensorFlow's graphs and torch's meta tensors answer, in the order TypeError, the others.
        return None
    return array


def _torch_is_compiling() -> bool:
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


def as_integers(where: str, values: Any) -> Any:
    """Return `values` as a tensor of signed integers of 32 bits; raise InputError if they are none.

    Floats without a fraction will do: Keras turns labels into floats for losses that are functions, and takes the
    inputs of a model that it rebuilds for floats.
    """
    array = concrete(values)
    if array is not None:
        _check_whole(where, array)
    if not keras.backend.is_keras_tensor(values):
        values = ops.convert_to_tensor(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    if "float" in dtype:
        # What is not known yet cannot be refused; so it is made something that `inside` will not have.
        values = ops.where(ops.equal(ops.floor(values), values), values, ops.cast(_TOO_HIGH, dtype))
    elif not dtype.startswith(("int", "uint")):
        raise InputError(f"{where}: expected integers, got {dtype}")
    return ops.cast(values, "int32")


def _check_whole(where: str, array: np.ndarray[Any, Any]) -> None:
    if not array.size:
        return
    if array.dtype.kind == "f" and not (np.floor(array) == array).all():
        wrong = array.flat[(np.floor(array) != array).argmax()]
        raise InputError(f"{where}: expected integers, got {wrong}")
    if array.dtype.kind in "iuf":
        widest = array.flat[np.abs(array.astype("float64")).argmax()]
        if not -(2**31) <= widest < 2**31:
            # JAX would cut these to 32 bits, which may turn a wrong number into a right one.
            raise InputError(f"{where}: expected integers of 32 bits, got {int(widest)}")


def as_floats(values: Any) -> Any:
    """Return `values` as a tensor in fp32, or in fp64 if they are: where losses and means are computed."""
    if not keras.backend.is_keras_tensor(values):
        values = ops.convert_to_tensor(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    return values if dtype in ("float32", "float64") else ops.cast(values, "float32")


def check_range(where: str, what: str, values: Any, size: Any, ignored: Any = None, also: str = "") -> None:
    """Raise InputError for the first of `values` that is not in 0 .. size-1 and not `ignored` (a tensor of booleans).

    `also` is the text for what else is allowed. Does nothing while values are not known: see `inside`.
    """
    if not isinstance(size, int):
        return
    array = concrete(values)
    skipped = None if ignored is None else concrete(ignored)
    if array is None or (ignored is not None and skipped is None):
        return
    wrong = (array < 0) | (array >= size)
    if skipped is not None:
        wrong &= ~skipped.astype(bool)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{where}: {what} {int(array[place])} at position {place} is out of range: expected 0 to {size - 1}{also}"
        )


def inside(values: Any, size: Any) -> Any:
    """Tell where `values` are in 0 .. size-1.

    A compiled function cannot raise, and each backend does something else with an index out of range (clips, wraps,
    zeros, NaN), so what is computed from such an index is made NaN, which cannot be taken for a result.
    """
    return ops.logical_and(ops.greater_equal(values, 0), ops.less(values, size))
