"""Int8Linear: a quantized linear layer whose product is computed with 8-bit integers, by PyTorch's oneDNN, on the CPU.

Legend: M rows, K inputs, N outputs. Activations are unsigned (a signed code q is q + 128), weights signed with a scale
for each output:

    y_MN = scale * weight_scale_N * sum_k (x_MK - zero) * w_KN + bias_N

Signed activations would take a kernel that is hundreds of times slower.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modelwright.core.errors import InputError
from modelwright.quantization.fake_quant import tensor_quant
from modelwright.quantization.quantizer import TensorQuantizer
from modelwright.quantization.recording import LinearLayer

# What torch calls the instructions that multiply and add 8-bit integers.
_INT8_INSTRUCTIONS = ("avx512_vnni", "avx512vnni", "avx_vnni", "avxvnni", "amx_int8", "dotprod", "neon_dotprod", "i8mm")


def has_int8_instructions() -> bool:
    """Tell whether the processor has instructions that multiply and add 8-bit integers."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in _INT8_INSTRUCTIONS)


def is_int8_available() -> bool:
    """Tell whether this PyTorch has oneDNN's products of 8-bit integers."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.onednn, "qlinear_pointwise")


class _Packed:
    """A weight in the order that oneDNN wants; nothing writes to it, so copies of a model share it."""

    def __init__(self, codes_NK: Tensor) -> None:
        self.weight = torch.ops.onednn.qlinear_prepack(codes_NK, None)

    def __deepcopy__(self, memo: Any) -> "_Packed":
        return self

    def __reduce__(self) -> Any:
        raise InputError("an INT8 layer cannot be pickled, its weight is packed for this processor")


class Int8Linear(nn.Module):
    """The product of a `QuantLinear` or `QuantConv1D` with integers: (..., K) -> (..., N), in the dtype of the input.

    A calibrated range of the input is used as it is; without one each call takes the range of its tensor, or of each
    row for a per-token quantizer. There are no parameters: the weight is packed for the processor at hand, so the layer
    cannot be trained, saved or moved. Raises InputError for inputs that are not on the CPU, and if its state is asked
    for.
    """

    def __init__(self, layer: LinearLayer) -> None:
        super().__init__()
        weight, quantizer = layer.weight.detach().float(), layer.weight_quantizer
        amax = quantizer.amax_of(weight).detach().float()
        # Without such instructions pairs of products are summed in 16 bits, where only half the range is safe.
        bits = 8 if has_int8_instructions() else 7
        codes = tensor_quant(weight, amax, bits, narrow_range=quantizer.narrow_range)[0].to(torch.int8)
        scale = amax / (2 ** (bits - 1) - 1)
        if layer.channel_axis == 1:
            codes = codes.t().contiguous()
        self.out_features, self.in_features = codes.shape
        self._scale_N = scale.flatten().expand(self.out_features).contiguous()
        self._zero_N = torch.zeros(self.out_features, dtype=torch.int64)
        self._packed = _Packed(codes)
        self._sum_N = codes.sum(dim=1) * self._scale_N
        self._bias_N = None if layer.bias is None else layer.bias.detach().float().clone()
        self._quantizer = layer.input_quantizer
        self._per_token = self._quantizer.per_token
        self._range: tuple[float, int] | None = None
        if self._quantizer.is_calibrated:
            self._range = affine_numbers(self._quantizer, torch.empty(0))

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        if input.device.type != "cpu":
            raise InputError(f"Int8Linear: expected a tensor on the CPU, got one on {input.device}")
        shape, dtype = (*input.shape[:-1], self.out_features), input.dtype
        x_MK = input.detach().float().reshape(-1, self.in_features)
        if not x_MK.numel():
            return torch.zeros(shape, dtype=dtype)
        if self._quantizer.pre_quant_scale is not None:
            x_MK = x_MK * self._quantizer.pre_quant_scale
        if self._quantizer.clips:
            x_MK = self._quantizer.clip(x_MK)
        y_MN = self._by_row(x_MK) if self._per_token else self._by_tensor(x_MK)
        return y_MN.view(shape).to(dtype)

    def _by_tensor(self, x_MK: Tensor) -> Tensor:
        scale, zero = self._range or affine_numbers(self._quantizer, x_MK)
        return self._product(to_codes(x_MK, scale, zero), scale, zero, self._bias_N)

    def _by_row(self, x_MK: Tensor) -> Tensor:
        scale_M1, zero_M1 = self._quantizer.affine_of(x_MK)
        codes_MK = to_codes((x_MK * (1 / scale_M1)).add_(zero_M1), 1.0, 0)
        y_MN = self._product(codes_MK, 1.0, 0, None).addcmul_(zero_M1, self._sum_N, value=-1).mul_(scale_M1)
        return y_MN if self._bias_N is None else y_MN.add_(self._bias_N)

    def _product(self, codes_MK: Tensor, scale: float, zero: int, bias_N: Tensor | None) -> Tensor:
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes_MK,
            scale,
            zero,
            self._packed.weight,
            self._scale_N,
            self._zero_N,
            bias_N,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return result

    def extra_repr(self) -> str:
        """Return the sizes and where the range comes from, for `print(model)`."""
        source = "each row" if self._per_token else "each tensor" if self._range is None else "calibration"
        return f"in_features={self.in_features}, out_features={self.out_features}, range of {source}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
        raise InputError(
            f"{prefix.removesuffix('.')}: an INT8 layer has no state, its weight is packed for this processor; save "
            "the model before to_int8(), and call that again after loading"
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:  # noqa: ARG002
        raise InputError(f"{prefix.removesuffix('.')}: an INT8 layer loads nothing; load first, then call to_int8()")


def affine_numbers(quantizer: TensorQuantizer, x: Tensor) -> tuple[float, int]:
    """Return the scale and the zero point of unsigned codes for `x`, of a quantizer with one range."""
    if quantizer.asymmetric:
        scale, zero = quantizer.affine_of(x)
        return float(scale), int(zero)
    amax = float(quantizer.amax_of(x))
    bound, middle = (255, 0) if quantizer.unsigned else (127, 128)
    return (amax / bound if amax > 0 else 1.0), middle


# A float32 close to _MAGIC is a whole number, whose last byte is its distance from _MAGIC, modulo 256.
_MAGIC = 1.5 * 2**23
_MAGIC_BITS = 0x4B400000


def to_codes(x: Tensor, scale: float, zero: int) -> Tensor:
    """Return round(x / scale) + zero within [0, 255] as uint8, for a contiguous float32 tensor.

    Adding a number so large that float32 has no fraction left there rounds, half to even, and leaves the integer in the
    last bytes: half of the time of rounding, limiting and converting one after another.
    """
    moved = torch.add(torch.tensor(_MAGIC), x, alpha=1 / scale).view(torch.int32)
    codes = moved.clamp_(_MAGIC_BITS - zero, _MAGIC_BITS + 255 - zero).to(torch.uint8)
    return codes.add_(zero) if zero else codes
