"""Caches of keys and values for a whole model: one cache layer per model layer.

Legend: B batch, G key/value heads, S tokens held, T new tokens, D head size; tensors are [B, G, S, D].
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from modelwright.attention.cache_layers import (
    CacheLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)
from modelwright.attention.patterns import layer_types_of, text_config_of, window_of
from modelwright.core.errors import InputError, reject_unknown


class Cache:
    """A list of cache layers. `rope_lengths` is where dynamic rotary embeddings note what the keys were rotated for."""

    def __init__(self, layers: Iterable[CacheLayer] = ()) -> None:
        self.layers: list[CacheLayer] = list(layers)
        self.rope_lengths: dict[str, int] = {}

    def layer(self, layer_idx: int) -> CacheLayer:
        """Return the layer of this number; raise InputError if the cache has fewer."""
        if layer_idx >= len(self.layers):
            raise InputError(
                f"{type(self).__name__}: it has {len(self.layers)} layers, layer {layer_idx} was asked for"
            )
        return self.layers[layer_idx]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] of one model layer and return those to attend to, [B, G, S, D]."""
        return self.layer(layer_idx).update(key_states, value_states, cache_kwargs)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens that the layer has seen."""
        return self.layers[layer_idx].get_seq_length() if layer_idx < len(self.layers) else 0

    def get_mask_sizes(self, query_length: int | Tensor, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys the next `update` gives, and the position of the first.

        `query_length` is the number of new tokens, or their positions (the 4.x spelling).
        """
        new = int(query_length) if isinstance(query_length, int) else query_length.shape[0]
        if layer_idx >= len(self.layers):
            return new, 0
        return self.layers[layer_idx].get_mask_sizes(new)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """Return the number of tokens that fit into the layer, -1 for no limit."""
        return self.layers[layer_idx].get_max_cache_shape() if layer_idx < len(self.layers) else -1

    @property
    def max_cache_len(self) -> int:
        """The largest number of tokens that a layer of fixed size holds, -1 if none is of fixed size."""
        return max((layer.get_max_cache_shape() for layer in self.layers), default=-1)

    @property
    def max_batch_size(self) -> int | None:
        """The batch size of the tensors held, None before the first update."""
        return next((layer.keys.shape[0] for layer in self.layers if layer.keys is not None), None)

    @property
    def is_initialized(self) -> bool:
        """Whether every layer holds tensors."""
        return bool(self.layers) and all(layer.is_initialized for layer in self.layers)

    @property
    def is_compileable(self) -> bool:
        """Whether the shapes stay the same from step to step."""
        return bool(self.layers) and all(layer.is_compileable for layer in self.layers)

    @property
    def is_sliding(self) -> list[bool]:
        """For each layer, whether it holds a window only."""
        return [layer.is_sliding for layer in self.layers]

    def reset(self) -> None:
        """Forget all tokens."""
        self.rope_lengths.clear()
        for layer in self.layers:
            layer.reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put row `beam_idx[i]` of the batch at place i, in every layer."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of the batch that `indices` names, in its order."""
        for layer in self.layers:
            layer.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch `repeats` times."""
        for layer in self.layers:
            layer.repeat(repeats)

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens; a negative number takes that many off the end.

        Raises InputError if a sliding layer has already let go of tokens that would be needed.
        """
        for layer in self.layers:
            layer.crop(max_length)
        if self.get_seq_length() == 0:
            self.rope_lengths.clear()

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer_idx: int) -> tuple[Tensor, Tensor]:
        layer = self.layer(layer_idx)
        if layer.keys is None or layer.values is None:
            raise InputError(f"{type(self).__name__}: layer {layer_idx} holds nothing yet")
        return layer.keys, layer.values

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[index] for index in range(len(self.layers)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.layers)} layers, {self.get_seq_length()} tokens)"


