import torch

from modelwright.nn.conv1d import Conv1D


def test_it_is_a_linear_layer_with_the_weight_turned():
    layer = Conv1D(5, 3)
    linear = torch.nn.Linear(3, 5)
    with torch.no_grad():
        layer.weight.copy_(linear.weight.T)
        layer.bias.copy_(linear.bias)
    x = torch.randn(2, 4, 3)
    assert layer.weight.shape == (3, 5)
    torch.testing.assert_close(layer(x), linear(x))
    assert layer(x[:, ::2]).shape == (2, 2, 5)
    assert "nf=5, nx=3" in repr(layer)


def test_factory_arguments_and_initial_values():
    layer = Conv1D(40, 50, dtype=torch.float64)
    assert layer.weight.dtype == torch.float64
    assert 0.018 < layer.weight.std().item() < 0.022
    assert not layer.bias.any()
    assert Conv1D(4, 5, device="meta").weight.is_meta
