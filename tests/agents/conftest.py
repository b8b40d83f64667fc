"""Small agents and batches for the agents' tests."""

import dataclasses

import torch

from caliper.agents import AGENTS, Noise, build_agent
from caliper.types import Batch, Obs, ObsSpec

PIXELS = ObsSpec(("front", "wrist"), 16, 5)
ACTIONS = 3
TINY = {"actor_hidden": [16], "critic_hidden": [16]}
SAMPLES = {"n_actions": 3, "n_target_actions": 2}
CONFIGS = {
    "bc": {"name": "bc", "actor_hidden": [16]},
    "sac": {"name": "sac", **TINY},
    "cql": {"name": "cql", **TINY, **SAMPLES},
    "calql": {"name": "calql", **TINY, **SAMPLES},
    "iql": {"name": "iql", **TINY},
    "awac": {"name": "awac", **TINY},
    "td3bc": {"name": "td3bc", **TINY},
    "rlpd": {"name": "rlpd", **TINY, "n_critics": 4},
    "wsrl": {"name": "wsrl", **TINY, **SAMPLES, "n_critics": 4},
    "qtopt": {"name": "qtopt", "critic_hidden": [16], "cem_samples": 16, "cem_elites": 4},
    "fql": {"name": "fql", **TINY, "flow_steps": 3},
    "qc": {"name": "qc", **TINY, "flow_steps": 3, "best_of": 4, "chunk": 1},
}


def make(name="calql", encoder="conv_tiny", seed=0, spec=PIXELS, **overrides):
    return build_agent(CONFIGS[name] | overrides, {"name": encoder}, spec, ACTIONS, "cpu", seed)


def random_obs(n, spec=PIXELS, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (n, len(spec.cameras), 3, spec.size, spec.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
    return Obs(pixels, torch.randn(n, spec.proprio, generator=g))


def random_batch(b=4, spec=PIXELS, seed=0, actions=ACTIONS):
    g = torch.Generator().manual_seed(seed + 100)
    return Batch(
        obs=random_obs(b, spec, seed),
        action=2 * torch.rand(b, actions, generator=g) - 1,
        reward=torch.randn(b, generator=g),
        next_obs=random_obs(b, spec, seed + 1),
        terminal=(torch.rand(b, generator=g) < 0.3).float(),
        mc_return=torch.randn(b, generator=g),
    )


def keys_of(name):
    """The keys that an agent's config has."""
    return {field.name for field in dataclasses.fields(AGENTS[name][1])}


def update_all(agent, batch=None):
    """Updates until each of the agent's networks has moved; the last one's metrics."""
    batch = random_batch() if batch is None else batch
    return [agent.update(batch) for _ in range(getattr(agent.config, "actor_every", 1))][-1]


def snapshot(agent):
    return {name: value.clone() for name, value in agent.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def linear_agent(name="calql", **overrides):
    """An agent whose policy and critics are linear in one proprioception entry and one action, by hand.

    Q_1 = s + a, Q_2 = 2 a, the same for the target; the policy is a standard normal before tanh.
    """
    config = {"name": name, "actor_hidden": [], "critic_hidden": [], **overrides}
    agent = build_agent(config, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", 0)
    with torch.no_grad():
        agent.actor.layers[0].weight.zero_()
        agent.actor.log_std_offset.zero_()
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[1.0], [1.0]], [[0.0], [2.0]]]))  # (e, [s, a], 1)
    return agent


def linear_batch(s, a, r=0.0, s2=0.0, d=0.0, g=0.0):
    """One transition."""

    def obs(x):
        return Obs(torch.zeros(1, 0, 3, 0, 0, dtype=torch.uint8), torch.tensor([[x]]))

    return Batch(
        obs(s), torch.tensor([[a]]), torch.tensor([r]), obs(s2), torch.tensor([d]), torch.tensor([g])
    )


def noise_for(agent, batch, seed=0):
    """All that an update of the agent would draw, but drawn here; both critics of two, in that order."""
    g = torch.Generator().manual_seed(seed)
    (b, a), pad = batch.action.shape, agent.config.shift_pad
    k, n = getattr(agent, "n_target_actions", 1), getattr(agent.config, "n_actions", 1)
    return Noise(
        eps_pi=torch.randn(b, 1, a, generator=g),
        eps_target=torch.randn(b, getattr(agent, "draws", k), a, generator=g),
        eps_cur=torch.randn(b, n, a, generator=g),
        eps_next=torch.randn(b, n, a, generator=g),
        rand=2 * torch.rand(b, n, a, generator=g) - 1,
        subset=torch.arange(2),
        eps_flow=torch.randn(b, 1, a, generator=g),
        time=torch.rand(b, 1, 1, generator=g),
        shift=torch.randint(-pad, pad + 1, (b, 2), generator=g),
        shift_next=torch.randint(-pad, pad + 1, (b, 2), generator=g),
    )


def asked(agent, batch):
    """How many actions per state an update asks the critics and the target critics to value, call by call."""
    counts = {"critic": [], "target_critic": []}
    hooks = [
        getattr(agent, name).register_forward_hook(
            lambda _, args, __, seen=seen: seen.append(args[1].shape[1])
        )
        for name, seen in counts.items()
    ]
    agent.update(batch)
    for hook in hooks:
        hook.remove()
    return counts["critic"], counts["target_critic"]
