"""The losses of IQL, AWAC and TD3+BC against numbers worked out by hand; the arithmetic is in the comments.

At weights of zero the policy's mean is 0; Q_1 = s + a, Q_2 = 2 a, the same for the target; V = 3 s.
"""

import copy
import math

import pytest
import torch

from caliper.agents import Noise, build_agent
from caliper.agents.nets import Gaussian
from caliper.types import Batch, ObsSpec
from tests.agents.conftest import linear_batch, make, random_batch, random_obs, snapshot

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)  # -log N(0; 0, 1) = 0.918939


def linear(name, **keys):
    """An agent whose networks are linear in one proprioception entry and one action."""
    config = {"name": name, "actor_hidden": [], "critic_hidden": [], **keys}
    agent = build_agent(config, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", 0)
    with torch.no_grad():
        for actor in (agent.actor, getattr(agent, "target_actor", agent.actor)):
            actor.layers[0].weight.zero_()
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[1.0], [1.0]], [[0.0], [2.0]]]))  # (e, [s, a], 1)
        if name == "iql":
            agent.value.layers[0].weight.fill_(3.0)
    return agent


def metrics(agent, batch):
    """Those of an update, which is not made."""
    return copy.deepcopy(agent).update(batch)


def eps(x):
    return torch.full((1, 1, 1), x)


def test_the_expectile_weighs_what_v_undervalues_more():
    # u = q - v = (2, -1): 0.7 * 4 = 2.8 and 0.3 * 1 = 0.3, mean 1.55; dL/dv = -2 |x - 1(u<0)| u / 2
    agent = linear("iql", expectile=0.7)
    v = torch.tensor([1.0, 3.0], requires_grad=True)
    loss, info = agent.value_loss(v, torch.tensor([3.0, 2.0]))
    assert loss.item() == pytest.approx(1.55)
    assert torch.autograd.grad(loss, v)[0].tolist() == pytest.approx([-1.4, 0.3])
    assert info["value/v"].item() == 2.0
    # At one half it is half the squared error: (4 + 1) / 2 / 2 = 1.25
    assert linear("iql", expectile=0.5).value_loss(v, torch.tensor([3.0, 2.0]))[0].item() == 1.25


@pytest.mark.parametrize("name", ["iql", "awac"])
def test_weights_grow_exponentially_with_the_advantage_up_to_a_bound(name):
    # 2 A = 1 and 20: e = 2.71828 and min(e^20, 100) = 100. Mean 0 and sigma 1; actions 1 and 0:
    # -log N = 0.5 + 0.91894 and 0.91894. (2.71828 * 1.41894 + 100 * 0.91894) / 2 = 47.8755
    agent = linear(name, **({"beta": 2.0} if name == "iql" else {"temperature": 0.5}))
    pi = Gaussian(torch.zeros(2, 1, requires_grad=True), torch.zeros(2, 1))
    loss, info = agent.actor_loss(pi, torch.tensor([[1.0], [0.0]]), torch.tensor([0.5, 10.0]))
    assert loss.item() == pytest.approx((math.e * (0.5 + HALF_LOG_2PI) + 100 * HALF_LOG_2PI) / 2)
    assert info["actor/weight"].item() == pytest.approx((math.e + 100) / 2)
    assert info["actor/bc_loss"].item() == 0.5
    # d(-w log N)/d mean = -w (a - mean): towards the action, -2.71828 / 2 and 0
    assert torch.autograd.grad(loss, pi.mean)[0].flatten().tolist() == pytest.approx([-math.e / 2, 0.0])


