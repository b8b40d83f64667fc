"""The cross-entropy method and the target built on it, against numbers worked out by hand."""

import pytest
import torch

from caliper.agents import Noise, build_agent
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from tests.agents.conftest import ACTIONS, linear_batch, make, random_batch, random_obs
from tests.agents.test_conformance import snapshot


def two_critics(**keys):
    """Q_1 = s + a, Q_2 = -2 a, the same for the target."""
    config = {"name": "qtopt", "critic_hidden": [], "discount": 0.9, **keys}
    agent = build_agent(config, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", 0)
    with torch.no_grad():
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[1.0], [1.0]], [[0.0], [-2.0]]]))  # (e, [s, a], 1)
    return agent


def draws(*values):
    return torch.tensor(values).view(1, -1, 1)


def near(middle):
    return lambda action: -(action[..., 0] - middle).square()


def test_one_iteration_fits_the_gaussian_to_the_best():
    # clipped: 0.2, -0.5, 1, 0.6; nearest to 0.45: 0.6 and 0.2, mean 0.4, variance (0.2^2 + 0.2^2) / 2;
    # the mean, 0.05 away, is better than both
    agent = two_critics(cem_iterations=1, cem_samples=4, cem_elites=2)
    pi, found = agent.search(near(0.45), draws(0.2, -0.5, 3.0, 0.6))
    assert (pi.mean.item(), pi.log_std.exp().item()) == (pytest.approx(0.4), pytest.approx(0.2))
    assert found.item() == pytest.approx(0.4)
    # nearest to 0.55: the same two, and of them and the mean 0.6 is the best
    _, found = agent.search(near(0.55), draws(0.2, -0.5, 3.0, 0.6))
    assert found.item() == pytest.approx(0.6)
    # half of the width: 0.1, -0.25, 1, 0.3; nearest to 0.45: 0.3 and 0.1
    half = two_critics(cem_iterations=1, cem_samples=4, cem_elites=2, first_std=0.5)
    assert half.search(near(0.45), draws(0.2, -0.5, 3.0, 0.6))[0].mean.item() == pytest.approx(0.2)


def test_the_next_iteration_draws_from_the_fit():
    # 0.4 + 0.2 * (0.25, 1, -1, 0) = 0.45, 0.6, 0.2, 0.4: the best are 0.45 and 0.4, mean 0.425;
    # their spread of 0.025 is less than allowed
    agent = two_critics(cem_iterations=2, cem_samples=4, cem_elites=2)
    pi, found = agent.search(near(0.45), draws(0.2, -0.5, 3.0, 0.6, 0.25, 1.0, -1.0, 0.0))
    assert (pi.mean.item(), pi.log_std.exp().item()) == (pytest.approx(0.425), pytest.approx(0.05))
    assert found.item() == pytest.approx(0.45)


def test_the_search_finds_the_maximum_of_a_quadratic_in_each_state():
    agent, g = make("qtopt", cem_iterations=6, cem_samples=64, cem_elites=6), torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.3, -0.7, 0.1], [-0.2, 0.9, 0.0], [0.5, 0.5, 3.0]])  # one outside of the box
    pi, found = agent.search(
        lambda action: -(action - middles[:, None]).square().sum(-1),
        torch.randn(3, 6 * 64, ACTIONS, generator=g),
    )
    assert (found - middles.clamp(-1, 1)).abs().max() < 0.05
    assert (pi.mean - middles.clamp(-1, 1)).abs().max() < 0.1
    assert found[2, 2] == 1.0  # on the face, not only near it


def test_target_takes_the_minimum_where_the_first_critic_is_highest():
    # s' = 0: of 0.5 and -0.5 Q_1 prefers 0.5; there Q = (0.5, -1): y = 1 + 0.9 * -1 = 0.1
    # (the best of the minimum would be -0.5, with y = 1 + 0.9 * -0.5)
    agent = two_critics(cem_iterations=1, cem_samples=2, cem_elites=1)
    noise = Noise(eps_target=draws(0.5, -0.5))
    for d, expected in ((0.0, 0.1), (1.0, 1.0)):
        batch = linear_batch(0.0, 0.0, r=1.0, d=d)
        y, _ = agent.td_target(batch, batch.next_obs, noise)
        assert y.item() == pytest.approx(expected)


