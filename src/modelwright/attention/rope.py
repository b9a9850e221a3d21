"""Frequencies of rotary position embeddings, by type: how a model that was trained on short texts reads long ones.

    compute(config, device=None, seq_len=None, layer_type=None) -> (inv_freq [d / 2] in fp32, attention scale)

The order of operations is that of transformers, so that the numbers are equal to the bit.
Source: Su et al. 2021 (RoPE); Chen et al. 2023 (linear); Peng et al. 2023 (dynamic NTK, YaRN); Ding et al. 2024
(LongRoPE); Llama 3.1 model card.
"""
# ruff: noqa: ARG001 - one contract for all types

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from modelwright.attention.rope_settings import RopeSettings, rope_settings
from modelwright.core.registry import Registry

Device = torch.device | str | None
RopeFunction = Callable[..., tuple[Tensor, float]]


def _powers(settings: RopeSettings, device: Device, base: float | None = None) -> Tensor:
    """Return base^(2i/d) for i = 0 .. d/2 - 1."""
    steps = torch.arange(0, settings.dim, 2, dtype=torch.int64).to(device=device, dtype=torch.float32)
    powers: Tensor = (settings.base if base is None else base) ** (steps / settings.dim)
    return powers


def compute_default(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return base^(-2i/d)."""
    return 1.0 / _powers(rope_settings(config, layer_type), device), 1.0


def compute_linear(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return the default frequencies divided by `factor`: all positions move closer."""
    settings = rope_settings(config, layer_type)
    return (1.0 / _powers(settings, device)) / settings.required("factor"), 1.0


def compute_dynamic(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return the default frequencies of a base that grows with `seq_len` tokens beyond the trained length (NTK)."""
    settings = rope_settings(config, layer_type)
    factor, trained, dim = settings.required("factor"), settings.max_positions, settings.dim
    length = trained if seq_len is None else max(int(seq_len), trained)
    base = settings.base
    # d = 2 has one frequency, base^0, whatever the base; the exponent would divide by zero.
    if dim > 2:
        base = base * ((factor * length / trained) - (factor - 1)) ** (dim / (dim - 2))
    return 1.0 / _powers(settings, device, base), 1.0


def compute_yarn(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return the default for fast frequencies, `1 / factor` of it for slow ones, and a ramp between (YaRN, 3.2)."""
    settings = rope_settings(config, layer_type)
    base, dim = settings.base, settings.dim
    original = settings.get("original_max_position_embeddings") or settings.max_positions
    factor = settings.get("factor")
    if factor is None or settings.factor_from_lengths:
        factor = settings.max_positions / original
    scale = settings.get("attention_factor")
    if scale is None:
        scale = _yarn_scale(factor, settings.get("mscale"), settings.get("mscale_all_dim"))

    def dimension_of(rotations: float) -> float:
        return (dim * math.log(original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = dimension_of(settings.get("beta_fast") or 32), dimension_of(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a ramp of no length would divide by zero

    powers = base ** (torch.arange(0, dim, 2).to(device=device, dtype=torch.float32) / dim)
    ramp = torch.clamp((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
    kept = 1 - ramp.to(device=device, dtype=torch.float32)
    return (1.0 / (factor * powers)) * (1 - kept) + (1.0 / powers) * kept, float(scale)


def _yarn_scale(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    def grown(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if mscale and mscale_all_dim:
        return float(grown(mscale) / grown(mscale_all_dim))
    return grown(1)


def compute_longrope(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return each default frequency divided by a factor of its own, from one of two lists: short or long `seq_len`."""
    settings = rope_settings(config, layer_type)
    original = settings.get("original_max_position_embeddings") or settings.max_positions
    factor = settings.get("factor")
    if settings.factor_from_lengths or factor is None:
        factor = settings.max_positions / original
    scale = settings.get("attention_factor")
    if scale is None:
        scale = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    name = "long_factor" if seq_len and seq_len > original else "short_factor"
    factors = torch.tensor(settings.required(name), dtype=torch.float32, device=device)
    steps = torch.arange(0, settings.dim, 2, dtype=torch.int64, device=device).float() / settings.dim
    return 1.0 / (factors * settings.base**steps), float(scale)


def compute_llama3(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return the default for short wavelengths, `1 / factor` of it for long ones, and a blend between."""
    settings = rope_settings(config, layer_type)
    inv_freq = 1.0 / _powers(settings, device)
    factor, original = settings.required("factor"), settings.required("original_max_position_embeddings")
    low, high = settings.required("low_freq_factor"), settings.required("high_freq_factor")
    wavelength = 2 * math.pi / inv_freq
    stretched = torch.where(wavelength > original / low, inv_freq / factor, inv_freq)
    share = (original / wavelength - low) / (high - low)
    blended = (1 - share) * stretched / factor + share * stretched
    between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(between, blended, stretched), 1.0


def compute_proportional(
    config: Any, device: Device = None, seq_len: int | None = None, layer_type: str | None = None
) -> tuple[Tensor, float]:
    """Return frequencies for the first `partial_rotary_factor` of a whole head's pairs, and zeros for the rest."""
    settings = rope_settings(config, layer_type)
    share = settings.get("partial_rotary_factor", 1.0)
    turning = int(share * settings.head_dim // 2)
    steps = torch.arange(0, 2 * turning, 2, dtype=torch.int64).to(device=device, dtype=torch.float32)
    inv_freq = 1.0 / (settings.base ** (steps / settings.head_dim))
    still = torch.zeros(settings.head_dim // 2 - turning, dtype=torch.float32, device=device)
    return torch.cat([inv_freq, still]) / settings.get("factor", 1.0), 1.0


_FUNCTIONS: Mapping[str, RopeFunction] = {
    "default": compute_default,
    "linear": compute_linear,
    "dynamic": compute_dynamic,
    "yarn": compute_yarn,
    "longrope": compute_longrope,
    "llama3": compute_llama3,
    "proportional": compute_proportional,
}
ROPE_INIT_FUNCTIONS: Registry[RopeFunction] = Registry("rope_type", _FUNCTIONS)
