"""TensorQuantizer: the module that quantizes one tensor of a model, and calibrates itself on what it sees."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger
from modelwright.quantization import onnx_nodes
from modelwright.quantization.calibrators import CalibrationError, HistogramCalibrator, MaxCalibrator
from modelwright.quantization.descriptor import DescriptorError, QuantDescriptor
from modelwright.quantization.fake_quant import (
    affine_parameters,
    bounds,
    fake_quant_with_zero_point,
    fake_tensor_quant,
    tensor_quant,
)
from modelwright.quantization.learned_range import Clip
from modelwright.quantization.ranges import amax_of, reduce_range, reduced_axes

logger = get_logger(__name__)


class TensorQuantizer(nn.Module):
    """Quantizes a tensor and brings it back; the range is calibrated, given, learned or taken from the tensor at hand.

    A call does, in this order and each if it is on: multiply by `pre_quant_scale`, calibrate, limit, quantize. Without
    a range (no `_amax` in the state) each call takes the range of its own tensor. In an export to ONNX the call becomes
    a pair of QuantizeLinear and DequantizeLinear.

    quant_desc: how to quantize. disabled: hand tensors through. if_quant, if_clip, if_calib: what is on at first;
    limits are on with `learn_amax`. The state has `_amax` (with a zero point also `_amin`) once there is a range, and
    `_pre_quant_scale` if it is set: a checkpoint of one that was not calibrated has the names of the float model.
    """

    # Buffers that there are only once they are set; a loader makes those that a checkpoint has.
    optional_buffers: ClassVar[tuple[str, ...]] = ("_amax", "_amin", "_pre_quant_scale")
    # Use PyTorch's own fake quantization, which differs in the gradient and always uses the full range.
    use_fb_fake_quant: ClassVar[bool] = False

    def __init__(
        self,
        quant_desc: QuantDescriptor | None = None,
        disabled: bool = False,
        if_quant: bool = True,
        if_clip: bool = False,
        if_calib: bool = False,
    ) -> None:
        super().__init__()
        descriptor = QuantDescriptor() if quant_desc is None else quant_desc
        self._num_bits = descriptor.num_bits
        self._unsigned = descriptor.unsigned
        self._narrow_range = descriptor.narrow_range
        self._fake_quant = descriptor.fake_quant
        self._axis = descriptor.axis
        self._scale_amax = descriptor.scale_amax
        self._learn_amax = descriptor.learn_amax
        self._asymmetric = descriptor.asymmetric
        self._per_token = descriptor.per_token
        self._disabled = disabled
        self._if_quant = if_quant
        self._if_clip = False
        self._if_calib = if_calib
        self._scale: Any = 1.0 if descriptor.fake_quant else None
        if descriptor.amax is not None:
            self.register_buffer("_amax", torch.tensor(descriptor.amax))
        if self._learn_amax:
            limit = 1.0 if descriptor.amax is None else descriptor.amax
            self.clip = Clip(-limit, limit, learn_min=True, learn_max=True)
        if self._learn_amax or if_clip:
            self.enable_clip()
        kind = HistogramCalibrator if descriptor.calib_method == "histogram" else MaxCalibrator
        self._calibrator = kind(self._num_bits, self._axis, self._unsigned)

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def num_bits(self) -> int:
        """Bits of an integer; may be set."""
        return self._num_bits

    @num_bits.setter
    def num_bits(self, value: int) -> None:
        self._num_bits = value

    @property
    def unsigned(self) -> bool:
        """Whether the integers begin at 0; may be set."""
        return self._unsigned

    @unsigned.setter
    def unsigned(self, value: bool) -> None:
        self._unsigned = value

    @property
    def narrow_range(self) -> bool:
        """Whether the lowest integer is left out; may be set."""
        return self._narrow_range

    @narrow_range.setter
    def narrow_range(self, value: bool) -> None:
        self._narrow_range = value

    @property
    def axis(self) -> Any:
        """The axes that keep a range each."""
        return self._axis

    @property
    def fake_quant(self) -> bool:
        """Whether the integers are brought back."""
        return self._fake_quant

    @property
    def asymmetric(self) -> bool:
        """Whether there is a zero point."""
        return self._asymmetric or self._per_token

    @property
    def per_token(self) -> bool:
        """Whether each row has a range of its own, taken from the tensor at hand."""
        return self._per_token

    @property
    def is_enabled(self) -> bool:
        """Whether calls quantize."""
        return not self._disabled and self._if_quant

    @property
    def clips(self) -> bool:
        """Whether calls limit tensors to the learned range."""
        return self._if_clip

    @property
    def is_calibrated(self) -> bool:
        """Whether there is a range that does not depend on the tensor at hand."""
        return self._learn_amax or self.amax is not None

    @property
    def calibrator(self) -> MaxCalibrator | HistogramCalibrator:
        """What looks at the tensors during calibration."""
        return self._calibrator

    @property
    def scale(self) -> Any:
        """The scale of the last call that gave integers; 1 with fake quantization."""
        return self._scale

    @property
    def amax(self) -> Tensor | None:
        """The range, or None while each tensor's own is taken; may be set to a float, list or array."""
        amax: Tensor | None = self._buffers.get("_amax")
        return amax

    @amax.setter
    def amax(self, value: Any) -> None:
        if value is None:
            raise InputError("TensorQuantizer: amax=None; use reset_amax() to take each tensor's own range again")
        self.set_amax(torch.as_tensor(np.asarray(value, dtype=np.float32) if not isinstance(value, Tensor) else value))

    @property
    def amin(self) -> Tensor | None:
        """The smallest number of the range of a quantizer with a zero point, whose largest is `amax`."""
        amin: Tensor | None = self._buffers.get("_amin")
        return amin

    @property
    def step_size(self) -> Tensor | None:
        """The distance of two numbers that are told apart, or None without a range."""
        if self.amax is None:
            return None
        if self.amin is not None:
            return affine_parameters(self.amin, self.amax, self._num_bits)[0]
        step: Tensor = self.amax / bounds(self._num_bits, unsigned=self._unsigned, narrow_range=False)[1]
        return step

    @property
    def pre_quant_scale(self) -> Tensor | None:
        """What tensors are multiplied by before anything else, or None; may be set to a tensor."""
        scale: Tensor | None = self._buffers.get("_pre_quant_scale")
        return scale

    @pre_quant_scale.setter
    def pre_quant_scale(self, value: Tensor) -> None:
        self._set_buffer("_pre_quant_scale", value)

    def reset_pre_quant_scale(self) -> None:
        """Multiply by nothing."""
        self._buffers.pop("_pre_quant_scale", None)

    def set_amax(self, amax: Tensor, amin: Tensor | None = None) -> None:
        """Set the range, with a zero point both of its ends; raise DescriptorError (a TypeError) for another shape."""
        if self._asymmetric and amin is None:
            amin = -amax
        self._set_buffer("_amax", amax)
        if self._asymmetric and amin is not None:
            self._set_buffer("_amin", amin)

    def reset_amax(self) -> None:
        """Forget the range, so that each tensor's own is taken."""
        for name in ("_amax", "_amin"):
            if name in self._buffers:
                delattr(self, name)

    def _set_buffer(self, name: str, value: Tensor) -> None:
        value, old = value.detach().clone(), self._buffers.get(name)
        if old is None:
            self.register_buffer(name, value)
            return
        if old.shape != value.shape:
            raise DescriptorError(
                f"TensorQuantizer: {name[1:]} has the shape {tuple(old.shape)}, got {tuple(value.shape)}; "
                "reset_amax() forgets the old range"
            )
        old.copy_(value)

    # --- switches ---------------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """Do what the other switches say."""
        self._disabled = False

    def disable(self) -> None:
        """Hand tensors through."""
        self._disabled = True

    def enable_quant(self) -> None:
        """Quantize."""
        self._if_quant = True

    def disable_quant(self) -> None:
        """Do not quantize, as while calibrating."""
        self._if_quant = False

    def enable_calib(self) -> None:
        """Look at tensors."""
        if self._per_token:
            raise InputError(
                "TensorQuantizer: a per-token quantizer takes the range of each tensor; nothing to calibrate"
            )
        self._if_calib = True

    def disable_calib(self) -> None:
        """Do not look at tensors."""
        self._if_calib = False

    def enable_clip(self) -> None:
        """Limit tensors to the learned range; raise InputError without `learn_amax`."""
        self._switch_clip(True)

    def disable_clip(self) -> None:
        """Do not limit tensors, and learn nothing; raise InputError without `learn_amax`."""
        self._switch_clip(False)

    def _switch_clip(self, on: bool) -> None:
        if not self._learn_amax:
            raise InputError("TensorQuantizer: there is nothing to learn; make it of a descriptor with learn_amax=True")
        self.clip.requires_grad_(on)
        self._if_clip = on

    # --- calibration ------------------------------------------------------------------------------------------------

    def load_calib_amax(self, *args: Any, strict: bool = True, **kwargs: Any) -> None:
        """Take the range that calibration found; the other arguments are those of the calibrator's `compute_amax`.

        strict: raise CalibrationError (a RuntimeError) if no tensor was seen; else the range becomes NaN, and that is
        said.
        """
        amin: Tensor | None = None
        amax = self._calibrator.compute_amax(*args, **kwargs)
        if amax is not None and self._asymmetric:
            amin, amax = self._two_sided(amax)
        if amax is None:
            if strict:
                raise CalibrationError(
                    "TensorQuantizer: calibration has seen no tensor; call the model between enable_calib() and "
                    "load_calib_amax(), or pass strict=False to go on without a range"
                )
            logger.warning("TensorQuantizer: calibration has seen no tensor: the range is NaN.")
            amax = torch.tensor(float("nan"))
        self.set_amax(amax, amin)

    def _two_sided(self, amax: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest number of calibration, no further from 0 than `amax`."""
        found = self._calibrator.compute_range()
        assert found is not None
        return found[0].maximum(-amax), found[1].minimum(amax)

    def init_learn_amax(self) -> None:
        """Let the learned range begin at the calibrated one, the largest if there are several.

        Raises CalibrationError without `learn_amax` or without a range.
        """
        if not self._learn_amax or self.amax is None:
            missing = "a descriptor with learn_amax=True" if not self._learn_amax else "a calibrated range"
            raise CalibrationError(f"TensorQuantizer: init_learn_amax() needs {missing}")
        with torch.no_grad():
            self.clip.clip_value_min.copy_(-self.amax.max())
            self.clip.clip_value_max.copy_(self.amax.max())

    # --- the call ---------------------------------------------------------------------------------------------------

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `inputs`, quantized and brought back; what its dtype was it stays."""
        if self.pre_quant_scale is not None:
            inputs = inputs * self.pre_quant_scale
        if self._disabled:
            return inputs
        if self._if_calib:
            self._calibrator.collect(inputs.detach() if isinstance(inputs, Tensor) else inputs)
        if self._if_clip:
            inputs = self.clip(inputs)
        return self._quantized(inputs) if self._if_quant else inputs

    def _quantized(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return onnx_nodes.quantize_dequantize(self, x)
        if self.asymmetric:
            return fake_quant_with_zero_point(x, *self.affine_of(x), self._num_bits)
        amax = self.amax_of(x)
        if not self._fake_quant:
            integers, self._scale = tensor_quant(x, amax, self._num_bits, self._unsigned, self._narrow_range)
            return integers
        if TensorQuantizer.use_fb_fake_quant:
            return self._natively(x, amax)
        return fake_tensor_quant(x, amax, self._num_bits, self._unsigned, self._narrow_range)

    def amax_of(self, x: Tensor) -> Tensor:
        """Return the range for `x`: the learned one, the calibrated one, else that of `x` itself."""
        if self._learn_amax:
            return torch.maximum(-self.clip.clip_value_min, self.clip.clip_value_max).detach()
        amax = amax_of(x, self._axis) if self.amax is None else self.amax
        return amax if self._scale_amax is None else amax * self._scale_amax

    def affine_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale and zero point for `x`: of each row if per token, calibrated, else of `x` itself."""
        if self._per_token:
            minimum, maximum = x.detach().amin(dim=-1, keepdim=True), x.detach().amax(dim=-1, keepdim=True)
        elif self.amax is not None and self.amin is not None:
            minimum, maximum = self.amin, self.amax
        else:
            minimum, maximum = reduce_range(x, reduced_axes(x, self._axis))
        return affine_parameters(minimum, maximum, self._num_bits)

    def _natively(self, x: Tensor, amax: Tensor) -> Tensor:
        lowest, highest = bounds(self._num_bits, unsigned=self._unsigned, narrow_range=False)
        if amax.numel() == 1:
            scale = (amax.float() / highest).reshape(1)
            zero = torch.zeros(1, dtype=torch.int32, device=x.device)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, lowest, highest)
        channels = [i for i, size in enumerate(amax.shape) if size > 1]
        if len(channels) != 1:
            raise DescriptorError(
                f"TensorQuantizer: PyTorch's fake quantization knows ranges for one axis, got {len(channels)} axes"
            )
        scale = amax.detach().flatten() / highest
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zero, channels[0], lowest, highest)

    # --- state ------------------------------------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # A range that the checkpoint has and this quantizer does not is made, on the device of what is being loaded.
        for name in self.optional_buffers:
            value = state_dict.get(prefix + name)
            if value is not None and name not in self._buffers:
                self.register_buffer(name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Return the settings and the range, as the toolkit prints them."""
        if self._disabled:
            return "disabled"
        words = [f"{'unsigned ' if self._unsigned else ''}{self._num_bits}bit"]
        words += ["narrow"] * self._narrow_range + ["fake"] * self._fake_quant
        words += ["asymmetric"] * self._asymmetric
        words.append("per-token" if self._per_token else "per-tensor" if self._axis is None else f"axis={self._axis}")
        words.append(f"amax={self._range_text()}")
        words += [f"*{self._scale_amax}"] if self._scale_amax else []
        words += ["pre_quant_scale"] * (self.pre_quant_scale is not None) + ["learned"] * self._learn_amax
        words.append(f"calibrator={type(self._calibrator).__name__}")
        words += [f"scale={self._scale}"] if self._scale is not None else []
        words += ["quant"] * self._if_quant + ["clip"] * self._if_clip + ["calib"] * self._if_calib
        return " ".join(words)

    def _range_text(self) -> str:
        if self.amax is None:
            return "dynamic"
        if self.amin is not None and self.amax.numel() == 1:
            return f"[{self.amin.item():.4f}, {self.amax.item():.4f}]"
        if self.amax.numel() == 1:
            return f"{self.amax.item():.4f}"
        return f"[{self.amax.min().item():.4f}, {self.amax.max().item():.4f}]({self.amax.numel()})"
