"""QuantDescriptor: how a tensor is to be quantized. Data only."""

from typing import Any, Self

import numpy as np

from modelwright.core.errors import InputError, UnknownArgumentError, check_choice, nearest
from modelwright.core.logging import get_logger
from modelwright.quantization.ranges import Axis

logger = get_logger(__name__)

# `dict` is a method of the class, so its annotations need another name for the type.
Fields = dict[str, Any]

_DEFAULTS: Fields = {
    "fake_quant": True,
    "axis": None,
    "amax": None,
    "learn_amax": False,
    "scale_amax": None,
    "calib_method": "max",
    "unsigned": False,
    "narrow_range": False,
    "asymmetric": False,
    "per_token": False,
}


class DescriptorError(InputError, TypeError):
    """A field of a quantization descriptor with a value of the wrong type, or fields that exclude each other."""


class QuantDescriptor:
    """How a tensor is to be quantized; the fields are read-only properties.

    num_bits: 2 to 16, or 0, with which everything becomes 0. name: for `str`.
    fake_quant: quantize and bring back; False gives the integers. axis: the axes of the tensor that keep a range each;
    None is one range for the whole tensor. amax: the range, a float or a list or array of floats. learn_amax: the range
    is a parameter. scale_amax: a factor on the range. calib_method: "max" or "histogram". unsigned: integers from 0 on.
    narrow_range: leaves out the lowest integer (-128 of 8 bits).

    Two fields are ours. asymmetric: unsigned integers with a zero point, for the range from the smallest to the largest
    number. per_token: a range for each index of all axes but the last, taken from the tensor at hand, never calibrated;
    asymmetric always.

    Raises DescriptorError (a TypeError), InputError, UnknownArgumentError.
    """

    def __init__(self, num_bits: int = 8, name: str | None = None, **kwargs: Any) -> None:
        for key in kwargs:
            if key not in _DEFAULTS:
                raise UnknownArgumentError(f"QuantDescriptor got an unknown keyword {key!r}.{nearest(key, _DEFAULTS)}")
        fields = {**_DEFAULTS, **kwargs}
        _check_bits(num_bits)
        if name is not None and not isinstance(name, str):
            raise DescriptorError(f"QuantDescriptor: expected name to be a string or None, got {type(name).__name__}")
        amax = fields["amax"]
        if amax is not None and not isinstance(amax, float | list | np.ndarray):
            raise DescriptorError(
                f"QuantDescriptor: expected amax to be a float, a list or an array, got {type(amax).__name__}"
            )
        check_choice("QuantDescriptor: calib_method", fields["calib_method"], ("max", "histogram"))
        _check_combination(fields)
        self._num_bits, self._name = num_bits, name
        self._fake_quant: bool = fields["fake_quant"]
        self._axis: Axis = fields["axis"]
        self._amax = None if amax is None else np.array(amax, dtype=np.float32)
        self._learn_amax: bool = fields["learn_amax"]
        self._scale_amax: float | None = fields["scale_amax"]
        self._calib_method: str = fields["calib_method"]
        self._unsigned: bool = fields["unsigned"]
        self._narrow_range: bool = fields["narrow_range"]
        self._asymmetric: bool = fields["asymmetric"]
        self._per_token: bool = fields["per_token"]

    @property
    def num_bits(self) -> int:
        """Bits of an integer."""
        return self._num_bits

    @property
    def name(self) -> str | None:
        """What `str` begins with."""
        return self._name

    @property
    def fake_quant(self) -> bool:
        """Whether the integers are brought back."""
        return self._fake_quant

    @property
    def axis(self) -> Axis:
        """The axes that keep a range each."""
        return self._axis

    @property
    def amax(self) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """The range that was given."""
        return self._amax

    @property
    def learn_amax(self) -> bool:
        """Whether the range is a parameter."""
        return self._learn_amax

    @property
    def scale_amax(self) -> float | None:
        """The factor on the range."""
        return self._scale_amax

    @property
    def calib_method(self) -> str:
        """What calibration collects: "max" or "histogram"."""
        return self._calib_method

    @property
    def unsigned(self) -> bool:
        """Whether the integers begin at 0."""
        return self._unsigned

    @property
    def narrow_range(self) -> bool:
        """Whether the lowest integer is left out."""
        return self._narrow_range

    @property
    def asymmetric(self) -> bool:
        """Whether there is a zero point."""
        return self._asymmetric

    @property
    def per_token(self) -> bool:
        """Whether each row has a range of its own, taken from the tensor at hand."""
        return self._per_token

    def dict(self) -> Fields:
        """Return the fields that differ from their defaults, with `num_bits` and `name`, as plain values.

        `QuantDescriptor(**descriptor.dict())` is equal to `descriptor`.
        """
        fields: Fields = {"num_bits": self._num_bits, "name": self._name}
        for key, default in _DEFAULTS.items():
            value = getattr(self, f"_{key}")
            if key == "amax" and value is not None:
                fields[key] = value.tolist()
            elif value is not default and value != default:
                fields[key] = list(value) if isinstance(value, tuple) else value
        return fields

    def to_yaml(self) -> str:
        """Return `dict()` as YAML."""
        import yaml

        text: str = yaml.safe_dump(self.dict(), width=120)
        return text

    @classmethod
    def from_yaml(cls, yaml_str: str) -> Self:
        """Return the descriptor of a text that `to_yaml` wrote."""
        import yaml

        return cls(**yaml.safe_load(yaml_str))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuantDescriptor) and self._comparable() == other._comparable()

    __hash__ = None  # type: ignore[assignment]

    def _comparable(self) -> Fields:
        fields = {**self.__dict__, "_amax": None if self._amax is None else self._amax.tolist()}
        return {**fields, "_axis": list(self._axis) if isinstance(self._axis, tuple) else self._axis}

    def __str__(self) -> str:
        words = [f"{'unsigned ' if self._unsigned else ''}{self._num_bits}bit", "fake" if self._fake_quant else "real"]
        # Two spaces before "per-tensor", as the toolkit prints it.
        words.append(f"axis={' per-tensor' if self._axis is None else self._axis}")
        if self._amax is not None:
            words += [f"amax={self._amax}", "full_range"]
        words += [word for word, said in (("learn_amax", self._learn_amax), ("asymmetric", self._asymmetric)) if said]
        if self._scale_amax:
            words.append(f"scale_amax={self._scale_amax}")
        if self._per_token:
            words.append("per_token")
        return f"{'QuantDescriptor' if self._name is None else self._name + ': '}({' '.join(words)})"

    __repr__ = __str__


