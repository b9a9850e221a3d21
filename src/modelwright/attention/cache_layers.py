"""What one layer remembers: its keys and values, growing or in a buffer of fixed size, all of them or a window.

Legend: B batch, G key/value heads, S tokens held, T new tokens, D head size; tensors are [B, G, S, D].
`length` counts the tokens that the layer has seen; it is a Python number, so reading it never waits for a device.
"""
# ruff: noqa: ARG002 - one contract for all of a kind

from typing import Any

import torch
from torch import Tensor

from modelwright.attention.growing import Growing
from modelwright.core.errors import InputError
from modelwright.nn.tracing import is_tracing


class CacheLayer:
    """Base of the layers; a subclass says how it stores what `update` is given.

    `keys` and `values` are None until the first update, which fixes batch size, dtype and device.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.length = 0

    @property
    def is_initialized(self) -> bool:
        """Whether the layer holds tensors."""
        return self.keys is not None

    def update(
        self, key_states: Tensor, value_states: Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] and return those to attend to."""
        raise NotImplementedError

    def get_seq_length(self) -> int:
        """Return the number of tokens seen."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next update of `query_length` tokens returns, and the position of the first."""
        raise NotImplementedError

    def get_max_cache_shape(self) -> int:
        """Return the number of tokens that fit, -1 for no limit."""
        return -1

    def reset(self) -> None:
        """Forget all tokens."""
        self.keys, self.values, self.length = None, None, 0

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens; a negative number takes that many off the end."""
        raise NotImplementedError

    def select(self, rows: Tensor) -> None:
        """Keep the rows of the batch that the index names, in its order."""
        if self.keys is not None and self.values is not None:
            self.keys = self.keys.index_select(0, rows.to(self.keys.device))
            self.values = self.values.index_select(0, rows.to(self.values.device))

    def repeat(self, repeats: int) -> None:
        """Repeat each row of the batch `repeats` times."""
        if self.keys is not None and self.values is not None:
            self.keys = self.keys.repeat_interleave(repeats, dim=0)
            self.values = self.values.repeat_interleave(repeats, dim=0)

    def kept_after_crop(self, max_length: int) -> int:
        """Return the length that `crop(max_length)` leaves."""
        return max(self.length + max_length, 0) if max_length < 0 else min(max_length, self.length)


class DynamicLayer(CacheLayer):
    """Grows: without gradients in a buffer with room to spare, so that a step does not copy what is held already."""

    def __init__(self) -> None:
        super().__init__()
        self._key_buffer, self._value_buffer = Growing(), Growing()

    def update(
        self, key_states: Tensor, value_states: Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] and return all."""
        if self.keys is None or self.values is None:
            self.keys, self.values = key_states, value_states
        else:
            _check_batch(self.keys, key_states)
            self.keys = self._key_buffer.append(self.keys, key_states)
            self.values = self._value_buffer.append(self.values, value_states)
        self.length += key_states.shape[2]
        return self.keys, self.values

    def update_and_lend(self, key_states: Tensor, value_states: Tensor, lent: int) -> tuple[Tensor, Tensor]:
        """Add all but the last `lent` of keys and values [B, G, T, D], and return all with these until the next update.

        Without gradients, in a layer that holds tokens of the same dtype.
        """
        assert self.keys is not None
        assert self.values is not None
        _check_batch(self.keys, key_states)
        self.keys, keys = self._key_buffer.append_and_lend(self.keys, key_states, lent)
        self.values, values = self._value_buffer.append_and_lend(self.values, value_states, lent)
        self.length += key_states.shape[2] - lent
        return keys, values

    def reset(self) -> None:
        """Forget all tokens."""
        super().reset()
        self._key_buffer, self._value_buffer = Growing(), Growing()

    def select(self, rows: Tensor) -> None:
        """Keep the rows of the batch that the index names, in its order."""
        if self.keys is not None and self.values is not None:
            self.keys = self._key_buffer.select(self.keys, rows)
            self.values = self._value_buffer.select(self.values, rows)

    def repeat(self, repeats: int) -> None:
        """Repeat each row of the batch `repeats` times."""
        super().repeat(repeats)
        self._key_buffer, self._value_buffer = Growing(), Growing()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (all tokens with the new ones, 0)."""
        return self.length + query_length, 0

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens; a negative number takes that many off the end."""
        kept = self.kept_after_crop(max_length)
        if self.keys is not None and self.values is not None and kept < self.length:
            self.keys, self.values = self.keys[:, :, :kept], self.values[:, :, :kept]
        self.length = kept


class DynamicSlidingWindowLayer(DynamicLayer):
    """Grows until it holds `sliding_window - 1` tokens, which with the next one are a window."""

    is_sliding = True

    def __init__(self, sliding_window: int) -> None:
        super().__init__()
        self.sliding_window = _check_size("sliding_window", sliding_window)

    def update(
        self, key_states: Tensor, value_states: Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D] and return those held before and the new ones."""
        keys, values = super().update(key_states, value_states, cache_kwargs)
        first = max(keys.shape[2] - (self.sliding_window - 1), 0)
        if first:
            self.keys = self._key_buffer.without_first(keys, first)
            self.values = self._value_buffer.without_first(values, first)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next update of `query_length` tokens returns, and the position of the first."""
        held = min(self.length, self.sliding_window - 1)
        return held + query_length, self.length - held

    def get_max_cache_shape(self) -> int:
        """Return the window."""
        return self.sliding_window

    def crop(self, max_length: int) -> None:
        """As for all layers; raises InputError once tokens have left the window, because they cannot come back."""
        kept = self.kept_after_crop(max_length)
        if kept < self.length and self.length > self.sliding_window - 1:
            raise InputError(
                f"crop: a sliding layer that has seen {self.length} tokens holds the last {self.sliding_window - 1} "
                f"and cannot go back to {kept}; use a cache without sliding layers: DynamicCache() without a config"
            )
        super().crop(max_length)


