"""The pure functions of LSH: bucket counts, hashes and the sort."""

import numpy as np
import pytest
import torch

from modelwright.core.errors import ConfigError
from modelwright.models.reformer import hashing
from modelwright.models.reformer.configuration_reformer import bucket_factors


@pytest.mark.parametrize(
    ("length", "chunk", "limit", "expected"),
    [
        (128, 64, 4096, 4),
        (512, 64, 4096, 16),
        (2048, 64, 4096, 64),
        (4096, 64, 4096, 128),
        (4096, 64, 65536, 128),
        (16384, 64, 65536, [16, 32]),
        (65536, 64, 65536, [32, 64]),
        (524288, 64, 524288, [128, 128]),
        (65536, 256, 65536, 512),
    ],
)
def test_number_of_buckets(length, chunk, limit, expected):
    assert hashing.choose_num_buckets(length, chunk, limit) == expected


@pytest.mark.parametrize("bad", [3, 0, [4, 3], [], -2])
def test_odd_bucket_counts_are_refused(bad):
    with pytest.raises(ConfigError, match=r"num_buckets: expected an even number or a list of even factors .* got"):
        bucket_factors(bad)


@pytest.mark.parametrize("factors", [[8], [4, 6], [2, 4, 2]])
def test_buckets_are_the_definition(factors):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 3, 17, 5, generator=generator)
    rotations = hashing.draw_rotations([True] * 3, 5, 2, factors, like=vectors, seed=0)
    assert rotations.shape == (3, 5, 2, sum(factors) // 2)
    buckets = hashing.hash_vectors(vectors, rotations, factors).numpy()
    rotated = np.einsum("bhld,hdnr->bhnlr", vectors.numpy(), rotations.numpy())
    expected, base, column = 0, 1, 0
    for factor in factors:
        part = rotated[..., column : column + factor // 2]
        expected = expected + base * np.argmax(np.concatenate([part, -part], axis=-1), axis=-1)
        base, column = base * factor, column + factor // 2
    assert (buckets == expected).all()
    assert buckets.max() < np.prod(factors)


def test_seeded_rotations_are_the_draw_of_a_reseeded_process():
    like = torch.empty(0)
    own = hashing.draw_rotations([True] * 2, 4, 3, [6], like=like, seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert torch.equal(own, torch.randn(2, 4, 3, 3))


@pytest.mark.parametrize("num_buckets", [6, 70_000])
def test_sort_is_stable_and_puts_masked_tokens_last(num_buckets):
    generator = torch.Generator().manual_seed(0)
    buckets = torch.randint(num_buckets, (2, 3, 2, 40), generator=generator)
    buckets[..., ::3] = num_buckets - 1
    mask = torch.rand(2, 40, generator=generator) > 0.3
    order = hashing.sort_by_bucket(buckets, mask, num_buckets)
    for b, h, n in np.ndindex(2, 3, 2):
        keys = [(int(buckets[b, h, n, i]) if mask[b, i] else num_buckets, i) for i in range(40)]
        assert order[b, h, n].tolist() == [i for _, i in sorted(keys)]


def test_buckets_of_some_tokens_at_a_time_are_those_of_all(monkeypatch):
    vectors = torch.randn(2, 3, 40, 8, generator=torch.Generator().manual_seed(0))
    rotations = hashing.draw_rotations([True] * 3, 8, 2, [4, 6], like=vectors, seed=1)
    mask = torch.arange(40) < torch.tensor([[33], [40]])
    whole = hashing.sort_by_bucket(hashing.hash_vectors(vectors, rotations, [4, 6]), mask, 24)
    taken = []
    hash_vectors = hashing.hash_vectors

    def watched(part, *settings):
        taken.append(part.shape[2])
        return hash_vectors(part, *settings)

    monkeypatch.setattr(hashing, "hash_vectors", watched)
    monkeypatch.setattr(hashing, "_HASHED", 2 * 3 * (8 + 2 * 5) * 16)
    assert torch.equal(hashing.hash_and_sort(vectors, rotations, [4, 6], mask), whole)
    assert taken == [16, 16, 8]
