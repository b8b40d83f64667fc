"""The part of an agent that acts, and the weights it acts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from caliper.agents import Agent
from caliper.errors import CaliperError
from caliper.policies.policy import dtype_name
from caliper.types import Obs


class Greedy(nn.Module):
    """The part of an agent that acts greedily, as a network of tensors."""

    def __init__(self, agent: Agent, planes: Sequence[str] = ("pixels",)) -> None:
        super().__init__()
        self.agent, self.names = agent, (*planes, "proprio")

    def forward(self, *seen: Tensor) -> Tensor:
        """The planes of an observation (n, v, k c, h, w) in order, and proprio float32 (n, k p).

        Returns the chunk of actions (n, chunk a).
        """
        obs = Obs.of(dict(zip(self.names, seen, strict=True)))
        return self.agent.act(obs, deterministic=True)


def keep_acting(agent: Agent) -> None:
    """Drops the networks that a greedy agent doesn't ask, and the optimisers."""
    acting = agent.acting()
    own = [*agent.named_children(), *agent.named_parameters(recurse=False)]
    for name in [name for name, _ in own if name not in acting]:
        delattr(agent, name)
    agent.optimizers.clear()


def load_weights(agent: Agent, weights: Mapping[str, Tensor], name: str) -> None:
    """Loads weights that fit in every name and shape.

    Raises:
        CaliperError: some don't; names the first three. Or one is of another type, or not finite.
    """
    own = agent.state_dict()
    wrong = []
    for key in sorted(own.keys() | weights.keys()):
        there, here = (tuple(d[key].shape) if key in d else None for d in (weights, own))
        if there != here:
            wrong.append(f"{key} is {there or 'missing'} there and {here or 'missing'} here")
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CaliperError(
            f"{name} is of another network than the one that is described: {'; '.join(wrong[:3])}{more}"
        )
    for key, weight in weights.items():
        if weight.dtype != own[key].dtype:
            raise CaliperError(
                f"{name} has {key} in {dtype_name(weight)}, and here it is {dtype_name(own[key])}"
            )
        if not torch.isfinite(weight).all():
            raise CaliperError(f"{name} holds NaN or infinity in {key}")
    agent.load_state_dict(dict(weights))