class StaticLayer(CacheLayer):
    """Writes into a buffer of `max_cache_len` tokens, whose address and shape never change."""

    is_compileable = True

    def __init__(self, max_cache_len: int) -> None:
        super().__init__()
        self.max_cache_len = _check_size("max_cache_len", max_cache_len)

    def allocate(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Make the buffers, if they are not there, for states like these; return them."""
        if self.keys is None or self.values is None:
            self.keys = _buffer(key_states, self.max_cache_len)
            self.values = _buffer(value_states, self.max_cache_len)
        _check_batch(self.keys, key_states)
        return self.keys, self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, G, T, D] behind those seen and return the buffers.

        4.x callers may name the place instead: `cache_kwargs["cache_position"]` [T]. Raises InputError if they do not
        fit.
        """
        keys, values = self.allocate(key_states, value_states)
        positions = (cache_kwargs or {}).get("cache_position")
        if positions is not None and is_tracing():
            # A place that is a tensor: the recorded code is the same at every step.
            keys.index_copy_(2, positions, key_states)
            values.index_copy_(2, positions, value_states)
            self.length += key_states.shape[2]
            return keys, values
        end = _end_of(positions, self.length, key_states.shape[2])
        if end > self.max_cache_len:
            raise InputError(
                f"StaticCache: token {end} does not fit into max_cache_len={self.max_cache_len} "
                f"({self.length} tokens held, {key_states.shape[2]} new); make it longer, or call reset() first"
            )
        keys[:, :, end - key_states.shape[2] : end] = key_states
        values[:, :, end - key_states.shape[2] : end] = value_states
        self.length = end
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (the whole buffer, 0): the causal mask hides what is not written yet."""
        return self.max_cache_len, 0

    def get_max_cache_shape(self) -> int:
        """Return the size of the buffer in tokens."""
        return self.max_cache_len

    def reset(self) -> None:
        """Forget all tokens and keep the buffers."""
        if self.keys is not None and self.values is not None:
            self.keys.zero_()
            self.values.zero_()
        self.length = 0

    def crop(self, max_length: int) -> None:
        """Keep the first `max_length` tokens; a negative number takes that many off the end."""
        kept = self.kept_after_crop(max_length)
        if self.keys is not None and self.values is not None:
            self.keys[:, :, kept:] = 0
            self.values[:, :, kept:] = 0
        self.length = kept


class StaticSlidingWindowLayer(StaticLayer):
    """A buffer of one window: once full, it always holds the last `sliding_window` tokens, oldest first."""

    is_sliding = True

    def __init__(self, sliding_window: int) -> None:
        super().__init__(sliding_window)
        self.sliding_window = sliding_window

    def update(
        self, key_states: Tensor, value_states: Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, G, T, D]; return the buffers, or, past their end, what the new queries can see."""
        keys, values = self.allocate(key_states, value_states)
        new = key_states.shape[2]
        if self.length + new <= self.max_cache_len:
            return super().update(key_states, value_states)
        held = min(self.length, self.max_cache_len)
        visible = min(held, self.max_cache_len - 1)
        all_keys = torch.cat([keys[:, :, held - visible : held], key_states], dim=2)
        all_values = torch.cat([values[:, :, held - visible : held], value_states], dim=2)
        keys.copy_(all_keys[:, :, -self.max_cache_len :])
        values.copy_(all_values[:, :, -self.max_cache_len :])
        self.length += new
        return all_keys, all_values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next update of `query_length` tokens returns, and the position of the first."""
        if self.length + query_length <= self.max_cache_len:
            return self.max_cache_len, 0
        visible = min(self.length, self.max_cache_len - 1)
        return visible + query_length, self.length - visible

    def crop(self, max_length: int) -> None:
        """As for all layers; raises InputError once tokens have left the window, because they cannot come back."""
        kept = self.kept_after_crop(max_length)
        if kept < self.length and self.length > self.max_cache_len:
            raise InputError(
                f"crop: a sliding layer that has seen {self.length} tokens holds the last {self.max_cache_len} "
                f"and cannot go back to {kept}; use a cache without sliding layers"
            )
        super().crop(max_length)


def _check_size(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"cache: expected {name} to be a positive number of tokens, got {value!r}")
    return value


def _check_batch(held: Tensor, new: Tensor) -> None:
    if (held.shape[0], held.shape[1], held.shape[3]) != (new.shape[0], new.shape[1], new.shape[3]):
        raise InputError(
            f"cache: it holds [batch, heads, tokens, size] = {list(held.shape)}, got new states {list(new.shape)}; "
            "batch, heads and size must not change (reset() it, or reorder_cache/batch_repeat_interleave the rows)"
        )


def _buffer(like: Tensor, tokens: int) -> Tensor:
    return like.new_zeros(like.shape[0], like.shape[1], tokens, like.shape[3])


def _end_of(positions: Tensor | None, length: int, new: int) -> int:
    """Return the position behind the new tokens; a given `cache_position` [T] wins over the count (4.x callers)."""
    if positions is None or positions.device.type != "cpu":
        # 4.x callers only ever pass the next positions, and reading them from a device would wait for it.
        return length + new
    return int(positions[-1]) + 1
