"""What a quantizer does with the tensors that it sees during calibration, until it is asked for their range."""

from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_tracing
from modelwright.quantization import histogram_search
from modelwright.quantization.ranges import Axis, amax_of, reduce_range, reduced_axes


class CalibrationError(InputError, RuntimeError):
    """A calibrator that was given what it cannot use, or nothing."""


class ChannelHistogramError(InputError, NotImplementedError):
    """A histogram of each channel, which no calibrator collects; `calibrate_weights` does it for weights."""


def check_tensor(x: Any) -> None:
    """Raise CalibrationError if `x` is no tensor of numbers that have a range."""
    if not isinstance(x, Tensor):
        raise CalibrationError(f"calibration: expected a tensor, got {type(x).__name__}; call the model with tensors")
    if not is_tracing() and not torch.isfinite(x).all():
        raise CalibrationError(
            f"calibration: a tensor {tuple(x.shape)} holds NaN or infinity, so it has no range; look for what the "
            "float model makes of the calibration data"
        )


class MaxCalibrator:
    """Keeps the largest |x|, and beside it the smallest and the largest x for quantizers with a zero point.

    axis: the axes that keep a range each. track_amax: also keeps the range of each tensor, in `amaxs`.
    """

    def __init__(self, num_bits: int, axis: Axis, unsigned: bool, track_amax: bool = False) -> None:
        self._num_bits, self._axis, self._unsigned, self._track_amax = num_bits, axis, unsigned, track_amax
        self._amaxs: list[Any] = []
        self._calib_amax: Tensor | None = None
        self._calib_range: tuple[Tensor, Tensor] | None = None

    @property
    def amaxs(self) -> list[Any]:
        """The ranges of the tensors one by one, as arrays, if `track_amax`."""
        return self._amaxs

    def collect(self, x: Tensor) -> None:
        """Look at one tensor.

        Raises CalibrationError (a RuntimeError) if its ranges have another shape than before, and as `check_tensor`.
        """
        check_tensor(x)
        if not x.numel():
            return
        amax = amax_of(x, self._axis)
        minimum, maximum = reduce_range(x, reduced_axes(x, self._axis))
        if self._track_amax:
            self._amaxs.append(amax.cpu().numpy())
        if self._calib_amax is not None and amax.shape != self._calib_amax.shape:
            raise CalibrationError(
                f"MaxCalibrator: ranges of shape {tuple(amax.shape)} after {tuple(self._calib_amax.shape)}; a "
                f"quantizer with axis={self._axis} needs tensors of one size there"
            )
        self._calib_amax = amax.clone() if self._calib_amax is None else torch.maximum(self._calib_amax, amax)
        self._calib_range = _widened(self._calib_range, minimum, maximum)

    def reset(self) -> None:
        """Forget all."""
        self._calib_amax = self._calib_range = None
        self._amaxs = []

    def compute_amax(self) -> Tensor | None:
        """Return the range, or None if no tensor was seen."""
        return self._calib_amax

    def compute_range(self) -> tuple[Tensor, Tensor] | None:
        """Return the smallest and the largest number, or None if no tensor was seen."""
        return self._calib_range

    def __str__(self) -> str:
        return f"MaxCalibrator(track_amax={self._track_amax})"

    def __repr__(self) -> str:
        tracked = f" amaxs={self._amaxs}" if self._track_amax else ""
        return (
            f"MaxCalibrator(num_bits={self._num_bits} axis={self._axis} unsigned={self._unsigned} "
            f"calib_amax={self._calib_amax} track_amax={self._track_amax}{tracked})"
        )


