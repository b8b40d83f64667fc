"""The losses of FQL and Q-chunking against numbers worked out by hand; the arithmetic is in the comments.

Networks are linear in one proprioception entry s, one action and the flow's time: Q_1 = s + a, Q_2 = 2 a, the
same for the target; v(s, x, t) = s + 2 x + t; mu(s, z) = s / 2 + z.
"""

import copy
import math

import pytest
import torch

from caliper.agents import Noise, build_agent
from caliper.agents.nets import flow_loss
from caliper.types import ObsSpec
from tests.agents.conftest import linear_batch, make, random_batch, random_obs


def linear(name, **keys):
    config = {"name": name, "actor_hidden": [], "critic_hidden": [], "chunk": 1, "flow_steps": 2, **keys}
    agent = build_agent(config, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", 0)
    with torch.no_grad():
        flow = agent.flow if name == "fql" else agent.actor
        flow.layers[0].weight.copy_(torch.tensor([[1.0, 2.0, 1.0]]))  # (1, [s, x, t])
        if name == "fql":
            agent.actor.layers[0].weight.copy_(torch.tensor([[0.5, 1.0]]))  # (1, [s, z])
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[1.0], [1.0]], [[0.0], [2.0]]]))  # (e, [s, a], 1)
    return agent


def column(*values):
    return torch.tensor(values).view(1, -1, 1)


def metrics(agent, batch, noise):
    """Those of an update, which is not made."""
    return copy.deepcopy(agent).update(batch, noise)


def test_flow_matching_asks_for_the_way_from_noise_to_action():
    # x_0 = -0.6, a = 0.4, t = 0.25: x_t = 0.75 * -0.6 + 0.25 * 0.4 = -0.35; v = 1 - 0.7 + 0.25 = 0.55
    # the way is a - x_0 = 1: (0.55 - 1)^2 = 0.2025
    agent, batch = linear("qc"), linear_batch(1.0, 0.4)
    flow = agent.actor(batch.obs)
    loss = flow_loss(flow, batch.action, agent.generator, column(-0.6), column(0.25))
    assert loss.item() == pytest.approx(0.2025)
    # d/dv = 2 * -0.45, and v's slope in its bias is 1
    assert torch.autograd.grad(loss, agent.actor.layers[0].bias)[0].item() == pytest.approx(-0.9)


def test_flow_matching_is_a_mean_over_batch_and_entries():
    # v = 0 with all weights 0, starts 0: mean a^2 over 2 x 3 entries, (1 + 4 + 9 + 0 + 0 + 1) / 6
    agent = make("qc", "state", spec=ObsSpec((), 0, 5), actor_hidden=[])
    with torch.no_grad():
        agent.actor.layers[0].weight.zero_()
    action = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    flow = agent.actor(random_obs(2, ObsSpec((), 0, 5)))
    start, time = torch.zeros(2, 1, 3), torch.full((2, 1, 1), 0.5)
    assert flow_loss(flow, action, agent.generator, start, time).item() == pytest.approx(2.5)


def test_a_flow_is_followed_in_eulers_steps_and_clipped_at_its_end():
    # z = -0.2, s = 0.1, two steps of 1/2 at t = 0 and 1/2:
    # x = -0.2 + (0.1 - 0.4 + 0) / 2 = -0.35;  x = -0.35 + (0.1 - 0.7 + 0.5) / 2 = -0.4
    # z = -0.5: x = -0.5 + (0.1 - 1) / 2 = -0.95;  x = -0.95 + (0.1 - 1.9 + 0.5) / 2 = -1.6
    flow = linear("qc").actor(linear_batch(0.1, 0.0).obs)
    pushed = flow.field.push(flow.features, column(-0.2, -0.5))
    assert pushed.flatten().tolist() == pytest.approx([-0.4, -1.6])
    assert flow.sample(eps=column(-0.2, -0.5))[0].flatten().tolist() == pytest.approx([-0.4, -1.0])
    # the middle of the noise, 0: x = 0.05;  x = 0.05 + (0.1 + 0.1 + 0.5) / 2 = 0.4
    assert flow.mode().item() == pytest.approx(0.4)


