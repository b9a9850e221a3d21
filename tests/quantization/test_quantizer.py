"""TensorQuantizer: calibration, state, and the kinds of ranges that the toolkit lacks."""

import pytest
import torch

from modelwright.quantization import QuantDescriptor, QuantLinear, TensorQuantizer, calibrating, load_ranges
from modelwright.quantization.switches import quantization_disabled, quantizers_of


def calibrated(x, **settings):
    quantizer = TensorQuantizer(QuantDescriptor(**settings), if_calib=True)
    quantizer(x)
    quantizer.load_calib_amax(*(["percentile"] if settings.get("calib_method") == "histogram" else []))
    quantizer.disable_calib()
    return quantizer


def test_state_before_calibration_has_the_float_names_and_after_it_loads_into_a_new_one():
    torch.manual_seed(0)
    assert list(QuantLinear(4, 3).state_dict()) == list(torch.nn.Linear(4, 3).state_dict())
    layer, x = QuantLinear(4, 3), torch.randn(5, 4)
    with calibrating(layer):
        layer(x)
    assert load_ranges(layer) == []
    fresh = QuantLinear(4, 3)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.input_quantizer.amax, x.abs().max())
    assert torch.equal(fresh(2 * x), layer(2 * x))


def test_a_range_loads_on_the_device_and_in_the_shape_of_the_checkpoint():
    quantizer = TensorQuantizer(QuantDescriptor(axis=0))
    quantizer.load_state_dict({"_amax": torch.ones(3, 1, device="meta")}, assign=True)
    assert quantizer.amax.shape == (3, 1)
    assert quantizer.amax.is_meta


def test_asymmetric_ranges_are_finer_for_one_sided_numbers():
    x = torch.nn.functional.gelu(torch.linspace(-4, 4, 1001))
    symmetric, asymmetric = calibrated(x), calibrated(x, asymmetric=True)
    assert (asymmetric(x) - x).abs().max() < 0.6 * (symmetric(x) - x).abs().max()
    assert set(asymmetric.state_dict()) == {"_amax", "_amin"}
    assert torch.equal(asymmetric.amin, x.min())
    assert "asymmetric" in repr(asymmetric)
    clipped = calibrated(torch.cat([torch.full((10_000,), 0.5), torch.tensor([9.0])]), asymmetric=True,
                         calib_method="histogram")  # fmt: skip
    assert clipped.amax < 1


def test_per_token_ranges_belong_to_the_row():
    x = torch.randn(3, 5, 8) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    quantizer = TensorQuantizer(QuantDescriptor(per_token=True))
    alone = torch.stack([TensorQuantizer(QuantDescriptor(asymmetric=True))(row) for row in x.view(-1, 8)])
    torch.testing.assert_close(quantizer(x), alone.view_as(x))
    with pytest.raises(ValueError, match="nothing to calibrate"):
        quantizer.enable_calib()


def test_pre_quant_scale_is_applied_also_when_disabled():
    quantizer = TensorQuantizer(disabled=True)
    quantizer.pre_quant_scale = torch.tensor([2.0, 3.0])
    assert quantizer(torch.ones(1, 2)).tolist() == [[2.0, 3.0]]
    assert list(quantizer.state_dict()) == ["_pre_quant_scale"]


def test_a_dynamic_quantizer_takes_each_tensors_own_range():
    quantizer, x = TensorQuantizer(), torch.randn(50)
    torch.testing.assert_close(quantizer(1000 * x) / 1000, quantizer(x))
    assert quantizer.amax is None
    assert quantizer.step_size is None


def test_switches_come_back_also_after_an_error():
    layer = QuantLinear(4, 3)
    layer.weight_quantizer.disable()

    def break_off():
        assert layer.input_quantizer._if_calib
        raise KeyError

    with pytest.raises(KeyError), calibrating(layer):
        break_off()
    assert not layer.input_quantizer._if_calib
    assert layer.input_quantizer._if_quant
    with quantization_disabled(layer):
        assert not any(q.is_enabled for q in quantizers_of(layer).values())
        x = torch.randn(2, 4)
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert layer.input_quantizer.is_enabled
    assert not layer.weight_quantizer.is_enabled


def test_histograms_count_exactly_where_float32_stops():
    layer = TensorQuantizer(QuantDescriptor(calib_method="histogram"), if_calib=True, if_quant=False)
    x = torch.zeros(2**24 + 3)
    x[0] = 1.0
    layer(x), layer(x)
    assert int(layer.calibrator._calib_hist.sum()) == 2 * len(x)
    assert int(layer.calibrator._calib_hist[0]) == 2 * (2**24 + 2)


def test_errors():
    quantizer = TensorQuantizer()
    with pytest.raises(RuntimeError, match="calibration has seen no tensor; call the model between enable_calib"):
        quantizer.load_calib_amax()
    quantizer.amax = 2.0
    with pytest.raises(TypeError, match=r"amax has the shape \(\), got \(2,\); reset_amax\(\) forgets the old range"):
        quantizer.amax = [1.0, 2.0]
    quantizer.reset_amax()
    quantizer.amax = [1.0, 2.0]
    with pytest.raises(ValueError, match="nothing to learn; make it of a descriptor with learn_amax=True"):
        quantizer.enable_clip()
    with pytest.raises(RuntimeError, match=r"init_learn_amax\(\) needs a descriptor with learn_amax=True"):
        quantizer.init_learn_amax()
    with pytest.raises(NotImplementedError, match=r"expected axis=None \(one range for the tensor\), got 0"):
        TensorQuantizer(QuantDescriptor(axis=0, calib_method="histogram"))
    histogram = TensorQuantizer(QuantDescriptor(calib_method="histogram"), if_calib=True)
    histogram(torch.randn(9))
    with pytest.raises(TypeError, match="expected a method of entropy, mse, percentile, got 'entorpy'. Did you mean"):
        histogram.load_calib_amax("entorpy")
    with pytest.raises(ValueError, match="expected a percentile from 0 to 100, got 101"):
        histogram.load_calib_amax("percentile", percentile=101)


def test_a_calibrator_refuses_channels_that_change():
    quantizer = TensorQuantizer(QuantDescriptor(axis=0), if_calib=True, if_quant=False)
    quantizer(torch.ones(3, 2))
    with pytest.raises(RuntimeError, match=r"ranges of shape \(4, 1\) after \(3, 1\)"):
        quantizer(torch.ones(4, 2))


@pytest.mark.parametrize("settings", [{}, {"asymmetric": True}, {"calib_method": "histogram"}], ids=str)
def test_calibration_on_what_has_no_range(settings):
    quantizer = TensorQuantizer(QuantDescriptor(**settings), if_calib=True, if_quant=False)
    for value in (float("nan"), float("inf")):
        with pytest.raises(
            RuntimeError, match=r"calibration: a tensor \(2,\) holds NaN or infinity, so it has no range"
        ):
            quantizer(torch.tensor([1.0, value]))
    with pytest.raises(RuntimeError, match="calibration: expected a tensor, got list; call the model with tensors"):
        quantizer([1.0, 2.0])
    quantizer(torch.zeros(0, 4))
    with pytest.raises(RuntimeError, match="calibration has seen no tensor"):
        quantizer.load_calib_amax(*["mse"] * ("calib_method" in settings))
