"""RLPD and WSRL: subset, mean, phases and the delayed actor against numbers worked out by hand."""

import copy

import pytest
import torch

from caliper.agents import Noise, build_agent
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from tests.agents.conftest import asked, linear_batch, make, noise_for, random_batch
from tests.agents.test_conformance import equal, snapshot
from tests.agents.test_losses import HALF, eps

SLOPES = (1.0, 2.0, -2.0, 4.0)


def four_critics(name, **keys):
    """Q_e = s + w_e a with the four slopes, the same for the target; the policy is a standard normal."""
    config = {"name": name, "actor_hidden": [], "critic_hidden": [], "n_critics": 4, "discount": 0.9, **keys}
    agent = build_agent(config, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", 0)
    with torch.no_grad():
        agent.actor.layers[0].weight.zero_()
        agent.actor.log_std_offset.zero_()
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[1.0], [w]] for w in SLOPES]))
    return agent


def target(agent, *draws, subset):
    batch = linear_batch(0.0, 0.0, r=1.0)
    noise = Noise(eps_target=eps(*draws), subset=torch.tensor(subset))
    return agent.td_target(agent.encode(batch, noise), noise).item()


@pytest.mark.parametrize(("subset", "value"), [([0, 3], 0.5), ([3, 1], 1.0), ([2, 3], -1.0), ([3], 2.0)])
def test_target_takes_the_minimum_over_the_subset(subset, value):
    # action 0.5 at s' = 0: Q = (0.5, 1, -1, 2); y = 1 + 0.9 * the least of the members named
    assert target(four_critics("rlpd"), HALF, subset=subset) == pytest.approx(1 + 0.9 * value)


def test_every_subset_is_drawn_and_none_holds_a_critic_twice():
    agent = make("rlpd", n_critics=4)
    subsets = [agent.subset(None) for _ in range(200)]
    assert all(s.shape == (2,) and s.dtype == torch.int64 for s in subsets)
    assert {tuple(sorted(s.tolist())) for s in subsets} == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_a_member_outside_of_the_subset_does_not_count():
    agent, batch = make("rlpd"), random_batch()
    with torch.no_grad():
        agent.target_critic.biases[-1][2:] = torch.nan
    x = agent.encode(batch, Noise())
    values = {pair: agent.td_target(x, Noise(subset=torch.tensor(pair))) for pair in ((0, 1), (1, 2))}
    assert values[0, 1].isfinite().all()
    assert values[1, 2][batch.terminal == 0].isnan().all()


@pytest.mark.parametrize(("name", "q", "alpha"), [("rlpd", 2.625, 0.1), ("wsrl", 1.0, 1.0)])
def test_the_actor_climbs_the_mean_in_rlpd_and_the_minimum_in_wsrl(name, q, alpha):
    # s = 2, action 0.5: Q = (2.5, 3, 1, 4), mean 10.5 / 4 = 2.625, minimum 1; log pi = -0.78213 as in
    # test_losses: 0.1 * -0.78213 - 2.625 = -2.70321, and -0.78213 - 1 = -1.78213
    agent = four_critics(name)
    x = agent.encode(linear_batch(2.0, -1.0), Noise(eps_pi=eps(HALF)))
    loss, info = agent.actor_loss(x, *x.sample)
    assert info["critic/q_pi"].item() == pytest.approx(q)
    assert loss.item() == pytest.approx(alpha * -0.78213 - q, abs=1e-4)


def test_target_entropy():
    assert make("rlpd").target_entropy == -1.5  # three entries
    assert make("rlpd", target_entropy=-2.0).target_entropy == -2.0
    assert make("wsrl").target_entropy == -3.0


@pytest.mark.parametrize("m", [0, 5])
def test_a_subset_that_cannot_be_drawn_is_refused(m):
    with pytest.raises(CaliperError, match=rf"n_subset={m} .*n_critics=4"):
        make("rlpd", n_subset=m)


def slow_parts(agent):
    """Weights and moments of what only some updates train."""
    moments = [
        v.clone()
        for name in ("actor", "temperature")
        for state in agent.optimizers[name].state.values()
        for v in state.values()
    ]
    return {k: v for k, v in snapshot(agent).items() if k.startswith(("actor.", "log_alpha"))}, moments


def trains(agent, seed):
    """Whether an update trained the actor and the temperature; asserts that it left them alone if not."""
    (weights, moments), critic = slow_parts(agent), agent.critic.weights[0].clone()
    info = agent.update(random_batch(seed=seed))
    after, moments_after = slow_parts(agent)
    assert not torch.equal(critic, agent.critic.weights[0])
    trained = not equal(weights, after)
    names = {"actor/loss", "actor/grad_norm", "temperature/loss", "temperature/grad_norm"}
    assert (names & info.keys()) == (names if trained else set())
    if trained:
        assert not any(torch.equal(weights[key], after[key]) for key in weights)
    else:
        assert len(moments) == len(moments_after)
        assert all(torch.equal(a, b) for a, b in zip(moments, moments_after, strict=True))
    return trained


def test_the_actor_and_the_temperature_step_at_every_third_update_only():
    agent = make("rlpd", actor_every=3)
    assert [trains(agent, i) for i in range(7)] == [False, False, True, False, False, True, False]


def test_wsrl_delays_its_actor_after_the_switch_only():
    agent = make("wsrl", actor_every=2)
    assert [trains(agent, i) for i in range(3)] == [True, True, True]
    agent.go_online()
    assert [trains(agent, i) for i in range(4)] == [True, False, True, False]  # updates 4 to 7


def test_wsrl_before_the_switch_is_calql_bit_for_bit():
    keys = {"n_critics": 2, "layer_norm": False}
    wsrl, calql = make("wsrl", **keys), make("calql", **keys)
    for i in range(3):
        batch = random_batch(seed=i)
        noise = noise_for(wsrl, batch)  # both of two critics are asked, in whatever order
        assert equal(wsrl.update(batch, noise), calql.update(batch, noise))
    assert equal(wsrl.state_dict(), calql.state_dict())


def test_wsrl_after_the_switch_is_sac_with_a_single_action():
    # actions 0.5 and -0.5 at s' = 0; Q_1 = (0.5, -0.5), Q_3 = (-1, 1): min (-1, -0.5), then max -0.5
    agent = four_critics("wsrl", n_target_actions=2)
    assert target(agent, HALF, -HALF, subset=[0, 2]) == pytest.approx(1 + 0.9 * -0.5)
    batch = linear_batch(0.0, 0.0)
    assert "critic/gap" in agent.update(batch)
    assert asked(agent, batch) == ([1 + 3 * agent.config.n_actions, 1], [2])

    agent = four_critics("wsrl", n_target_actions=2, actor_every=1)
    agent.go_online()
    assert asked(copy.deepcopy(agent), batch) == ([1, 1], [1])  # one action at s', no conservative ones at s
    # s = 0, a = 1: Q = (1, 2, -2, 4); action 0.5 at s' = 0, subset (0, 2): y = 1 + 0.9 * -1 = 0.1
    # (0.9^2 + 1.9^2 + 2.1^2 + 3.9^2) = 0.81 + 3.61 + 4.41 + 15.21 = 24.04
    noise = Noise(eps_target=eps(HALF), subset=torch.tensor([0, 2]))
    info = agent.update(linear_batch(0.0, 1.0, r=1.0), noise)
    assert "critic/gap" not in info
    assert info["critic/loss"].item() == info["critic/td_loss"].item() == pytest.approx(24.04, abs=1e-4)