def test_fql_of_one_transition():
    # s = 0.1, a = 0.4. Flow from -0.6 at t = 0.25: x_t = -0.35, v = 0.1 - 0.7 + 0.25 = -0.35, way 1:
    # L_flow = 1.35^2 = 1.8225
    # z = -0.2: flow(s, z) = -0.4, mu = 0.05 - 0.2 = -0.15: distance^2 = 0.0625
    # Q_1 = -0.05, Q_2 = -0.3, mean -0.175: L_pi = 0.175 + 10 * 0.0625 = 0.8
    # s' = 0.2, z' = -0.5: mu = 0.1 - 0.5 = -0.4: Qbar_1 = -0.2, Qbar_2 = -0.8, mean -0.5: y = 0.5 - 0.45
    # L_Q = (0.5 - 0.05)^2 + (0.8 - 0.05)^2 = 0.2025 + 0.5625
    agent, batch = linear("fql", discount=0.9), linear_batch(0.1, 0.4, r=0.5, s2=0.2)
    noise = Noise(eps_flow=column(-0.6), time=column(0.25), eps_pi=column(-0.2), eps_target=column(-0.5))
    info = metrics(agent, batch, noise)
    wanted = {
        "flow/loss": 1.8225,
        "actor/distill_loss": 0.0625,
        "actor/loss": 0.8,
        "actor/bc_loss": 0.55**2,
        "critic/q_pi": -0.175,
        "critic/target": 0.05,
        "critic/loss": 0.765,
    }
    assert {name: info[name].item() for name in wanted} == pytest.approx(wanted)
    # With Q brought to size one: mean -1, so L_pi = 1 + 0.625
    other = linear("fql", discount=0.9, normalize_q=True)
    assert metrics(other, batch, noise)["actor/loss"].item() == pytest.approx(1.625)
    # The minimum instead of the mean: y = 0.5 - 0.9 * 0.8
    other = linear("fql", discount=0.9, q_agg="min")
    assert metrics(other, batch, noise)["critic/target"].item() == pytest.approx(-0.22)
    # Terminal: y = r
    batch = linear_batch(0.1, 0.4, r=0.5, s2=0.2, d=1.0)
    assert metrics(agent, batch, noise)["critic/target"].item() == 0.5


def test_fql_is_drawn_to_the_flow_before_the_clip_and_climbs_q_after_it():
    # s = 2, z = 0.5: mu = 1.5, clipped to 1; the flow: 0.5 + (2 + 1) / 2 = 2, then 2 + 6.5 / 2, clipped to 1
    # distance 0.5, not 0; Q of the clipped action: Q_1 = 3, Q_2 = 2, mean 2.5; L_pi = -2.5 + 10 * 0.25 = 0
    # and Q passes no gradient where the action was clipped: d/dbias = 10 * 2 * 0.5
    agent, batch = linear("fql"), linear_batch(2.0, 0.0)
    pi, flow = agent.actor(batch.obs), agent.flow(batch.obs)
    features = agent.critic.encoder(batch.obs)
    loss, info = agent.actor_loss(pi, flow, features, batch.action, Noise(eps_pi=column(0.5)))
    assert (loss.item(), info["critic/q_pi"].item()) == pytest.approx((0.0, 2.5), abs=1e-6)
    gradient = torch.autograd.grad(loss, agent.actor.layers[0].bias, retain_graph=True)[0]
    assert gradient.item() == pytest.approx(10.0)
    with pytest.raises(RuntimeError, match="not have been used"):  # the flow only clones
        torch.autograd.grad(loss, agent.flow.layers[0].bias)


def test_fql_inside_the_box_climbs_the_mean_of_the_critics():
    # slopes of Q in a: 1 and 2, mean 1.5; distance mu - flow = -0.15 + 0.4 = 0.25: 10 * 2 * 0.25 - 1.5 = 3.5
    agent, batch = linear("fql"), linear_batch(0.1, 0.4)
    pi, flow = agent.actor(batch.obs), agent.flow(batch.obs)
    features = agent.critic.encoder(batch.obs)
    loss, _ = agent.actor_loss(pi, flow, features, batch.action, Noise(eps_pi=column(-0.2)))
    assert torch.autograd.grad(loss, agent.actor.layers[0].bias)[0].item() == pytest.approx(3.5)


