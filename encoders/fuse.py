"""The learned projection that brings images and proprioception to the same footing before they join."""

from __future__ import annotations

from torch import Tensor, nn


class Projection(nn.Module):
    """Linear, LayerNorm, tanh: a bounded vector of length `dim`, as in DrQ-v2 and D5RL's pixel agents."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, dim), nn.LayerNorm(dim), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Maps (b, inputs) to (b, dim), every entry in (-1, 1)."""
        out: Tensor = self.net(x)
        return out
