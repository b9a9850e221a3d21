"""The rows of a cache, whatever its kind: tensors with the rows first, tuples or lists of them, or a cache object."""

from typing import Any

from torch import Tensor

from modelwright.attention.caches import EncoderDecoderCache
from modelwright.core.errors import InputError


def select_rows(cache: Any, rows: Tensor) -> Any:
    """Return the cache with the rows that `rows` [new rows] names, in its order; an object changes in place.

    An object has `reorder_cache(beam_idx)`. Raises InputError for a cache of another kind.
    """
    if hasattr(cache, "reorder_cache"):
        reordered = cache.reorder_cache(rows)
        return cache if reordered is None else reordered
    if isinstance(cache, Tensor):
        return cache.index_select(0, rows.to(cache.device))
    if isinstance(cache, (tuple, list)):
        return type(cache)(select_rows(each, rows) for each in cache)
    if cache is None:
        return None
    raise InputError(f"no rule to reorder a cache of type {type(cache).__name__}; define _reorder_cache.")


def reorder_beams(cache: Any, beam_idx: Tensor) -> Any:
    """As `select_rows`, for rows that only move among the beams of one item, which have read the same source.

    So the keys and values of the encoder's states stay: those of an EncoderDecoderCache, and the last two of four in a
    tuple of layers.
    """
    if isinstance(cache, EncoderDecoderCache):
        cache.self_attention_cache.reorder_cache(beam_idx)
        return cache
    if isinstance(cache, (tuple, list)) and all(isinstance(layer, (tuple, list)) for layer in cache):
        return type(cache)(
            (*select_rows(layer[:2], beam_idx), *layer[2:]) if len(layer) == 4 else select_rows(layer, beam_idx)
            for layer in cache
        )
    return select_rows(cache, beam_idx)
