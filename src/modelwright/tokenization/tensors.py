"""Lists of token ids to arrays; torch, TensorFlow and JAX are imported only when an array of theirs is asked for."""

import sys
from importlib import import_module
from typing import Any

import numpy as np

from modelwright.core.errors import InputError, MissingPackageError, check_choice
from modelwright.core.optional import is_available
from modelwright.tokenization.strategies import TensorType

_PACKAGES = {TensorType.PYTORCH: "torch", TensorType.TENSORFLOW: "tensorflow", TensorType.JAX: "jax"}


def parse_tensor_type(where: str, name: str | TensorType) -> TensorType:
    """Return the array type that `name` ("pt", "tf", "jax", "np") stands for.

    Raises InputError for another one, MissingPackageError when its package is not installed.
    """
    check_choice(f"{where}: return_tensors", getattr(name, "value", name), [each.value for each in TensorType])
    kind = TensorType(name)
    package = _PACKAGES.get(kind)
    if package is not None and not is_available(package):
        raise MissingPackageError(
            f"{where}: return_tensors={kind.value!r} needs the package {package!r}, which is not installed: "
            f"pip install {package}"
        )
    return kind


# What tensorflow.constant makes of a list.
_TENSORFLOW_DTYPES = {"int64": "int32", "float64": "float32"}


def is_torch_tensor(value: Any) -> bool:
    """Tell whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_list(value: Any) -> Any:
    """Return `value` with an array or tensor turned into nested lists of Python numbers."""
    if isinstance(value, (np.ndarray, np.generic)) or is_torch_tensor(value):
        return value.tolist()
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value


def ids_of_row(where: str, value: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return one row of ids, given as a number, a list, an array or a tensor, as int64 [tokens].

    Raises InputError for a batch and for something that is not a whole number.
    """
    if is_torch_tensor(value):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(value, dtype=object)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, dtype=np.int64)
    if array.ndim > 1 or any(hasattr(item, "__len__") for item in (array if array.dtype == object else ())):
        raise InputError(f"{where}: expected one row of ids, got a batch. Use batch_decode.")
    if array.dtype.kind not in "iu":
        raise InputError(f"{where}: expected whole numbers, got {array.dtype.name}.")
    return np.atleast_1d(array).astype(np.int64)


def to_array(name: str, value: Any, kind: TensorType, *, prepend_batch_axis: bool = False) -> Any:
    """Return the field `name` as an array of type `kind`.

    Whole numbers are int64 in torch and numpy; TensorFlow and JAX get their own defaults, int32 and float32.
    Raises InputError when the rows differ in length or hold something that is not a number.
    """
    if is_torch_tensor(value):
        array = value.unsqueeze(0) if prepend_batch_axis else value
        if kind is TensorType.PYTORCH:
            return array
        value, prepend_batch_axis = array.detach().cpu().numpy(), False
    array = _to_numpy(name, [value] if prepend_batch_axis else value)
    if kind is TensorType.NUMPY:
        return array
    if kind is TensorType.JAX:
        return import_module(_PACKAGES[kind]).numpy.asarray(array)
    if kind is TensorType.TENSORFLOW:
        return import_module(_PACKAGES[kind]).constant(array, dtype=_TENSORFLOW_DTYPES.get(array.dtype.name))
    import torch

    # Python's floats become numpy's float64; torch code expects torch's default.
    dtype = torch.get_default_dtype() if array.dtype == np.float64 and not isinstance(value, np.ndarray) else None
    return torch.from_numpy(array).to(dtype) if dtype else torch.from_numpy(array)


def _to_numpy(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(_ragged(name, value)) from error
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iufb":
        raise InputError(
            f"The field {name!r} cannot become a tensor: expected numbers, got {array.dtype.name} "
            f"({str(value)[:80]}). Remove it or convert it first."
        )
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype != np.int64 else array


def _ragged(name: str, value: Any) -> str:
    lengths = sorted({len(row) for row in value if hasattr(row, "__len__")})
    return (
        f"The field {name!r} cannot become a tensor: expected rows of one length, got rows of {lengths[0]} to "
        f"{lengths[-1]} values. Pass padding=True, and truncation=True for rows that are too long."
        if lengths
        else f"The field {name!r} cannot become a tensor: its rows do not nest evenly."
    )
