"""What a critic makes of actions other than the one taken: the evidence for why a policy fails."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.agents.base import Agent, Decision
from caliper.agents.nets import Critic, Info
from caliper.types import Obs

PROBED = ("q", "q_best", "q_random", "q_random_best", "width")


@torch.no_grad()
def probe(agent: Agent, obs: Obs, decision: Decision, k: int = 64) -> Info:
    """How high and how rough the critic is around the policy, from the same k draws at every call.

    Args:
        agent: one with a critic; none of its numbers changes.
        obs: n observations.
        decision: what the agent decides there.
        k: actions drawn from the policy, and from the uniform distribution.

    Returns:
        Each (n,), values being the smallest in the ensemble: `q`, that of the decided action; `q_best`, the
        largest among the policy's actions; `q_random`, the mean of uniform ones, and `q_random_best`, their
        largest; `width`, the policy's standard deviation after the squashing, mean over the action's entries.
    """
    critic = _critic(agent)
    g = torch.Generator(agent.device).manual_seed(0)
    eps = torch.randn(1, k, agent.action_dim, generator=g, device=agent.device)
    uniform = 2.0 * torch.rand(1, k, agent.action_dim, generator=g, device=agent.device) - 1.0
    with agent.autocast:
        features = critic.encoder(obs) if decision.features is None else decision.features
        decided = critic(features, decision.action[:, None]).amin(0)  # (n, 1)
        action, _ = decision.pi.sample(eps=eps)  # (n, k, a)
        both = torch.cat([action, uniform.expand_as(action)], 1)
        q, q_uniform = critic(features, both).amin(0).split(k, 1)  # (n, k)
    return {
        "q": decided[:, 0],
        "q_best": q.amax(1),
        "q_random": q_uniform.mean(1),
        "q_random_best": q_uniform.amax(1),
        "width": action.std(1).mean(1),
    }


@torch.no_grad()
def critic_features(agent: Agent, obs: Obs) -> Tensor:
    """What the critic's encoder, or the first of them, makes of n observations, float32 (n, f)."""
    features: Tensor = _critic(agent).encoder(obs).float()
    return features if features.dim() == 2 else features[0]


def _critic(agent: Agent) -> Critic:
    if not agent.has_critic:
        raise TypeError(f"{type(agent).__name__} has no critic to probe")
    return agent.critic
