"""Seeded dropout: rate, mean, replay, and the global stream left alone."""

import pytest
import torch

from modelwright.nn.dropout import Dropout, seeded_dropout, seeded_generator


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_scale(probability, dtype):
    out = seeded_dropout(torch.ones(300, 1001, dtype=dtype), probability, generator())
    kept = out != 0
    assert abs(kept.float().mean() - (1 - probability)) < 0.005
    assert torch.allclose(out[kept].float(), torch.tensor(1 / (1 - probability)), rtol=1e-2)
    assert abs(out.double().mean() - 1) < 0.02


def test_many_elements_are_drawn_independently():
    # More than are drawn at once, by the generator of CPUs: no part repeats another, the last, incomplete one included.
    x = torch.ones(3, 262_145)
    kept = seeded_dropout(x, 0.25, seeded_generator(3, 1, x.device)).flatten() != 0
    assert abs(kept.double().mean() - 0.75) < 2e-3
    for shift in (1, 2**16, 2**17, 2**18, 2**19):
        pair = torch.stack([kept[:-shift], kept[shift:]]).double()
        assert abs(torch.corrcoef(pair)[0, 1]) < 0.01
    again = seeded_dropout(x, 0.25, seeded_generator(3, 1, x.device)).flatten() != 0
    assert torch.equal(kept, again)


def test_neighbours_are_independent():
    kept = (seeded_dropout(torch.ones(400_000), 0.5, generator()) != 0).double()
    for shift in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([kept[:-shift], kept[shift:]]))[0, 1]) < 0.01


def test_replay_and_the_global_stream():
    x = torch.randn(7, 13)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (seeded_dropout(x, 0.3, generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_limits():
    x = torch.randn(5)
    assert seeded_dropout(x, 0.5, None) is x
    assert seeded_dropout(x, 0.0, generator()) is x
    assert torch.equal(seeded_dropout(x, 1.0, generator()), torch.zeros(5))
    for source in (generator(), seeded_generator(1, 0, x.device)):
        assert seeded_dropout(x[:0], 0.5, source).shape == (0,)


def test_gradient_passes_where_kept():
    x = torch.ones(1000, requires_grad=True)
    out = seeded_dropout(x, 0.25, generator())
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_the_module_drops_and_its_gradient_drops_the_same():
    layer, x = Dropout(0.25), torch.rand(1000, 1201).add_(1.0).t().requires_grad_()
    torch.manual_seed(0)
    out = layer(x)
    kept = out != 0
    assert abs(kept.double().mean() - 0.75) < 2e-3
    torch.testing.assert_close(out[kept], x[kept] / 0.75, rtol=1e-4, atol=0)
    out.sum().backward()
    torch.testing.assert_close(x.grad, kept / 0.75, rtol=1e-4, atol=0)
    torch.manual_seed(0)
    assert torch.equal(layer(x), out)
    assert layer.eval()(x) is x
