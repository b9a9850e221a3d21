"""The one place where Keras is imported. Every module of this room takes `keras` and `ops` from here."""

from typing import Any

from modelwright.core.errors import MissingPackageError
from modelwright.core.optional import is_available, require

_BACKENDS = ("jax", "tensorflow", "torch")


def import_keras() -> Any:
    """Import Keras 3; raise MissingPackageError if it, or the backend that it is set to, is not installed."""
    why = "modelwright.keras_layers"
    try:
        keras: Any = require("keras", extra="keras", why=why)
    except ModuleNotFoundError as error:
        if error.name not in _BACKENDS:
            raise
        present = ", ".join(name for name in _BACKENDS if is_available(name)) or "none of them"
        raise MissingPackageError(
            f"{why} needs Keras's backend, which is set to {error.name!r} and is not installed: install it, or set the "
            f"environment variable KERAS_BACKEND to jax, tensorflow or torch (installed: {present}) before Keras is "
            "first imported"
        ) from error
    if not hasattr(keras, "ops"):
        raise MissingPackageError(
            f"{why} needs Keras 3, but Keras {keras.__version__} is installed: pip install 'modelwright[keras]'"
        )
    return keras


keras: Any = import_keras()
ops: Any = keras.ops