ScaledQuantDescriptor = QuantDescriptor


def _check_bits(num_bits: Any) -> None:
    if not isinstance(num_bits, int) or isinstance(num_bits, bool):
        raise DescriptorError(f"QuantDescriptor: expected num_bits to be an integer, got {type(num_bits).__name__}")
    if num_bits != 0 and not 2 <= num_bits <= 16:
        raise InputError(
            f"QuantDescriptor: expected num_bits from 2 to 16 (or 0, everything becomes 0), got {num_bits}"
        )
    if num_bits == 0:
        logger.warning("QuantDescriptor: num_bits=0 makes every number 0; it is for debugging only.")


def _check_combination(fields: Fields) -> None:
    if fields["learn_amax"] and fields["axis"] is not None:
        raise DescriptorError(
            f"QuantDescriptor: a learned range is one number; expected axis=None, got {fields['axis']}"
        )
    ours = [name for name in ("asymmetric", "per_token") if fields[name]]
    for name in ("learn_amax", "unsigned", "narrow_range", "scale_amax", "amax"):
        if ours and fields[name]:
            raise DescriptorError(f"QuantDescriptor: {ours[0]}=True and {name}={fields[name]} exclude each other")
    if ours and (not fields["fake_quant"] or (fields["per_token"] and fields["axis"] is not None)):
        raise DescriptorError(
            f"QuantDescriptor: {ours[0]}=True needs fake_quant=True and, per token, axis=None; got "
            f"fake_quant={fields['fake_quant']}, axis={fields['axis']}"
        )


QUANT_DESC_8BIT_PER_TENSOR = QuantDescriptor(num_bits=8)
QUANT_DESC_UNSIGNED_8BIT_PER_TENSOR = QuantDescriptor(num_bits=8, unsigned=True)
QUANT_DESC_8BIT_CONV1D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_CONV2D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_CONV3D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_LINEAR_WEIGHT_PER_ROW = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_CONVTRANSPOSE1D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_CONVTRANSPOSE2D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
QUANT_DESC_8BIT_CONVTRANSPOSE3D_WEIGHT_PER_CHANNEL = QuantDescriptor(num_bits=8, axis=0)
