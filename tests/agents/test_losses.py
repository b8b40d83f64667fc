"""Every loss against a number worked out by hand; the arithmetic stands in the comments."""

import copy
import math

import pytest
import torch

from caliper.agents import Noise
from caliper.agents.nets import Critic, TanhGaussian, bc_loss, polyak, td_loss
from caliper.encoders.base import State
from caliper.errors import CaliperError
from caliper.types import Batch, ObsSpec
from tests.agents.conftest import equal, linear_agent, linear_batch, make, random_batch, random_obs

HALF = math.atanh(0.5)  # tanh(HALF) = 0.5: standard normal noise of this value gives the action 0.5


def eps(*values):
    return torch.tensor(values).view(1, -1, 1)


def test_density_is_that_of_torch_distributions():
    mean, log_std = torch.tensor([[0.3, -1.2]]), torch.tensor([[-0.5, 0.4]])
    action, log_pi = TanhGaussian(mean, log_std).sample(eps=torch.tensor([[[0.7, -0.2], [1.5, 0.1]]]))
    tanh = torch.distributions.TanhTransform()
    expected = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), [tanh]
    )
    torch.testing.assert_close(log_pi[0], expected.log_prob(action[0]).sum(-1))


def test_target_takes_the_minimum_over_critics_before_the_maximum_over_actions():
    # actions at s' = 0: 0.5 and -0.5. Q_1 = (0.5, -0.5), Q_2 = (1, -1): min (0.5, -1), then max 0.5.
    # y = r + gamma * (1 - d) * 0.5 = 1 + 0.9 * 0.5 = 1.45
    agent = linear_agent(n_target_actions=2, discount=0.9)
    batch, noise = linear_batch(0.0, 0.0, r=1.0), Noise(eps_target=eps(HALF, -HALF))
    assert agent.td_target(agent.encode(batch, noise), noise).item() == pytest.approx(1.45)
    # With Q_2 = -2 a the orders differ: Q_1 = (0.5, -0.5), Q_2 = (-1, 1): min (-1, -0.5), then max -0.5;
    # maximum first would give min(0.5, 1) = 0.5.
    with torch.no_grad():
        agent.target_critic.weights[0][1, 1] = -2.0
    assert agent.td_target(agent.encode(batch, noise), noise).item() == pytest.approx(1 + 0.9 * -0.5)


def test_target_of_a_chunk_is_discounted_over_all_its_steps():
    # Q = 2 everywhere: y = 1 + 0.9^3 * 2
    agent = make("sac", "state", spec=ObsSpec((), 0, 1), critic_hidden=[], discount=0.9, chunk=3)
    with torch.no_grad():
        agent.target_critic.weights[0].zero_()
        agent.target_critic.biases[0].fill_(2.0)
    batch, noise = linear_batch(0.0, 0.0, r=1.0), Noise()
    assert agent.td_target(agent.encode(batch, noise), noise).item() == pytest.approx(1 + 0.729 * 2)


def test_target_stops_at_terminal_states_only():
    # d = 1: y = r
    agent = linear_agent(n_target_actions=1)
    batch, noise = linear_batch(0.0, 0.0, r=1.0, d=1.0), Noise(eps_target=eps(HALF))
    assert agent.td_target(agent.encode(batch, noise), noise).item() == 1.0


def test_entropy_backup_subtracts_the_chosen_actions_log_density():
    # u = HALF: log N = -HALF^2/2 - log(2 pi)/2 = -0.15087 - 0.91894 = -1.06981
    # log slope = log(1 - 0.25) = -0.28768, log pi = -0.78213; alpha = 0.5
    # y = 0 + 0.9 (0.5 + 0.5 * 0.78213) = 0.80196
    agent = linear_agent(n_target_actions=2, discount=0.9, backup_entropy=True, init_temperature=0.5)
    batch, noise = linear_batch(0.0, 0.0), Noise(eps_target=eps(-HALF, HALF))
    assert agent.td_target(agent.encode(batch, noise), noise).item() == pytest.approx(0.80196, abs=1e-4)


