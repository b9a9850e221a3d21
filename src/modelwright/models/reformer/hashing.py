"""Angular locality-sensitive hashing: which tokens may attend to each other (Kitaev et al. 2020, section 2).

Shapes: B batch, H heads, L tokens, D head size, N hash rounds, R columns of the random rotations.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Buckets = int | list[int]

# Numbers that hashing has at once, of vectors and of rotated ones: on a CPU 4 MB in fp32, which stay in cache, on a GPU
# 256 MB.
_HASHED, _HASHED_ON_GPU = 2**20, 2**26


def choose_num_buckets(sequence_length: int, chunk_length: int, max_position_embeddings: int) -> Buckets:
    """Return the number of buckets for sequences of that length: about two a chunk, rounded down to a power of two.

    More than twice the square root of the longest sequence's chunk count (and than two a token of a chunk) is given as
    two factors, whose hashes are cheaper: [2**(p//2), 2**(p-p//2)]. All arguments count tokens.
    """
    power = (2 * (sequence_length // chunk_length)).bit_length() - 1
    limit = 2 * max(math.isqrt(max_position_embeddings // chunk_length), chunk_length)
    if 1 << power > limit:
        return [1 << power // 2, 1 << power - power // 2]
    return 1 << power


def draw_rotations(
    heads: Sequence[bool], head_size: int, num_hashes: int, factors: Sequence[int], like: Tensor, seed: int
) -> Tensor:
    """Draw the random rotations (H, D, N, R), R being half the sum of `factors`, in `like`'s dtype and on its device.

    `heads` tells which of the layer's original heads are left: pruning does not change what the others draw. The order
    of the draw is upstream's, so that one seed gives one set of rotations on both sides.
    """
    shape = (len(heads), head_size, num_hashes, sum(factors) // 2)
    generator = torch.Generator(like.device).manual_seed(seed)
    rotations = torch.randn(shape, device=like.device, dtype=like.dtype, generator=generator)
    return rotations if all(heads) else rotations[torch.tensor(heads, device=like.device)]


def hash_vectors(vectors_BHLD: Tensor, rotations_HDNR: Tensor, factors: Sequence[int]) -> Tensor:
    """Return the bucket (B, H, N, L) of every vector in every round, in 0 .. prod(factors)-1.

    A bucket is the index of the largest of the rotated vector and its opposite; with several factors each one hashes
    with its own columns and the results are digits, the first factor the lowest. In fp32, under autocast too.
    """
    buckets = None
    base, column = 1, 0
    for factor in factors:
        columns_HDNR = rotations_HDNR[..., column : column + factor // 2].float()
        with torch.autocast(vectors_BHLD.device.type, enabled=False):
            rotated_BHNLR = torch.einsum("bhld,hdnr->bhnlr", vectors_BHLD.float(), columns_HDNR)
        # argmax([x, -x]) without building [x, -x]: the larger of the maximum and the negated minimum; a tie is the
        # maximum's, as it comes first.
        top, top_index = rotated_BHNLR.max(dim=-1)
        low, low_index = rotated_BHNLR.min(dim=-1)
        digit = torch.where(top >= -low, top_index, low_index + factor // 2)
        buckets = digit if buckets is None else buckets + base * digit
        base, column = base * factor, column + factor // 2
    assert buckets is not None
    return buckets


def both_ways(rotations_HDNR: Tensor, factors: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return each factor's rotations followed by their opposites, (H, D, N, 2R): what `hash_one` works with."""
    parts = rotations_HDNR.float().cpu().numpy()
    ends = np.cumsum([0] + [factor // 2 for factor in factors])
    columns = [parts[..., start:stop] for start, stop in itertools.pairwise(ends)]
    return np.concatenate([half for part in columns for half in (part, -part)], axis=-1)


def hash_one(
    vectors_BHD: npt.NDArray[np.float32], both_ways_HDNR: npt.NDArray[np.float32], factors: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Return the buckets (B, H, N) of one vector a row and head, as `hash_vectors` does for many.

    In numpy: these are a few numbers, and a call of torch costs more than they do.
    """
    heads, size, rounds, columns = both_ways_HDNR.shape
    rotated_HBC = vectors_BHD.transpose(1, 0, 2) @ both_ways_HDNR.reshape(heads, size, -1)
    rotated_BHNR = rotated_HBC.transpose(1, 0, 2).reshape(-1, heads, rounds, columns)
    buckets: npt.NDArray[np.int64] = rotated_BHNR[..., : factors[0]].argmax(axis=-1)
    base = column = factors[0]
    for factor in factors[1:]:
        buckets += base * rotated_BHNR[..., column : column + factor].argmax(axis=-1)
        base, column = base * factor, column + factor
    return buckets


def sort_by_bucket(buckets_BHNL: Tensor, key_mask_BL: Tensor | None, num_buckets: int) -> Tensor:
    """Return, per round, the token indices (B, H, N, L) ordered by bucket and then by position, as int32.

    Tokens that `key_mask_BL` rules out (False) come last, as if they had a bucket of their own.
    """
    if key_mask_BL is not None:
        buckets_BHNL = buckets_BHNL.masked_fill(~key_mask_BL[:, None, None, :], num_buckets)
    return buckets_BHNL.to(_narrow(num_buckets)).argsort(dim=-1, stable=True).to(torch.int32)


def _narrow(num_buckets: int) -> torch.dtype:
    """Return a narrow type for buckets and one more: the sort moves fewer bytes."""
    return torch.int16 if num_buckets < 2**15 else torch.int32


def hash_and_sort(
    vectors_BHLD: Tensor, rotations_HDNR: Tensor, factors: Sequence[int], key_mask_BL: Tensor | None
) -> Tensor:
    """Return `sort_by_bucket` of `hash_vectors`, some tokens at a time: all rotated vectors are never stored."""
    batch, heads, length, size = vectors_BHLD.shape
    num_buckets = math.prod(factors)
    rounds = rotations_HDNR.shape[2]
    buckets_BHNL = torch.empty((batch, heads, rounds, length), dtype=_narrow(num_buckets), device=vectors_BHLD.device)
    room = _HASHED_ON_GPU if vectors_BHLD.is_cuda else _HASHED
    step = max(1, room // (batch * heads * (size + rounds * rotations_HDNR.shape[-1])))
    for start in range(0, length, step):
        part = slice(start, start + step)
        buckets_BHNL[..., part] = hash_vectors(vectors_BHLD[:, :, part], rotations_HDNR, factors)
    return sort_by_bucket(buckets_BHNL, key_mask_BL, num_buckets)