def test_loss():
    # s = 1, a = 0.5: Q = (1.5, -1); y = 0.1 as above: 1.4^2 + 1.1^2 = 3.17
    agent = two_critics(cem_iterations=1, cem_samples=2, cem_elites=1)
    info = agent.update(linear_batch(1.0, 0.5, r=1.0), Noise(eps_target=draws(0.5, -0.5)))
    assert info["critic/loss"].item() == info["critic/td_loss"].item() == pytest.approx(3.17)
    assert info["cem/std"].item() == pytest.approx(0.05)


def test_acting_climbs_the_minimum_of_the_critics():
    # min(s + a, -2 a) is highest where both are equal: a = -s / 3; at s = -3.6 beyond the box, at a = 1
    agent = two_critics(cem_iterations=4)
    for s, best in ((0.0, 0.0), (1.5, -0.5), (-3.6, 1.0)):
        obs, before = linear_batch(s, 0.0).obs, agent.generator.get_state()
        assert agent.act(obs, deterministic=True).item() == pytest.approx(best, abs=0.03)
        assert torch.equal(before, agent.generator.get_state())
        assert agent.decide(obs, deterministic=True).pi.mean.item() == pytest.approx(best, abs=0.1)


def test_exploring_samples_the_last_gaussian():
    agent = two_critics(cem_iterations=4, min_std=0.2)
    obs = linear_batch(1.5, 0.0).obs
    samples = torch.cat([agent.act(obs, deterministic=False) for _ in range(300)])
    pi = agent.decide(obs, deterministic=True).pi
    assert samples.mean().item() == pytest.approx(pi.mean.item(), abs=0.05)
    assert samples.std().item() == pytest.approx(pi.log_std.exp().item(), abs=0.05)


def test_images_are_encoded_once_however_many_actions_are_valued():
    agent, calls = make("qtopt"), []
    for name, network in {"critic": agent.critic, "target": agent.target_critic}.items():
        network.encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    agent.update(random_batch())
    assert sorted(calls) == ["critic", "target"]
    agent.act(random_obs(3), deterministic=True)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "keys",
    [
        {"n_critics": 5},
        {"layer_norm": True},
        {"encoder_per_critic": True},
        {"precision": "bfloat16"},
        {"mc_weight": 0.5},
        {"chunk": 2},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_options(keys):
    agent = make("qtopt", **keys)
    before = snapshot(agent)
    for _ in range(2):
        info = agent.update(random_batch(actions=agent.action_dim))
    assert all(torch.isfinite(v) for v in info.values())
    for deterministic in (True, False):
        assert agent.act(random_obs(3), deterministic).shape == (3, agent.action_dim)
    assert not torch.equal(before["critic.weights.0"], agent.state_dict()["critic.weights.0"])


def test_bfloat16_gives_nearly_the_same_gradients():
    full, half = (
        make("qtopt", precision=precision).update(random_batch()) for precision in ("float32", "bfloat16")
    )
    for key in ("critic/grad_norm", "critic/loss"):
        assert float(half[key]) == pytest.approx(float(full[key]), rel=0.02)


def test_there_is_no_actor_to_clone():
    with pytest.raises(CaliperError, match=r"no actor to clone; set offline\.bc_updates=0"):
        make("qtopt").bc_update(random_batch())


@pytest.mark.parametrize("keys", [{"cem_elites": 0}, {"cem_elites": 17}, {"cem_iterations": 0}])
def test_a_search_that_cannot_be_made_is_refused(keys):
    (key, value) = next(iter(keys.items()))
    with pytest.raises(CaliperError, match=f"{key}={value}.* make no sense"):
        make("qtopt", **keys)