def test_td_loss_is_a_mean_over_the_batch_and_a_sum_over_critics():
    # q - y = [[-1, 0], [1, 3]]: (1 + 0) / 2 + (1 + 9) / 2 = 5.5
    loss, info = td_loss(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([2.0, 2.0]))
    assert loss.item() == 5.5
    assert float(info["critic/q_data"]) == 2.75


def test_temperature_loss_multiplies_log_alpha_itself():
    # log alpha = 0.2, mean log pi = -1.5, H = -1: -0.2 * (-1.5 - 1) = 0.5
    agent = linear_agent(init_temperature=math.exp(0.2))
    loss, _ = agent.temperature_loss(torch.tensor([[-1.0], [-2.0]]))
    assert loss.item() == pytest.approx(0.5)


def test_actor_loss():
    # s = 2, action 0.5: Q_1 = 2.5, Q_2 = 1, min 1. alpha = 0.5, log pi = -0.78213 (above)
    # 0.5 * -0.78213 - 1 = -1.39106
    agent = linear_agent(init_temperature=0.5)
    x = agent.encode(linear_batch(2.0, -1.0), Noise(eps_pi=eps(HALF)))
    loss, _ = agent.actor_loss(x, *x.sample)
    assert loss.item() == pytest.approx(-1.39106, abs=1e-4)


def test_actor_loss_with_cloning_brings_q_to_size_one():
    # as above; q / |q| = 1; greedy action tanh(0) = 0 against the recorded -1: squared error 1, weight 0.3
    # -0.39106 - 1 + 0.3 * 1 = -1.09106; with Q ten times larger the same
    agent = linear_agent(init_temperature=0.5, bc_weight=0.3)
    for scale in (1.0, 10.0):
        with torch.no_grad():
            agent.critic.weights[0].mul_(scale)
        x = agent.encode(linear_batch(2.0, -1.0), Noise(eps_pi=eps(HALF)))
        loss, info = agent.actor_loss(x, *x.sample)
        assert loss.item() == pytest.approx(-1.09106, abs=1e-4)
        assert info["actor/bc_loss"].item() == 1.0


# q of the data action 1, of a uniform action 0, of pi(s) 2, of pi(s') 3; log pi 0.5 and -0.5; return 2.5
Q = torch.tensor([[[1.0, 0.0, 2.0, 3.0]]])
LOG_PI = torch.tensor([[0.5, -0.5]])
RETURN = torch.tensor([2.5])


def lse(*columns):
    return math.log(sum(math.exp(c) for c in columns))


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        # columns 0 + log 2, 2 - 0.5, 3 + 0.5; minus the data's 1; weight 5
        ("cql", {}, 5 * (lse(math.log(2), 1.5, 3.5) - 1)),
        # max(2, 2.5) - 0.5: the bound comes before the density and leaves the uniform action alone
        ("calql", {}, 5 * (lse(math.log(2), 2.0, 3.5) - 1)),
        # plain columns and the data action's own, four of them
        ("cql", {"importance_sampling": False}, 5 * (lse(0, 1, 2, 3) - 1)),
        ("calql", {"importance_sampling": False}, 5 * (lse(0, 1, 2.5, 3) - 1)),
        # T log sum exp(c / T), T = 2
        ("calql", {"cql_temperature": 2.0}, 5 * (2 * lse(math.log(2) / 2, 1.0, 1.75) - 1)),
        # difference 2.7 clipped to [0, 1.5], and to at least 4
        ("calql", {"clip_diff_max": 1.5}, 5 * 1.5),
        ("calql", {"clip_diff_min": 4.0}, 5 * 4.0),
        # Lagrange: exp(1) * 5 * (difference - 0.8); the multiplier's own loss is not part of the value
        ("calql", {"lagrange": True, "gap": 0.8}, math.e * 5 * (lse(math.log(2), 2.0, 3.5) - 1.8)),
    ],
)
def test_conservative_loss(name, config, expected):
    agent = linear_agent(name, n_actions=1, **config)
    loss, info = agent.conservative_loss(Q, LOG_PI, RETURN)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert float(info["critic/bound_rate"]) == 0.5  # 2 < 2.5, 3 is not
    if config.get("lagrange"):
        assert info["critic/lagrange_loss"].item() == pytest.approx(-expected, rel=1e-5)