def test_qc_of_one_transition():
    # s' = 0.1; draws -0.2 and -0.5 lead to -0.4 and -1: mean Q = ((-0.3 - 0.8) + (-0.9 - 2)) / 2 each:
    # -0.55 and -1.45, the first is chosen; gain -0.55 + 1 = 0.45
    # y = 0.5 - 0.9 * 0.55 = 0.005;  s = 1, a = 0.4: L_Q = (1.4 - 0.005)^2 + (0.8 - 0.005)^2 = 1.946 + 0.632
    agent, batch = linear("qc", discount=0.9, best_of=2), linear_batch(1.0, 0.4, r=0.5, s2=0.1)
    noise = Noise(eps_flow=column(-0.6), time=column(0.25), eps_target=column(-0.2, -0.5))
    info = metrics(agent, batch, noise)
    assert info["critic/target"].item() == pytest.approx(0.005, abs=1e-6)
    assert info["critic/gain"].item() == pytest.approx(0.45)
    assert info["critic/loss"].item() == pytest.approx(1.395**2 + 0.795**2)
    assert info["actor/loss"].item() == pytest.approx(0.2025)
    # The critics choose, their slow copies value: those turned round, the value of the same action, 0.55
    with torch.no_grad():
        agent.target_critic.weights[0].mul_(-1.0)
    assert metrics(agent, batch, noise)["critic/target"].item() == pytest.approx(0.5 + 0.9 * 0.55)
    # With the critics turned round it is the other, -1: their slow copies say 1.45
    with torch.no_grad():
        agent.critic.weights[0].mul_(-1.0)
    assert metrics(agent, batch, noise)["critic/target"].item() == pytest.approx(0.5 + 0.9 * 1.45)


def test_qc_takes_the_mean_over_the_critics_unless_told_otherwise():
    # v = 0, so draws -1 and 0 are the actions. Q_1 = a, Q_2 = -2 a: means 0.5 and 0, minima -1 and 0
    agent = linear("qc", best_of=2)
    with torch.no_grad():
        agent.actor.layers[0].weight.zero_()
        agent.critic.weights[0].copy_(torch.tensor([[[0.0], [1.0]], [[0.0], [-2.0]]]))
    batch, draws = linear_batch(0.0, 0.0), column(-1.0, 0.0)
    flow, features = agent.actor(batch.obs), agent.critic.encoder(batch.obs)
    assert agent.choose(flow, features, draws)[0].item() == -1.0
    agent.config.q_agg = "min"
    assert agent.choose(flow, features, draws)[0].item() == 0.0


def test_a_chunk_is_chosen_whole_and_its_target_discounted_over_all_its_steps():
    # Q = 2 everywhere: y = 1 + 0.9^3 * 2
    agent = make("qc", "state", spec=ObsSpec((), 0, 1), critic_hidden=[], discount=0.9, chunk=3)
    with torch.no_grad():
        agent.target_critic.weights[0].zero_()
        agent.target_critic.biases[0].fill_(2.0)
    batch = random_batch(1, ObsSpec((), 0, 1), actions=9)
    batch.reward.fill_(1.0)
    batch.terminal.zero_()
    y, _ = agent.td_target(batch, batch.next_obs, Noise())
    assert y.item() == pytest.approx(1 + 0.729 * 2)
    assert agent.act(batch.obs, deterministic=False).shape == (1, 9)


def test_qc_acts_with_the_best_of_its_draws():
    agent, obs = make("qc", best_of=8), random_obs(5)
    decision = agent.decide(obs, deterministic=True)
    g = torch.Generator().manual_seed(0)
    drawn, _ = agent.actor(obs).sample(eps=torch.randn(1, 8, 3, generator=g))
    with torch.no_grad():
        values = agent.critic(agent.critic.encoder(obs), drawn).mean(0)
        mine = agent.critic(agent.critic.encoder(obs), decision.action[:, None]).mean(0)[:, 0]
    torch.testing.assert_close(mine, values.amax(1))
    assert not math.isclose(float(values.std(1).mean()), 0.0)


def test_cloning_moves_the_flow_to_the_data_and_the_actor_to_the_flow():
    # L_flow = 1.8225 and the distance 0.0625 of `test_fql_of_one_transition`; Q has no say
    agent, batch = linear("fql"), linear_batch(0.1, 0.4)
    noise = Noise(eps_flow=column(-0.6), time=column(0.25), eps_pi=column(-0.2))
    assert agent.bc_update(batch, noise)["bc/loss"].item() == pytest.approx(1.885)
    # the flow of Q-chunking from s = 1: 0.2025
    agent, batch = linear("qc"), linear_batch(1.0, 0.4)
    assert agent.bc_update(batch, noise)["bc/loss"].item() == pytest.approx(0.2025)