def test_an_endless_weight_is_the_bound():
    loss, _ = linear("iql").actor_loss(
        Gaussian(torch.zeros(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1), torch.tensor([1e4])
    )
    assert loss.item() == pytest.approx(100 * HALF_LOG_2PI)


def test_iql_of_one_transition():
    # s = 1, a = 0.4, s' = 2. Targets at (s, a): Q_1 = 1.4, Q_2 = 0.8, min 0.8. V(s) = 3: u = -2.2.
    # L_V = 0.3 * 4.84 = 1.452
    # y = 0.5 + 0.9 * V(s') = 0.5 + 0.9 * 6 = 5.9;  L_Q = (1.4 - 5.9)^2 + (0.8 - 5.9)^2 = 20.25 + 26.01
    # w = exp(0.5 * -2.2) = 0.33287;  L_pi = 0.33287 (0.4^2 / 2 + 0.91894) = 0.33252
    agent = linear("iql", discount=0.9, beta=0.5)
    info = metrics(agent, linear_batch(1.0, 0.4, r=0.5, s2=2.0))
    assert info["value/loss"].item() == pytest.approx(1.452)
    assert info["critic/target"].item() == pytest.approx(5.9)
    assert info["critic/loss"].item() == pytest.approx(46.26)
    assert info["actor/loss"].item() == pytest.approx(math.exp(-1.1) * (0.08 + HALF_LOG_2PI))
    # Terminal: y = r.
    assert metrics(agent, linear_batch(1.0, 0.4, r=0.5, s2=2.0, d=1.0))["critic/target"] == 0.5


def test_v_is_drawn_to_the_slow_critics_and_q_to_v_alone():
    # The advantage and L_V see the targets only: Q at ten times its size changes neither.
    agent, batch = linear("iql"), linear_batch(1.0, 0.4)
    before = metrics(agent, batch)
    with torch.no_grad():
        agent.critic.weights[0].mul_(10.0)
    after = metrics(agent, batch)
    for key in ("value/loss", "actor/loss", "critic/target"):
        assert torch.equal(before[key], after[key]), key
    with torch.no_grad():
        agent.target_critic.weights[0].mul_(10.0)
    assert metrics(agent, batch)["value/loss"] != before["value/loss"]


def test_v_starts_from_the_cloned_encoder_too():
    agent = make("iql", critic_encoder_from_bc=True, value_lr=0.0)
    wanted = {key: value.clone() for key, value in agent.actor.encoder.state_dict().items()}
    agent.update(random_batch())
    assert all(torch.equal(value, wanted[key]) for key, value in agent.value.encoder.state_dict().items())


def test_awac_of_one_transition():
    # s = 1, a = 0.4: Q = (1.4, 0.8), min 0.8; a~ = 0 + 1 * 0.3: Q = (1.3, 0.6), min 0.6; A = 0.2
    # w = e^(0.2 / 0.5) = e^0.4;  L_pi = e^0.4 (0.08 + 0.91894)
    # s' = 0.2, a' = -0.1: Qbar = (0.1, -0.2), min -0.2: y = 0.5 - 0.18 = 0.32
    # L_Q = (1.4 - 0.32)^2 + (0.8 - 0.32)^2 = 1.1664 + 0.2304
    agent = linear("awac", discount=0.9, temperature=0.5)
    noise = Noise(eps_pi=eps(0.3), eps_target=eps(-0.1))
    info = agent.update(linear_batch(1.0, 0.4, r=0.5, s2=0.2), noise)
    assert info["actor/advantage"].item() == pytest.approx(0.2)
    assert info["critic/q_pi"].item() == pytest.approx(0.6)
    assert info["actor/loss"].item() == pytest.approx(math.exp(0.4) * (0.08 + HALF_LOG_2PI))
    assert info["critic/target"].item() == pytest.approx(0.32)
    assert info["critic/loss"].item() == pytest.approx(1.3968)


@pytest.mark.parametrize(
    ("mean", "noise", "action"),
    [
        (0.1, 1.5, 0.4),  # 0.1 + 0.2 * 1.5
        (0.1, -9.0, -0.4),  # the noise, -1.8, is bounded at -0.5
        (0.8, 9.0, 1.0),  # the action, 0.8 + 0.5, is bounded at 1
    ],
)
def test_td3_target_noise_is_bounded_and_so_is_the_action(mean, noise, action):
    # y = 1 + 0.9 min(s' + a', 2 a') with s' = 0.5: min(0.9, 0.8), min(0.1, -0.8), min(1.5, 2)
    agent = linear("td3bc", discount=0.9)
    with torch.no_grad():
        agent.target_actor.layers[0].bias.fill_(math.atanh(mean))
        agent.actor.layers[0].bias.fill_(-3.0)  # the target asks the slow copy
    batch = linear_batch(0.0, 0.0, r=1.0, s2=0.5)
    y = agent.td_target(batch, batch.next_obs, Noise(eps_target=eps(noise)))
    assert y.item() == pytest.approx(1 + 0.9 * min(0.5 + action, 2 * action))


def test_td3_brings_the_first_critic_to_size_alpha():
    # s = (2, 1, -1), pi = 0.5: Q_1 = s + a = (2.5, 1.5, -0.5): mean 3.5 / 3, mean size 1.5, lambda 2.5 / 1.5
    # |pi - a|^2 with a = (1, 0.5, 0): 0.25, 0, 0.25. L = -2.5 / 1.5 * 3.5 / 3 + 0.5 / 3 = -1.77778
    agent = linear("td3bc")
    with torch.no_grad():
        agent.actor.layers[0].bias.fill_(math.atanh(0.5))
    batch = Batch.cat([linear_batch(s, a) for s, a in ((2.0, 1.0), (1.0, 0.5), (-1.0, 0.0))])
    losses = []
    for scale in (1.0, 10.0):  # of no consequence; nor has the second critic any
        with torch.no_grad():
            agent.critic.weights[0][0].mul_(scale)
            agent.critic.weights[0][1].mul_(-7.0)
        loss, info = agent.actor_loss(agent.actor(batch.obs), agent.critic.encoder(batch.obs), batch.action)
        losses.append(loss.item())
        # lambda passes no gradient, the mean of pi - a is 0, the tanh's slope 1 - 0.25: -lambda * 0.75
        gradient = torch.autograd.grad(loss, agent.actor.layers[0].bias)[0].item()
        assert gradient == pytest.approx(-2.5 / 1.5 * 0.75)
    assert losses == pytest.approx([-1.777778] * 2)
    assert info["actor/weight"].item() == pytest.approx(0.25 / 1.5)
    assert info["actor/bc_loss"].item() == pytest.approx(0.5 / 3)


def test_the_cloning_term_is_a_mean_over_the_actions_entries():
    # three entries, each 1 away: the sum 3 is logged, its mean 1 stands in the loss; Q = 0 but for a constant
    agent = make("td3bc", "state", spec=ObsSpec((), 0, 5), critic_hidden=[], actor_hidden=[])
    with torch.no_grad():
        agent.actor.layers[0].weight.zero_()
        agent.critic.weights[0].zero_()
        agent.critic.biases[0].fill_(-2.0)
    batch = random_batch(spec=ObsSpec((), 0, 5))
    batch.action.fill_(1.0)
    loss, info = agent.actor_loss(agent.actor(batch.obs), agent.critic.encoder(batch.obs), batch.action)
    assert info["actor/bc_loss"].item() == pytest.approx(3.0)
    assert loss.item() == pytest.approx(2.5 + 1.0)  # -alpha * (-2 / 2) + 1


def test_td3_moves_policy_and_all_slow_copies_at_every_second_update():
    agent = make("td3bc")
    names = {"actor", "target_actor", "critic", "target_critic"}
    moved = []
    for i in range(4):
        old = snapshot(agent)
        agent.update(random_batch(seed=i))
        new = agent.state_dict()
        moved.append({key.split(".")[0] for key in old if not torch.equal(old[key], new[key])})
        if i % 2:  # 0.995 of the old and 0.005 of the new
            for key in (key for key in old if key.startswith("target_")):
                source = new[key.removeprefix("target_")]
                torch.testing.assert_close(new[key], 0.995 * old[key] + 0.005 * source)
    assert moved == [{"critic"}, names, {"critic"}, names]


def test_the_slow_policy_starts_from_the_cloned_one():
    agent = make("td3bc", tau=0.0)
    for i in range(3):
        agent.bc_update(random_batch(seed=i))
    wanted = agent.actor(random_obs(3)).mode()
    agent.update(random_batch())
    assert torch.equal(agent.target_actor(random_obs(3)).mode(), wanted)


def test_td3_explores_with_noise_of_the_given_size():
    agent = make("td3bc", exploration_noise=0.25)
    pi = agent.decide(random_obs(2), deterministic=True).pi
    draws, _ = pi.sample(eps=torch.ones(1, 1, 3))
    torch.testing.assert_close(draws[:, 0], pi.mode() + 0.25)
    assert not agent.actor.log_std.requires_grad