def test_log_sum_exp_runs_over_all_samples():
    # 3 k = 12 columns of value log 2: log 12 + log 2. A defect seen elsewhere reduces over 3 columns only.
    agent = linear_agent("cql", n_actions=4, conservative_weight=1.0)
    loss, _ = agent.conservative_loss(torch.zeros(1, 2, 13), torch.full((2, 8), -math.log(2)), torch.zeros(2))
    assert loss.item() == pytest.approx(math.log(24))


def test_uniform_actions_fill_the_box():
    # A defect seen elsewhere draws U(1, 1). 3000 draws: standard error of the mean 0.58 / 55 = 0.011.
    agent, seen = linear_agent("cql", n_actions=30), []
    agent.critic.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    agent.update(Batch.cat([linear_batch(0.0, 0.0)] * 100))
    draws = next(action for action in seen if action.shape[1] == 91)[:, 1:31]
    assert -1 <= float(draws.min()) < -0.99 and 0.99 < float(draws.max()) <= 1
    assert abs(float(draws.mean())) < 0.05


def test_the_bound_can_only_raise_the_gap_and_stops_the_gradient():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 16, 13, generator=generator)
    log_pi, mc_return = torch.randn(16, 8, generator=generator), torch.randn(16, generator=generator)
    cql, calql = linear_agent("cql", n_actions=4), linear_agent("calql", n_actions=4)
    lower = cql.conservative_loss(q, log_pi, mc_return)[1]["critic/gap"]
    assert float(calql.conservative_loss(q, log_pi, mc_return)[1]["critic/gap"]) > float(lower)
    q.requires_grad_()
    calql.conservative_loss(q, log_pi, torch.full((16,), 100.0))[0].backward()
    assert float(q.grad[..., 5:].abs().max()) == 0  # policy actions, all below the return
    assert float(q.grad[..., 0].max()) < 0  # the data action is pushed up all the same


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
@pytest.mark.parametrize("per_critic", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_ensemble_is_plain_perceptrons_batched_or_not(hidden, per_critic, layer_norm):
    torch.manual_seed(0)
    head = Critic(
        lambda: State(ObsSpec((), 0, 4)), 2, hidden, 3, layer_norm=layer_norm, encoder_per_critic=per_critic
    )
    features, action = torch.randn(3, 7, 4) if per_critic else torch.randn(7, 4), torch.randn(7, 5, 2)
    expected = []
    for member in range(3):
        of_member = features[member] if per_critic else features
        x = torch.cat([of_member[:, None].expand(7, 5, 4), action], -1)  # the plain way, features repeated
        for layer, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
            x = x @ weight[member] + bias[member]
            if layer < len(hidden):
                x = torch.relu(torch.nn.functional.layer_norm(x, x.shape[-1:]) if layer_norm else x)
        expected.append(x[..., 0])
    expected = torch.stack(expected)
    gradient = torch.autograd.grad(expected.square().sum(), list(head.weights))
    for values in (head(features, action), head.batched(features, action)):
        torch.testing.assert_close(values, expected)
        torch.testing.assert_close(torch.autograd.grad(values.square().sum(), list(head.weights)), gradient)


def test_bc_loss_is_a_squared_error_summed_over_the_entries():
    # (tanh(HALF) - 1)^2 + (tanh(HALF) - 0)^2 = 0.25 + 0.25
    pi = TanhGaussian(torch.tensor([[HALF, HALF]]), torch.zeros(1, 2))
    assert float(bc_loss(pi, torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.5)
    pi = TanhGaussian(torch.tensor([[HALF]]), torch.zeros(1, 1))
    assert float(bc_loss(pi, torch.tensor([[1.0]]))) == pytest.approx(0.25)


def test_polyak():
    # 0.75 * 1 + 0.25 * 3 = 1.5
    target, source = [torch.tensor([1.0])], [torch.tensor([3.0])]
    polyak(target, source, 0.25)
    assert float(target[0]) == 1.5


def test_cloning_weight_fades_after_the_switch():
    agent = linear_agent(bc_weight=0.4, bc_weight_online=0.0, bc_fade_steps=4)
    assert agent.bc_term.weight(agent.online) == 0.4
    agent.go_online()
    weights = []
    for _ in range(6):
        weights.append(float(agent.bc_term.weight(agent.online)))
        agent.update(linear_batch(0.0, 0.0))
    assert weights == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])


