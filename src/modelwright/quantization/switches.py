"""All quantizers of a model at once: find them, switch them, calibrate; what a block switches is as before after it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from modelwright.core.errors import InputError
from modelwright.quantization.calibrators import HistogramCalibrator
from modelwright.quantization.quantizer import TensorQuantizer

_SWITCHES = ("_disabled", "_if_quant", "_if_calib", "_if_clip")


def quantizers_of(model: nn.Module, pattern: str = "") -> dict[str, TensorQuantizer]:
    """Return the quantizers of a model whose name matches a regular expression somewhere, by name."""
    found = re.compile(pattern)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, TensorQuantizer) and found.search(name)
    }


@contextmanager
def switches_restored(model: nn.Module) -> Iterator[None]:
    """Give every quantizer of the model the switches again that it had when the block began, also after an error."""
    before = {q: {name: getattr(q, name) for name in _SWITCHES} for q in quantizers_of(model).values()}
    try:
        yield
    finally:
        for quantizer, switches in before.items():
            for name, value in switches.items():
                setattr(quantizer, name, value)


@contextmanager
def quantization_disabled(model: nn.Module, pattern: str = "") -> Iterator[None]:
    """Run the model without the quantizers that `pattern` matches; by default, the float model."""
    with switches_restored(model):
        for quantizer in quantizers_of(model, pattern).values():
            quantizer.disable()
        yield


@contextmanager
def calibrating(model: nn.Module, pattern: str = r"_input_quantizer$") -> Iterator[None]:
    """Let the quantizers that `pattern` matches look at what passes, in float; then call `load_ranges`."""
    with switches_restored(model):
        for quantizer in quantizers_of(model).values():
            quantizer.disable_quant()
        for quantizer in quantizers_of(model, pattern).values():
            if not quantizer.per_token:
                quantizer.enable_calib()
        yield


def load_ranges(model: nn.Module, method: str = "max", pattern: str = r"_input_quantizer$", **kwargs: Any) -> list[str]:
    """Give the calibrated quantizers their ranges and return the names of those that saw no tensor, whose range stays.

    method: "max", or for quantizers with a histogram "percentile", "entropy" or "mse"; `kwargs` go with it
    (`percentile=`, `stride=`, `start_bin=`). Raises InputError for such a method where there is no histogram.
    """
    unseen = []
    for name, quantizer in quantizers_of(model, pattern).items():
        if quantizer.per_token:
            continue
        if quantizer.calibrator.compute_range() is None:
            unseen.append(name)
        elif isinstance(quantizer.calibrator, HistogramCalibrator):
            # All of a histogram's numbers are within its 100th percentile.
            chosen: dict[str, Any] = (
                {"method": "percentile", "percentile": 100.0} if method == "max" else {"method": method}
            )
            quantizer.load_calib_amax(**{**chosen, **kwargs})
        elif method == "max":
            quantizer.load_calib_amax()
        else:
            raise InputError(
                f"load_ranges: {name} keeps the largest number only; for {method!r} make its descriptor with "
                "calib_method='histogram'"
            )
    return unseen
