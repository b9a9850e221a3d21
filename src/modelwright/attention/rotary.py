"""Rotary position embeddings as a module, and the functions that rotate queries and keys.

Legend: B batch, H heads, T tokens, D head size, d rotated dimensions.
"""
# ruff: noqa: ARG001 - one contract for all of a kind

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modelwright.attention.rope import ROPE_INIT_FUNCTIONS
from modelwright.attention.rope_settings import rope_settings, rope_type_of

# Types whose frequencies depend on how long the sequence is.
_GROWS_WITH_LENGTH = ("dynamic", "longrope")


def rotate_half(x: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of the last dimension by a quarter: (-x_{i + d/2}, x_i)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor | None = None, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys [B, H, T, D] by `cos` and `sin` [B, T, d].

    `unsqueeze_dim` is where the heads are: 1, or 2 for [B, T, H, D]. If d < D, the dimensions behind d stay as they
    are.
    `position_ids` is kept for 4.x callers; the positions are in `cos` and `sin`.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    d = cos.shape[-1]
    if d == x.shape[-1]:
        return x * cos + rotate_half(x) * sin
    turned, still = x[..., :d], x[..., d:]
    return torch.cat((turned * cos + rotate_half(turned) * sin, still), dim=-1)


def dynamic_rope_update(rope_forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate `forward(self, x, position_ids, ...)` of a rotary module: its frequencies follow the sequence's length.

    For `dynamic` and `longrope` only. The length is, in this order: that for which the keys in `past_key_values` were
    rotated (keys and queries must use one base); the keyword `seq_len`, a number of tokens, which costs no wait for a
    device; the largest position. The frequencies are a function of that length alone: after a long sequence a short one
    gets the short one's again. Both keywords are taken here and not handed to `forward`. The module has `config`,
    `inv_freq`, `original_inv_freq`, `max_seq_len_cached`, `original_max_seq_len`, `attention_scaling`, `rope_init_fn`
    and `rope_type`; where these are per layer type, `layer_type` is a keyword and the names of the tensors and lengths
    begin with "{layer_type}_".
    """

    @functools.wraps(rope_forward)
    def wrapper(
        self: Any,
        x: Tensor,
        position_ids: Tensor,
        *args: Any,
        seq_len: int | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        layer_type = kwargs.get("layer_type")
        rope_type = self.rope_type[layer_type] if isinstance(self.rope_type, dict) else self.rope_type
        if any(kind in rope_type for kind in _GROWS_WITH_LENGTH):
            length = _length(seq_len, past_key_values, position_ids, layer_type)
            _use_length(self, rope_type, length, x.device, layer_type)
        return rope_forward(self, x, position_ids, *args, **kwargs)

    return wrapper


def _length(seq_len: int | None, past: Any, position_ids: Tensor, layer_type: str | None) -> int:
    """Return the length in tokens that decides the frequencies; note it in the cache that the keys go to."""
    noted = getattr(past, "rope_lengths", None)
    key = layer_type or ""
    if noted is not None and key in noted and past.get_seq_length() > 0:
        return int(noted[key])
    length = int(position_ids.max()) + 1 if seq_len is None else seq_len
    if noted is not None:
        noted[key] = length
    return length


def _use_length(module: Any, rope_type: str, length: int, device: torch.device, layer_type: str | None) -> None:
    prefix = "" if layer_type is None or not hasattr(module, f"{layer_type}_inv_freq") else f"{layer_type}_"
    original = int(getattr(module, f"{prefix}original_max_seq_len", 0) or module.original_max_seq_len)
    # Up to the trained length nothing changes; longrope knows two states only.
    state = max(length, original) if "dynamic" in rope_type else original + (length > original)
    cached = getattr(module, f"{prefix}max_seq_len_cached", original)
    inv_freq = getattr(module, f"{prefix}inv_freq")
    if state == cached and inv_freq.device == device:
        return
    if state == original:
        values = getattr(module, f"{prefix}original_inv_freq").to(device)
    else:
        compute = module.rope_init_fn[layer_type] if isinstance(module.rope_init_fn, dict) else module.rope_init_fn
        extra = {} if layer_type is None else {"layer_type": layer_type}
        values, scaling = compute(module.config, device, seq_len=state, **extra)
        setattr(module, f"{prefix}attention_scaling", scaling)
    module.register_buffer(f"{prefix}inv_freq", values, persistent=False)
    setattr(module, f"{prefix}max_seq_len_cached", state)


class RotaryEmbedding(nn.Module):
    """The cosines and sines of positions, for the rope type that the config names (`layer_type`: of these layers).

    Raises UnknownNameError for an unknown type, RopeKeyError for missing settings.
    """

    inv_freq: Tensor
    original_inv_freq: Tensor

    def __init__(self, config: Any, device: torch.device | str | None = None, *, layer_type: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.layer_type = layer_type
        self.rope_type = rope_type_of(config, layer_type)
        settings = rope_settings(config, layer_type)
        self.original_max_seq_len = settings.max_positions
        if self.rope_type == "longrope":
            self.original_max_seq_len = int(settings.get("original_max_position_embeddings") or settings.max_positions)
        self.max_seq_len_cached = self.original_max_seq_len
        self.rope_init_fn = functools.partial(ROPE_INIT_FUNCTIONS[self.rope_type], layer_type=layer_type)
        self.attention_scaling = 1.0
        self._fill(device)

    def _fill(self, device: torch.device | str | None) -> None:
        device = torch.get_default_device() if device is None else device
        # Computed on the CPU, also under `with torch.device(...)`, so that every device has the same bits.
        with torch.device("cpu"):
            values, self.attention_scaling = self.rope_init_fn(self.config, "cpu")
        values = values.to(device)
        self.register_buffer("inv_freq", values, persistent=False)
        self.original_inv_freq = values
        self.max_seq_len_cached = self.original_max_seq_len

    def init_buffers(self) -> None:
        """Compute the frequencies again, on the device where the module is."""
        self._fill(self.inv_freq.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RotaryEmbedding":
        """Move, but never to half precision: positions in the thousands need the bits."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill(self.inv_freq.device)
        return self

    @dynamic_rope_update
    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [B, T, d] in the dtype of `x`, for `position_ids` [B, T]; computed in fp32.

        Two more keywords, for types that depend on the length: `seq_len` (tokens) and `past_key_values` (the cache).
        """
        angles = position_ids[:, :, None].float() * self.inv_freq.to(x.device)[None, None, :].float()
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)