class HistogramCalibrator:
    """Counts |x| in bins of one width, which the first tensor decides: its largest |x| / num_bins.

    Later tensors with larger numbers add bins. The counts are exact whole numbers. For one range of the whole tensor
    only: `axis` must be None. skip_zeros: leaves zeros out. Raises ChannelHistogramError (a NotImplementedError) for an
    axis.
    """

    def __init__(
        self, num_bits: int, axis: Axis, unsigned: bool, num_bins: int = 2048, skip_zeros: bool = False
    ) -> None:
        if axis is not None:
            raise ChannelHistogramError(
                f"HistogramCalibrator: expected axis=None (one range for the tensor), got {axis}; for weights use "
                "calibrate_weights, for activations calib_method='max'"
            )
        self._num_bits, self._axis, self._unsigned = num_bits, axis, unsigned
        self._num_bins, self._skip_zeros = num_bins, skip_zeros
        self._calib_hist: Tensor | None = None
        self._calib_bin_edges: Tensor | None = None
        self._calib_range: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def collect(self, x: Tensor) -> None:
        """Count one tensor; raise as `check_tensor`."""
        check_tensor(x)
        x = x.detach().float().flatten()
        if self._skip_zeros:
            x = x[x != 0]
        if not x.numel():
            return
        self._calib_range = _widened(self._calib_range, *torch.aminmax(x))
        x = x.abs()
        largest = x.max()
        if self._calib_bin_edges is None:
            self._calib_bin_edges = torch.linspace(0, float(largest), self._num_bins + 1, device=x.device)
        elif largest > self._calib_bin_edges[-1]:
            width = self._calib_bin_edges[1] - self._calib_bin_edges[0]
            self._calib_bin_edges = torch.arange(0, float(largest + width), float(width), device=x.device)
        counts = _counts(x, len(self._calib_bin_edges) - 1, float(self._calib_bin_edges[-1]))
        if self._calib_hist is not None:
            counts[: len(self._calib_hist)] += self._calib_hist
        self._calib_hist = counts

    def reset(self) -> None:
        """Forget all."""
        self._calib_hist = self._calib_bin_edges = self._calib_range = None

    def compute_range(self) -> tuple[Tensor, Tensor] | None:
        """Return the smallest and the largest number, or None if no tensor was seen."""
        return self._calib_range

    def compute_amax(
        self, method: str, *, stride: int = 1, start_bin: int = 128, percentile: float = 99.99
    ) -> Tensor | None:
        """Return the range by "entropy", "mse" or "percentile", or None if no tensor was seen.

        stride, start_bin: which bins the first two try as the range. percentile: of the numbers, 0 to 100.
        Raises SearchError (a TypeError) for another method, InputError for another percentile. Source: Wu et al. 2020,
        section 4; see `modelwright.quantization.histogram_search`.
        """
        histogram_search.check_method(method)
        if self._calib_hist is None or self._calib_bin_edges is None:
            return None
        counts, edges = self._calib_hist.cpu().numpy(), self._calib_bin_edges.cpu().numpy()
        return histogram_search.search(
            method,
            counts,
            edges,
            num_bits=self._num_bits,
            unsigned=self._unsigned,
            stride=stride,
            start_bin=start_bin,
            percentile=percentile,
        )

    def __str__(self) -> str:
        edges = self._calib_bin_edges
        text = "None" if edges is None else f"[{edges[0]:.3f}, ..., {edges[-1]:.3f}]({len(edges)})"
        return f"HistogramCalibrator(calib_bin_edges={text})"

    def __repr__(self) -> str:
        return (
            f"HistogramCalibrator(num_bits={self._num_bits} axis={self._axis} unsigned={self._unsigned} "
            f"calib_bin_edges={self._calib_bin_edges} calib_hist={self._calib_hist})"
        )


def _widened(old: tuple[Tensor, Tensor] | None, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
    if old is None:
        return minimum.clone(), maximum.clone()
    return torch.minimum(old[0], minimum), torch.maximum(old[1], maximum)


# Up to this many a float32, in which torch counts, is exact.
_EXACT = 2**24


def _counts(x: Tensor, bins: int, largest: float) -> Tensor:
    parts = (torch.histc(part, bins=bins, min=0, max=largest).to(torch.int64) for part in torch.split(x, _EXACT))
    return torch.stack(list(parts)).sum(dim=0)