def test_the_actor_is_cloned_until_the_critic_has_learned():
    agent = linear_agent(actor_start=2, bc_weight=0.0, autotune_entropy=False, init_temperature=0.0)
    losses = [agent.update(linear_batch(0.0, 0.0)) for _ in range(3)]
    cloned = [bool(info["actor/loss"] == info["actor/bc_loss"]) for info in losses]
    assert cloned == [True, True, False]


@pytest.mark.parametrize("per_critic", [False, True])
def test_the_critic_can_start_from_the_cloned_encoder(per_critic):
    keys = {"critic_encoder_from_bc": True, "encoder_per_critic": per_critic, "critic_lr": 0.0, "tau": 0.0}
    agent = make("calql", **keys)
    wanted = copy.deepcopy(agent.actor.encoder.state_dict())
    agent.update(random_batch())
    for critic in (agent.critic, agent.target_critic):
        own = critic.encoder.members if per_critic else [critic.encoder]
        assert all(torch.equal(v, wanted[k]) for member in own for k, v in member.state_dict().items())


def test_conservative_weight_changes_at_the_switch():
    agent = linear_agent("cql", n_actions=1, conservative_weight=2.0, conservative_weight_online=0.5)
    offline = agent.conservative_loss(Q, LOG_PI, RETURN)[0].item()
    agent.go_online()
    assert agent.conservative_loss(Q, LOG_PI, RETURN)[0].item() == pytest.approx(offline / 4)


def test_only_actions_that_did_better_than_the_critic_expects_are_cloned():
    # q = 2 tanh(atanh(0.5)) = 1 at s = 2; the greedy action 0 is 1 away from the recorded -1
    agent = linear_agent(init_temperature=0.5, bc_weight=0.3, bc_better_only=True)
    for mc_return, expected in ((1.1, 1.0), (0.9, 0.0)):
        x = agent.encode(linear_batch(2.0, -1.0, g=mc_return), Noise(eps_pi=eps(HALF)))
        _, info = agent.actor_loss(x, *x.sample)
        assert info["actor/bc_loss"].item() == expected


def test_target_mixed_with_the_return():
    # action 0.5 at s' = 2: min(2.5, 1) = 1; bootstrapped 1 + 0.5 * 1 = 1.5; 0.75 * 1.5 + 0.25 * 5.5 = 2.5
    agent = linear_agent("sac", discount=0.5, mc_weight=0.25)
    x = agent.encode(linear_batch(0.0, 0.0, r=1.0, s2=2.0, g=5.5), Noise())
    assert agent.td_target(x, Noise(eps_target=eps(HALF))).item() == pytest.approx(2.5)


