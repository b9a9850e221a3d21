"""Packages that may be absent: ask whether they are there, or import them with an error that says how to get them."""

import functools
import importlib
import importlib.util
from types import ModuleType

from modelwright.core.errors import MissingPackageError


@functools.cache
def is_available(package: str) -> bool:
    """Tell, without importing it, whether the top-level `package` can be imported."""
    return importlib.util.find_spec(package) is not None


def require(package: str, *, extra: str, why: str) -> ModuleType:
    """Import and return `package`; `extra` is modelwright's extra that installs it, `why` what it is needed for.

    Raises MissingPackageError with the install command if the package is absent.
    """
    if not is_available(package.partition(".")[0]):
        raise MissingPackageError(
            f"{why} needs the package {package!r}, which is not installed: pip install 'modelwright[{extra}]'"
        )
    return importlib.import_module(package)


def is_torch_available() -> bool:
    """Tell whether PyTorch can be imported."""
    return is_available("torch")


def is_accelerate_available() -> bool:
    """Tell whether accelerate can be imported."""
    return is_available("accelerate")


def is_safetensors_available() -> bool:
    """Tell whether safetensors can be imported."""
    return is_available("safetensors")


def is_tokenizers_available() -> bool:
    """Tell whether tokenizers can be imported."""
    return is_available("tokenizers")


def is_sentencepiece_available() -> bool:
    """Tell whether sentencepiece can be imported."""
    return is_available("sentencepiece")


def is_peft_available() -> bool:
    """Tell whether peft can be imported."""
    return is_available("peft")


def is_onnx_available() -> bool:
    """Tell whether onnx can be imported."""
    return is_available("onnx")


def is_onnxruntime_available() -> bool:
    """Tell whether onnxruntime can be imported."""
    return is_available("onnxruntime")


def is_keras_available() -> bool:
    """Tell whether keras can be imported."""
    return is_available("keras")


def is_tf_available() -> bool:
    """Tell whether TensorFlow can be imported."""
    return is_available("tensorflow")


def is_flax_available() -> bool:
    """Tell whether jax and flax can be imported."""
    return is_available("jax") and is_available("flax")


def is_matplotlib_available() -> bool:
    """Tell whether matplotlib can be imported."""
    return is_available("matplotlib")


def is_psutil_available() -> bool:
    """Tell whether psutil can be imported."""
    return is_available("psutil")
