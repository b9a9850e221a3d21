"""QuantDescriptor: round trips and refusals; its text is compared with the toolkit's in tests/parity."""

import pytest

from modelwright.quantization import QuantDescriptor


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"axis": 0},
        {"axis": (0, 1), "narrow_range": True},
        {"amax": [1.0, 2.5], "axis": (0,)},
        {"calib_method": "histogram", "unsigned": True, "num_bits": 4, "name": "x"},
        {"learn_amax": True, "amax": 2.0},
        {"asymmetric": True},
        {"per_token": True},
    ],
    ids=str,
)
def test_round_trips(settings):
    descriptor = QuantDescriptor(**settings)
    assert QuantDescriptor(**descriptor.dict()) == descriptor
    assert QuantDescriptor.from_yaml(descriptor.to_yaml()) == descriptor
    assert descriptor == QuantDescriptor(**settings)
    assert descriptor != QuantDescriptor(num_bits=5)
    with pytest.raises(AttributeError):
        descriptor.num_bits = 3


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"num_bits": 1}, ValueError, r"from 2 to 16 \(or 0, everything becomes 0\), got 1"),
        ({"num_bits": 17}, ValueError, "got 17"),
        ({"num_bits": 8.0}, TypeError, "expected num_bits to be an integer, got float"),
        ({"name": 3}, TypeError, "expected name to be a string or None, got int"),
        ({"amax": 3}, TypeError, "expected amax to be a float, a list or an array, got int"),
        ({"axis": 0, "learn_amax": True}, TypeError, "a learned range is one number; expected axis=None, got 0"),
        ({"calib_method": "kl"}, ValueError, "expected one of histogram, max, got 'kl'"),
        ({"unsinged": True}, TypeError, "unknown keyword 'unsinged'. Did you mean 'unsigned'"),
        ({"asymmetric": True, "unsigned": True}, TypeError, "asymmetric=True and unsigned=True exclude each other"),
        ({"per_token": True, "axis": 0}, TypeError, "per_token=True needs fake_quant=True and, per token, axis=None"),
    ],
)
def test_refusals(settings, kind, message):
    with pytest.raises(kind, match=message):
        QuantDescriptor(**settings)
