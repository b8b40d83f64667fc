"""A return of minus infinity is one that nobody knows (`caliper.data.relabel`): it changes nothing."""

import pytest
import torch

from caliper.agents import Noise
from tests.agents.conftest import linear_agent, linear_batch, make, random_batch
from tests.agents.test_losses import HALF, eps

UNKNOWN = -torch.inf


@pytest.mark.parametrize(("g", "wanted"), [(UNKNOWN, 1.45), (-9.0, 1.45 * 0.7 - 9.0 * 0.3)])
def test_a_target_mixes_in_only_a_known_return(g, wanted):
    # The Bellman target is 1 + 0.9 * 0.5 = 1.45, see test_losses; 30 % of it would be the return.
    agent = linear_agent(n_target_actions=2, discount=0.9, mc_weight=0.3)
    batch, noise = linear_batch(0.0, 0.0, r=1.0, g=g), Noise(eps_target=eps(HALF, -HALF))
    assert agent.td_target(agent.encode(batch, noise), noise).item() == pytest.approx(wanted)


@pytest.mark.parametrize(("g", "cloned"), [(UNKNOWN, 1.0), (-9.0, 0.0), (9.0, 1.0)])
def test_an_action_of_unknown_return_is_cloned(g, cloned):
    # Greedy action 0 against the recorded -1: squared error 1; Q(s, pi) = 1 lies between the known returns.
    agent = linear_agent(init_temperature=0.5, bc_weight=0.3, bc_better_only=True)
    x = agent.encode(linear_batch(2.0, -1.0, g=g), Noise(eps_pi=eps(HALF)))
    _, info = agent.actor_loss(x, *x.sample)
    assert info["actor/bc_loss"].item() == cloned


def test_an_update_on_unknown_returns_stays_finite():
    agent = make("calql", bc_weight=0.3, bc_better_only=True, mc_weight=0.3)
    batch = random_batch()
    batch.mc_return[::2] = UNKNOWN
    for _ in range(2):
        info = agent.update(batch)
    assert all(torch.as_tensor(v).isfinite().all() for v in info.values())
    assert all(p.isfinite().all() for p in agent.parameters())
