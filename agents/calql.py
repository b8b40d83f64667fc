"""Calibrated Q-learning: CQL that stops pushing a value down once it falls below the data's return."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.agents.cql import CQL


class CalQL(CQL):
    """Calibrated Q-learning (Nakamoto et al. 2023, arXiv:2303.05479).

    CQL pushes every policy action's value down. Cal-QL stops at the return of the policy that made the data:

        max(Q(s, a), V_mu(s)),  a ~ pi

    with V_mu(s) the Monte-Carlo return recorded from s. Uniform actions and the data's are not bounded.
    """

    def calibrate(self, q: Tensor, mc_return: Tensor) -> Tensor:
        """Bounds the values (e, b, k) of the policy's actions from below by the returns (b,)."""
        return torch.maximum(q, mc_return[:, None])
