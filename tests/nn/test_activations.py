"""Activation names, values and errors."""

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.nn.activations import ACT2FN, activate_over, get_activation
from modelwright.nn.norm import LayerNorm


@pytest.mark.parity
def test_values_agree_with_transformers():
    from transformers.activations import ACT2FN as THEIRS

    x = torch.linspace(-12, 12, 101)
    common = set(THEIRS) & set(ACT2FN)
    assert {"gelu", "gelu_new", "relu", "silu", "quick_gelu", "gelu_10", "tanh", "swish"} <= common
    for name in common:
        assert torch.allclose(ACT2FN[name](x), THEIRS[name](x), atol=1e-6), name


def test_names():
    assert repr(ACT2FN["gelu_new"]) == "Activation(gelu_new)"
    with pytest.raises(KeyError, match="nope"):
        ACT2FN["nope"]
    with pytest.raises(
        InputError, match=r"activation: expected one of gelu, .* got 'gelu_mew'\. Did you mean 'gelu_new'\?"
    ):
        get_activation("gelu_mew")


def test_a_function_is_its_own_activation():
    assert get_activation(torch.cos) is torch.cos


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_norm_reads_fp32_and_returns_its_own_dtype(dtype):
    norm = LayerNorm(16, dtype=dtype)
    x = torch.randn(3, 16) * 100
    assert norm(x).dtype == dtype
    expected = torch.nn.functional.layer_norm(x, (16,))
    assert torch.allclose(norm(x).float(), expected, atol=1e-6 if dtype == torch.float32 else 2e-2)


def test_gelu_is_written_over_its_input_where_nobody_looks():
    x, activation, seen = torch.randn(3, 5), ACT2FN["gelu"], []
    wanted = torch.nn.functional.gelu(x)
    with torch.no_grad():
        over = x.clone()
        result = activate_over(activation, over)
        assert result is over or result.data_ptr() == over.data_ptr()
        torch.testing.assert_close(result, wanted)
        activation.register_forward_hook(lambda *_: seen.append(1))
        for other in (activation, torch.nn.functional.gelu):
            kept = x.clone()
            torch.testing.assert_close(activate_over(other, kept), wanted)
            assert torch.equal(kept, x)
    assert seen == [1]
    kept = x.clone()
    activate_over(ACT2FN["gelu"], kept)
    assert torch.equal(kept, x)
