"""Seeded dropout: rate, mean, replay, and the global stream left alone."""

import numpy as np
import pytest
import torch

from modelwright.nn.dropout import LEVELS, Dropout, seeded_dropout, seeded_generator, seeded_keep


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


@pytest.mark.parametrize("probability", [0.0004, 0.0039, 0.05, 0.3, 0.5, 0.7, 0.9, 0.9961, 0.9999])
def test_rate_of_the_generator_of_cpus(probability):
    x = torch.ones(2**21)
    dropped = (seeded_keep(x, probability, seeded_generator(7, 0, x.device)) == 0).double()
    exact = 1 - round((1 - probability) * LEVELS) / LEVELS
    assert abs(dropped.mean() - exact) < 5 * (exact * (1 - exact) / 2**21) ** 0.5


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 2**17 - 1, 2**17 + 5])
def test_every_size_is_drawn_to_its_end(size):
    x = torch.ones(64, size)[0]
    rounds = torch.stack([seeded_keep(x, 0.5, seeded_generator(seed, 0, x.device)) for seed in range(40)])
    # Forty times the same would be one in 2**39.
    assert (rounds[:, -1].max(), rounds[:, -1].min()) == (2.0, 0.0)


def test_draws_depend_on_the_seed_alone():
    x, threads = torch.ones(3, 2**17), torch.get_num_threads()
    before = np.random.get_state()[1].copy()
    try:
        sides = []
        for count in (1, 2):
            torch.set_num_threads(count)
            sides.append(seeded_dropout(x, 0.2, seeded_generator(5, 2, x.device)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*sides)
    assert not torch.equal(sides[0], seeded_dropout(x, 0.2, seeded_generator(5, 3, x.device)))
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_all_dtypes_drop_the_same(dtype):
    x = torch.ones(3, 1001)
    expected = seeded_keep(x.double(), 0.3, seeded_generator(5, 0, x.device)).to(dtype)
    found = seeded_keep(x.to(dtype), 0.3, seeded_generator(5, 0, x.device))
    assert found.dtype is dtype
    assert torch.equal(found, expected)


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
