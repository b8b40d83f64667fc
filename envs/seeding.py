"""Random numbers that depend on an env's seed alone: not on how many envs there are, nor on the device.

Counter-based (SplitMix64, Steele et al. 2014), so a reset draws for all envs at once and needs no state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA, _MIX1, _MIX2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical: torch shifts the sign in


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def uniform(seed: Tensor, count: int, stream: int | Tensor = 0) -> Tensor:
    """Uniform numbers in [0, 1).

    Args:
        seed: int64 (n,), one per env.
        count: how many numbers each env gets.
        stream: numbers of different streams are independent; an int, or int64 (n,).

    Returns:
        float64 (n, count).
    """
    counter = torch.arange(1, count + 1, device=seed.device)
    bits = _mix(_mix(seed * _GAMMA + stream)[:, None] + counter * _GAMMA)  # n count
    return _shift(bits, 11).double() * 2.0**-53


def normal(seed: Tensor, count: int, stream: int | Tensor = 0) -> Tensor:
    """Standard normal numbers by Box and Muller's transform, as `uniform`."""
    u = uniform(seed, 2 * count, stream)
    radius = torch.sqrt(-2 * torch.log1p(-u[:, :count]))
    return radius * torch.cos(2 * math.pi * u[:, count:])
