"""apply_chunking_to_forward and its errors."""

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.nn.chunking import apply_chunking_to_forward, apply_in_blocks


@pytest.mark.parametrize("chunk_size", [0, 1, 3, 6])
def test_chunked_is_whole_with_gradients(chunk_size):
    layer = torch.nn.Linear(4, 5, dtype=torch.float64)
    results = []
    for size in (0, chunk_size):
        x = torch.arange(48, dtype=torch.float64).view(2, 6, 4).requires_grad_()
        out = apply_chunking_to_forward(lambda a, b: layer(a) * b[..., :1], size, 1, x, x)
        out.square().sum().backward()
        results.append((out.detach(), x.grad))
    for whole, part in zip(*results, strict=True):
        assert torch.allclose(whole, part)


def test_it_really_cuts():
    sizes = []

    def spy(x):
        sizes.append(x.shape[1])
        return x

    apply_chunking_to_forward(spy, 2, 1, torch.zeros(3, 6))
    assert sizes == [2, 2, 2]


def test_errors():
    x = torch.zeros(2, 6)
    with pytest.raises(AssertionError, match="expected at least one tensor to cut, got none"):
        apply_chunking_to_forward(lambda: x, 2, 1)
    with pytest.raises(InputError, match="the function takes 1 arguments, got 2 tensors"):
        apply_chunking_to_forward(lambda a: a, 0, 1, x, x)
    with pytest.raises(InputError, match=r"one size along dimension 1, got sizes \[6, 4\]"):
        apply_chunking_to_forward(lambda a, b: a, 2, 1, x, x[:, :4])
    with pytest.raises(InputError, match="multiple of the chunk size 4, got 6; change the chunk size or pad"):
        apply_chunking_to_forward(lambda a: a, 4, 1, x)


def test_blocks_of_tokens():
    x = torch.randn(3, 7, 4)
    sizes = []

    def double(part):
        sizes.append(part.shape)
        return torch.cat([2 * part, part], dim=-1)

    wanted = torch.cat([2 * x, x], dim=-1)
    assert torch.equal(apply_in_blocks(double, x, 8), wanted)
    assert sizes == [(1, 8, 4), (1, 8, 4), (1, 5, 4)]
    sizes.clear()
    assert torch.equal(apply_in_blocks(double, x, 21), wanted) and sizes == [x.shape]


def test_blocks_are_made_without_gradients_only():
    x = torch.zeros(2, 3000, 1)
    sizes = []

    def note(part):
        sizes.append(part.shape[1])
        return part

    apply_in_blocks(note, x)
    with torch.no_grad():
        apply_in_blocks(note, x)
    assert sizes == [3000, 2048, 2048, 1904]