class DynamicCache(Cache):
    """A cache that grows with what it is given; with a `config`, its sliding layers hold their window only."""

    def __init__(
        self, ddp_cache_data: Iterable[tuple[Tensor, Tensor]] | None = None, config: Any = None, **kwargs: Any
    ) -> None:
        reject_unknown("DynamicCache", kwargs, ("ddp_cache_data", "config"))
        super().__init__([] if config is None else _dynamic_layers(config))
        for index, states in enumerate(ddp_cache_data or ()):
            self.update(states[0], states[1], index)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] of one model layer and return those to attend to, [B, G, S, D]."""
        while len(self.layers) <= layer_idx:
            self.layers.append(DynamicLayer())
        return self.layers[layer_idx].update(key_states, value_states, cache_kwargs)

    def to_legacy_cache(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return ((key, value), ...), one pair per layer."""
        return tuple(self)

    @classmethod
    def from_legacy_cache(cls, past_key_values: Iterable[tuple[Tensor, Tensor]] | None = None) -> "DynamicCache":
        """Return a cache that holds ((key, value), ...), one pair per layer; None makes an empty one."""
        return cls(_checked_pairs("DynamicCache.from_legacy_cache", past_key_values, 2))


class StaticCache(Cache):
    """A cache in buffers of `max_cache_len` tokens, made at the first update (or by `early_initialization`).

    Sliding layers of the config hold their window, if that is shorter. Raises InputError when a token does not fit.
    """

    def __init__(
        self,
        config: Any,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        reject_unknown("StaticCache", kwargs, ("config", "max_batch_size", "max_cache_len", "device", "dtype"))
        text = text_config_of(config)
        if max_cache_len is None:
            max_cache_len = int(text.max_position_embeddings)
        layers: list[CacheLayer] = []
        for kind in layer_types_of(text):
            window = window_of(text, kind)
            slides = window is not None and window < max_cache_len
            layers.append(StaticSlidingWindowLayer(window) if slides and window else StaticLayer(max_cache_len))
        super().__init__(layers)
        if max_batch_size is not None and dtype is not None:
            heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
            size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
            self.early_initialization(max_batch_size, heads, size, dtype, device or "cpu")

    def early_initialization(
        self, batch_size: int, num_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        """Make the buffers now, [batch_size, num_heads, max_cache_len, head_dim]."""
        like = torch.empty(batch_size, num_heads, 0, head_dim, dtype=dtype, device=device)
        for layer in self.layers:
            assert isinstance(layer, StaticLayer)
            layer.allocate(like, like)


class EncoderDecoderCache(Cache):
    """A cache for the decoder's own keys and one for those of the encoder's states, which are computed once.

    `is_updated[layer]` tells whether the keys of the encoder's states are there.
    """

    def __init__(self, *caches: Any) -> None:
        if len(caches) == 1 and not isinstance(caches[0], Cache):
            pairs = [tuple(states) for states in caches[0]]
            own, cross = DynamicCache(p[:2] for p in pairs), DynamicCache(p[2:] for p in pairs if len(p) > 2)
            caches = (own, cross)
        if len(caches) != 2 or not all(isinstance(cache, Cache) for cache in caches):
            raise InputError(
                "EncoderDecoderCache: expected two caches (the decoder's own, and that of the encoder's states), got "
                f"{', '.join(type(cache).__name__ for cache in caches) or 'nothing'}"
            )
        super().__init__()
        self.self_attention_cache: Cache = caches[0]
        self.cross_attention_cache: Cache = caches[1]
        self.layers = self.self_attention_cache.layers
        self.rope_lengths = self.self_attention_cache.rope_lengths
        self.is_updated: dict[int, bool] = {
            index: bool(self.cross_attention_cache.get_seq_length(index)) for index in range(len(caches[1]))
        }

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] to the decoder's own cache."""
        return self.self_attention_cache.update(key_states, value_states, layer_idx, cache_kwargs)

    def reset(self) -> None:
        """Forget all tokens of both caches."""
        self.self_attention_cache.reset()
        self.cross_attention_cache.reset()
        self.is_updated = {}

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of the batch that `indices` names, in its order, in both caches."""
        self.self_attention_cache.batch_select_indices(indices)
        self.cross_attention_cache.batch_select_indices(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch `repeats` times, in both caches."""
        self.self_attention_cache.batch_repeat_interleave(repeats)
        self.cross_attention_cache.batch_repeat_interleave(repeats)

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens of the decoder; the encoder's states stay."""
        self.self_attention_cache.crop(max_length)

    def __getitem__(self, layer_idx: int) -> Any:
        own = self.self_attention_cache[layer_idx]
        return (*own, *self.cross_attention_cache[layer_idx]) if self.is_updated.get(layer_idx) else own

    def to_legacy_cache(self) -> tuple[tuple[Tensor, ...], ...]:
        """Return ((key, value, encoder key, encoder value), ...); the last two once they are there."""
        return tuple(self[index] for index in range(len(self.self_attention_cache)))

    @classmethod
    def from_legacy_cache(cls, past_key_values: Iterable[tuple[Tensor, ...]] | None = None) -> "EncoderDecoderCache":
        """Return a cache that holds ((key, value[, encoder key, encoder value]), ...); None makes an empty one."""
        return cls(_checked_pairs("EncoderDecoderCache.from_legacy_cache", past_key_values, 4) or ())


def as_cache(past_key_values: Any) -> Any:
    """Return `past_key_values` as a cache: a tuple of pairs becomes a DynamicCache, of fours an EncoderDecoderCache."""
    if past_key_values is None or isinstance(past_key_values, Cache):
        return past_key_values
    if isinstance(past_key_values, list | tuple):
        wide = bool(past_key_values) and len(past_key_values[0]) == 4
        return (EncoderDecoderCache if wide else DynamicCache).from_legacy_cache(past_key_values)
    raise InputError(
        f"past_key_values: expected a cache or a tuple of (key, value) per layer, got {type(past_key_values).__name__}"
    )


def cache_of_call(past_key_values: Any, use_cache: bool, crosses: bool) -> Any:
    """Return the cache that a call reads and writes: the caller's, a new one if one is wanted, or None.

    With `crosses` (there are encoder states to attend to) it has a part for these.
    """
    cache = as_cache(past_key_values)
    if cache is None and use_cache:
        cache = DynamicCache()
    if cache is not None and crosses and not isinstance(cache, EncoderDecoderCache):
        cache = EncoderDecoderCache(cache, DynamicCache())
    return cache


def encoder_states(
    past_key_values: Any, layer_idx: int, compute: Callable[[], Iterable[Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return keys and values of the encoder's states, `compute()`d in the first call with a cache only."""
    cache = getattr(past_key_values, "cross_attention_cache", None)
    if cache is not None and past_key_values.is_updated.get(layer_idx):
        key, value = cache[layer_idx]
        return key, value
    key, value = compute()
    if cache is not None:
        # Read at every step from now on, so their numbers had better lie together.
        key, value = cache.update(key.contiguous(), value.contiguous(), layer_idx)
        past_key_values.is_updated[layer_idx] = True
    return key, value


def _dynamic_layers(config: Any) -> list[CacheLayer]:
    text = text_config_of(config)
    windows = [window_of(text, kind) for kind in layer_types_of(text)]
    return [DynamicLayer() if window is None else DynamicSlidingWindowLayer(window) for window in windows]


def _checked_pairs(where: str, layers: Iterable[Any] | None, most: int) -> list[Any] | None:
    if layers is None:
        return None
    listed = list(layers)
    for index, states in enumerate(listed):
        sound = isinstance(states, list | tuple) and len(states) in (2, most)
        if not sound or not all(isinstance(item, Tensor) and item.dim() == 4 for item in states):
            raise InputError(
                f"{where}: expected for each layer {' or '.join(str(n) for n in sorted({2, most}))} tensors [batch, "
                f"heads, tokens, size], layer {index} is {type(states).__name__}"
            )
    return listed
