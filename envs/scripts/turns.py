"""Rotations of n things at once, as the scripts need them."""

from __future__ import annotations

import torch
from torch import Tensor


def apply(mat: Tensor, vector: Tensor) -> Tensor:
    """Vectors (n, 3) turned by rotations (n, 3, 3)."""
    return torch.einsum("nij,nj->ni", mat, vector)


def turn_between(mat: Tensor, wanted: Tensor) -> Tensor:
    """By what to turn one rotation (n, 3, 3) to come to another: sine times axis, (n, 3)."""
    turn: Tensor = 0.5 * torch.linalg.cross(mat, wanted, dim=1).sum(2)
    return turn


def limited(vector: Tensor, most: Tensor) -> Tensor:
    """Vectors (n, 3), shortened to lengths (n,) where they are longer."""
    share: Tensor = (most / vector.norm(dim=1).clamp(min=1e-9)).clamp(max=1)
    return vector * share[:, None]
