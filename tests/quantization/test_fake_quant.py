"""The formulas of fake quantization, beyond what is compared with the toolkit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.quantization.fake_quant import (
    affine_parameters,
    bounds,
    fake_quant_with_zero_point,
    fake_tensor_quant,
    tensor_quant,
)


@settings(deadline=None)
@given(st.integers(2, 16), st.booleans(), st.booleans(), st.floats(0.01, 100))
def test_quantizing_again_changes_nothing_and_the_error_is_half_a_step(bits, unsigned, narrow, amax):
    x = torch.linspace(0 if unsigned else -amax, amax, 257)
    once = fake_tensor_quant(x, torch.tensor(amax), bits, unsigned, narrow)
    step = amax / bounds(bits, unsigned=unsigned, narrow_range=narrow)[1]
    assert (once - x).abs().max() <= step * 0.51
    torch.testing.assert_close(fake_tensor_quant(once, torch.tensor(amax), bits, unsigned, narrow), once)


def test_bounds():
    assert bounds(8, unsigned=False, narrow_range=False) == (-128, 127)
    assert bounds(8, unsigned=False, narrow_range=True) == (-127, 127)
    assert bounds(8, unsigned=True, narrow_range=True) == (0, 255)
    assert bounds(2, unsigned=False, narrow_range=False) == (-2, 1)


def test_bfloat16_is_computed_in_float32():
    x = torch.randn(100).bfloat16()
    result = fake_tensor_quant(x, torch.tensor(3.0))
    assert result.dtype == torch.bfloat16
    integers, _ = tensor_quant(x.float(), torch.tensor(3.0))
    assert torch.equal(tensor_quant(x, torch.tensor(3.0))[0].float(), integers)


@settings(deadline=None)
@given(st.floats(-50, 50), st.floats(0, 100))
def test_zero_is_exact_with_a_zero_point(minimum, width):
    scale, zero = affine_parameters(torch.tensor(minimum), torch.tensor(minimum + width))
    assert fake_quant_with_zero_point(torch.zeros(1), scale, zero).item() == 0
    assert zero == zero.round()
    assert 0 <= zero <= 255


def test_a_zero_point_is_what_onnx_computes():
    import onnxruntime as ort
    from onnx import TensorProto, helper

    x = torch.randn(200) * 2 + 0.7
    scale, zero = affine_parameters(torch.tensor(-1.5), torch.tensor(3.1))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [200])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [200])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [scale.item()]),
            helper.make_tensor("zero", TensorProto.UINT8, [], [int(zero)]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (y,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    assert torch.equal(torch.from_numpy(y), fake_quant_with_zero_point(x, scale, zero))


def test_the_gradient_with_a_zero_point_stops_outside():
    x = torch.tensor([-2.0, -0.5, 0.0, 2.0, 3.5], requires_grad=True)
    scale, zero = affine_parameters(torch.tensor(-1.0), torch.tensor(3.0))
    fake_quant_with_zero_point(x, scale, zero).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_errors():
    with pytest.raises(ValueError, match=r"expected ranges \(amax\) of at least 0, got -1"):
        fake_tensor_quant(torch.ones(2), torch.tensor(-1.0))
    with pytest.raises(TypeError, match="an unsigned quantizer got numbers down to -1; use unsigned=False"):
        fake_tensor_quant(-torch.ones(2), torch.tensor(1.0), 8, True)
    with pytest.raises(ValueError, match="is beyond float16"):
        tensor_quant(torch.ones(2, dtype=torch.float16), torch.tensor(1e-6))
