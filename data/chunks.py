"""Transitions of several control steps, for agents that choose a chunk of actions at once."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.errors import CaliperError


def chunked(actions: Tensor, rewards: Tensor, terminated: bool, h: int, gamma: float) -> dict[str, Tensor]:
    """One episode as transitions of h control steps, as in Q-chunking (Li et al. 2025, arXiv:2507.07969).

    Row i is the chunk that begins at step i; with h = 1 that is the usual transition. A chunk that would go
    on after success repeats the last action: nobody executes it. Chunks that the time limit cuts are left
    out, because the bootstrapped value of one is that of h whole steps.

    Args:
        actions: (t, a).
        rewards: (t,), after scale and bias.
        terminated: whether the last state is terminal.
        h: control steps of a chunk.
        gamma: discount per control step.

    Returns:
        For m chunks, m = t after success, else t - h + 1: `action` (m, h a), `reward` (m,) discounted and
        summed, `terminal` (m,), and `span` int64 (m,), the control steps from a chunk's first frame to its
        next.

    Raises:
        CaliperError: the episode holds no whole chunk.
    """
    t = len(actions)
    m = t if terminated else t - h + 1
    if m < 1:
        raise CaliperError(
            f"an episode cut off after {t} steps holds no chunk of {h} actions; lower agent.chunk"
        )
    step = torch.arange(h, device=actions.device)
    at = torch.arange(m, device=actions.device)[:, None] + step  # (m, h)
    inside = at < t
    at = at.clamp(max=t - 1)
    span = inside.sum(1)
    return {
        "action": actions[at].flatten(1),
        "reward": (rewards[at] * inside * gamma**step).sum(1),
        "terminal": ((at[:, -1] == t - 1) & terminated).float(),
        "span": span,
    }