def test_the_averaged_actor_acts():
    agent = linear_agent(actor_tau=0.25, actor_lr=0.1)
    old = agent.average_actor.layers[0].weight.clone()
    agent.update(linear_batch(1.0, 0.5))
    new = agent.actor.layers[0].weight
    torch.testing.assert_close(agent.average_actor.layers[0].weight, 0.75 * old + 0.25 * new)
    obs = linear_batch(1.0, 0.0).obs
    assert torch.equal(agent.act(obs, deterministic=True), agent.average_actor(obs).mode())
    assert not torch.equal(agent.act(obs, deterministic=True), agent.actor(obs).mode())


def test_a_switchs_value_is_linear_between_its_ends():
    # Q(g) = 3 relu(g): 0 at -1 and 3 at 1, so 1.5 + 1.5 g between, with the slope 1.5 everywhere
    agent = linear_agent(critic_hidden=[1], gripper_switch=True)
    with torch.no_grad():
        for critic in (agent.critic, agent.target_critic):
            critic.weights[0].copy_(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))
            critic.weights[1].fill_(3.0)
    g = torch.tensor([[[-1.0], [-0.5], [0.0], [1.0]]], requires_grad=True)  # (b, k, a)
    for critic in (agent.critic, agent.target_critic):
        q = critic(torch.zeros(1, 1), g)
        torch.testing.assert_close(q[0, 0], torch.tensor([0.0, 0.75, 1.5, 3.0]))
        torch.testing.assert_close(torch.autograd.grad(q[1].sum(), g)[0], torch.full_like(g, 1.5))


def test_a_switch_is_an_actions_last_entry_and_the_rest_counts_as_ever():
    plain, switch = make("calql"), make("calql", gripper_switch=True)
    assert equal(plain.state_dict(), switch.state_dict())
    features, action = torch.randn(4, plain.critic.encoder.dim), 2 * torch.rand(4, 5, 3) - 1
    low, high = action.clone(), action.clone()
    low[..., -1], high[..., -1] = -1.0, 1.0
    share = (1 + action[..., -1]) / 2
    expected = (1 - share) * plain.critic(features, low) + share * plain.critic(features, high)
    torch.testing.assert_close(switch.critic(features, action), expected)
    torch.testing.assert_close(switch.critic(features, action, member=1), expected[1:])
    torch.testing.assert_close(switch.critic(features, low), plain.critic(features, low))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("name", "keys"), [("calql", {}), ("calql", {"best_of": 4}), ("iql", {}), ("qc", {})]
)
def test_what_acts_is_the_sign_of_a_switch(name, keys, deterministic):
    agent, plain = make(name, gripper_switch=True, **keys), make(name, **keys)
    obs = random_obs(64)
    action, wish = agent.act(obs, deterministic), plain.act(obs, deterministic)
    assert set(action[:, -1].tolist()) == {-1.0, 1.0}
    if name == "calql" and not keys:  # the critics have no say
        assert torch.equal(action[:, :-1], wish[:, :-1])
        assert torch.equal(action[:, -1], torch.where(wish[:, -1] < 0, -1.0, 1.0))


def test_a_switch_is_for_one_control_step():
    with pytest.raises(CaliperError, match=r"gripper_switch .*agent.chunk=1"):
        make("calql", gripper_switch=True, chunk=2)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_critic_chooses_the_best_of_several_actions(deterministic):
    # min(2 + a, 2 a) grows with a: the largest of the draws is the best, and 0, the mode, is rarely it
    agent = linear_agent(best_of=5)
    obs = linear_batch(2.0, 0.0).obs
    generator = torch.Generator().manual_seed(0) if deterministic else copy.deepcopy(agent.generator)
    before = agent.generator.get_state()
    action = agent.act(obs, deterministic)
    draws = torch.tanh(torch.randn(5, generator=generator))
    if deterministic:
        draws[0] = 0.0
    assert action.item() == pytest.approx(draws.max().item())
    assert torch.equal(before, agent.generator.get_state()) == deterministic
