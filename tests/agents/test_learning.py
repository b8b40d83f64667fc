"""Cal-QL learns a small control problem whose optimum is known, offline and online, and its values are right.

A point in a square has to reach a disc in its middle: +10 on arrival, -1 on every step before, discount 0.9,
at most 15 steps. Two of the four entries of an action do nothing. The recorded data is of mixed quality.

The bounds below are wide of what seeds 0, 1 and 2 give and narrow enough that no broken loss meets them:
`BROKEN` lists breakages with the check that each one fails, and the slow test applies them one by one.
"""

import pytest
import torch

from caliper.agents import build_agent
from caliper.agents.calql import CalQL
from caliper.agents.cql import CQL
from caliper.agents.sac import SAC
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.returns import RewardConfig
from caliper.types import Obs, ObsSpec, Step

SPEC, ACTIONS = ObsSpec((), 0, 2), 4
STRIDE, DISC, HORIZON, NUM_ENVS = 0.2, 0.3, 15, 20
REWARD = RewardConfig(scale=11.0, bias=-1.0, gamma=0.9)
AGENT = {
    "name": "calql",
    "discount": REWARD.gamma,
    "actor_hidden": [64, 64],
    "critic_hidden": [64, 64],
    "n_critics": 6,
    "n_actions": 4,
    "n_target_actions": 4,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "tau": 0.02,
    "autotune_entropy": False,
    "init_temperature": 0.05,
}


def observe(at):
    return Obs(torch.zeros(len(at), 0, 3, 0, 0, dtype=torch.uint8), at)


class Square:
    """n points `at` (n, 2) in [-1, 1]^2, which start on its border."""

    def __init__(self, n, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.at, self.clock = self.starts(n), torch.zeros(n)

    def starts(self, n):
        point = 2 * torch.rand(n, 2, generator=self.generator) - 1
        return point / point.abs().amax(1, keepdim=True)

    def step(self, action):
        moved = (self.at + STRIDE * action[:, :2]).clamp(-1, 1)
        self.clock = self.clock + 1
        won = moved.norm(dim=1) < DISC
        late = (self.clock >= HORIZON) & ~won
        self.at = torch.where((won | late)[:, None], self.starts(len(moved)), moved)
        self.clock = torch.where(won | late, 0, self.clock)
        return Step(observe(self.at), won.float(), won, late, observe(moved), won, torch.zeros_like(won))


def collect(act, steps, seed, buffer):
    """Adds what `act` does in so many steps, whole episodes only."""
    env, open_episodes = Square(NUM_ENVS, seed), OpenEpisodes(NUM_ENVS, HORIZON, SPEC, ACTIONS)
    for _ in range(steps):
        obs = observe(env.at)
        action = act(obs)
        open_episodes.push(obs, action, env.step(action), buffer)


def recorded(seed):
    """Data of scripts that head for the middle, from one env to the next ever less accurately."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.linspace(0.2, 2.0, NUM_ENVS)[:, None]

    def act(obs):
        move = -obs.proprio / obs.proprio.abs().amax(1, keepdim=True)
        move = move + noise * torch.randn(NUM_ENVS, 2, generator=g)
        idle = torch.randn(NUM_ENVS, ACTIONS - 2, generator=g)
        return torch.cat([move, idle], 1).clamp(-0.99, 0.99)

    buffer = ReplayBuffer(20_000, SPEC, ACTIONS, REWARD)
    collect(act, 60, seed, buffer)
    return buffer


def make(seed, **changes):
    return build_agent(AGENT | changes, {"name": "state"}, SPEC, ACTIONS, "cpu", seed)


def judge(agent):
    """Success of the greedy policy, the return it gets and the one that the critics promise."""
    n = 200
    env = Square(n, seed=999)
    obs = observe(env.at)
    promised = agent.q_values(obs, agent.act(obs, deterministic=True)).mean().item()
    playing, won, returns = torch.ones(n), torch.zeros(n), torch.zeros(n)
    for t in range(HORIZON):
        step = env.step(agent.act(obs, deterministic=True))
        returns += playing * REWARD.gamma**t * REWARD.apply(step.reward)
        won += playing * step.success
        playing *= ~(step.terminated | step.truncated)
        obs = step.obs
    returns += (
        (1 - won) * REWARD.gamma**HORIZON * REWARD.bias / (1 - REWARD.gamma)
    )  # it would go on like that
    return won.mean().item(), returns.mean().item(), promised


def check_control(seed):
    """Offline training finds the shortest way and knows its length; online training keeps both."""
    agent = make(seed, conservative_weight=0.1, n_target_actions=10, critic_lr=3e-3, tau=0.1)
    offline, online = recorded(seed), ReplayBuffer(20_000, SPEC, ACTIONS, REWARD)
    sampler, g = MixedSampler(offline, online, 0.5), torch.Generator().manual_seed(seed)
    best = 10 * 0.9**3 - 1 - 0.9 - 0.9**2  # four steps from anywhere on the border

    def check(phase):
        success, value, promised = judge(agent)
        assert success > 0.95, f"success after the {phase} phase"
        assert value > best - 0.2, f"return after the {phase} phase"
        assert abs(promised - value) < 0.3, f"Q against the return after the {phase} phase"

    for _ in range(500):
        agent.update(sampler.sample(128, g))
    check("offline")
    agent.go_online()
    for i in range(250):
        if i % 50 == 0:
            collect(lambda obs: agent.act(obs, deterministic=False), 30, seed + 1 + i, online)
        agent.update(sampler.sample(128, g))
    check("online")


def check_bound(seed):
    """However hard the conservative term pushes, a policy unlike the data isn't valued far below the data."""
    agent = make(seed, conservative_weight=5.0, importance_sampling=False, actor_lr=0.0)
    with torch.no_grad():  # a narrow policy in a corner of the actions, for good
        agent.actor.log_std_offset.fill_(-3.0)
        agent.actor.layers[-1].bias[:ACTIONS] = 1.5
    buffer, g = recorded(seed), torch.Generator().manual_seed(seed)
    for _ in range(300):
        agent.update(buffer.sample(128, g))
    batch = buffer.sample(2000, g)
    excess = agent.q_values(batch.obs, agent.act(batch.obs, deterministic=False)) - batch.mc_return
    assert -8 < excess.mean() < 0, "Q of the policy against the data's return"


def check_pressure(seed):
    """With the published weight, random actions end up valued below the data: nothing bounds them."""
    agent = make(seed, conservative_weight=5.0)
    buffer, g = recorded(seed), torch.Generator().manual_seed(seed)
    for _ in range(300):
        agent.update(buffer.sample(128, g))
    batch = buffer.sample(2000, g)
    random = 2 * torch.rand(2000, ACTIONS, generator=g) - 1
    assert (agent.q_values(batch.obs, random) - batch.mc_return).mean() < 0, "Q of random actions"
    assert (agent.q_values(batch.obs, batch.action) - batch.mc_return).mean() > 0, "Q of the data's actions"


@pytest.mark.parametrize("check", [check_control, check_bound, check_pressure])
def test_calql_learns(check):
    check(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_control, check_bound, check_pressure])
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_do_too(check, seed):
    check(seed)


def broken_target(pick="amin", terminal=1.0, discount=REWARD.gamma, stay=False):
    @torch.no_grad()
    def td_target(self, x, noise):
        pi, features = x.pi_next, x.target_features
        if stay:  # values s where it should value s'
            pi, features = x.sample[0], self.target_critic.encoder(x.batch.obs)
        action, _ = pi.sample(self.config.n_target_actions, self.generator, noise.eps_target)
        value = getattr(self.target_critic(features, action), pick)(0).amax(-1)
        return x.batch.reward + discount * (1 - terminal * x.batch.terminal) * value

    return {(SAC, "td_target"): td_target}


def uncalibrated(self, q, mc_return):
    return q


def least(self, q, mc_return):
    return torch.minimum(q, mc_return[:, None])


def flipped(self, q, log_pi, mc_return, conservative_loss=CQL.conservative_loss):
    loss, info = conservative_loss(self, q, log_pi, mc_return)
    return -loss, info


def random_bounded(self, q, log_pi, mc_return, conservative_loss=CQL.conservative_loss):
    random = slice(1, 1 + self.config.n_actions)
    q = torch.cat([q[..., :1], torch.maximum(q[..., random], mc_return[:, None]), q[..., random.stop :]], -1)
    return conservative_loss(self, q, log_pi, mc_return)


BROKEN = {
    "sign of the conservative term": (check_bound, {(CQL, "conservative_loss"): flipped}),
    "no calibration": (check_bound, {(CalQL, "calibrate"): uncalibrated}),
    "minimum instead of maximum": (check_bound, {(CalQL, "calibrate"): least}),
    "bound on the random actions": (
        check_pressure,
        {(CalQL, "calibrate"): uncalibrated, (CQL, "conservative_loss"): random_bounded},
    ),
    "maximum over the ensemble": (check_control, broken_target(pick="amax")),
    "no terminal mask": (check_control, broken_target(terminal=0.0)),
    "no discount": (check_control, broken_target(discount=1.0)),
    "s instead of s'": (check_control, broken_target(stay=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_loss_is_noticed(name, monkeypatch):
    check, patches = BROKEN[name]
    for (owner, attribute), replacement in patches.items():
        monkeypatch.setattr(owner, attribute, replacement)
    with pytest.raises(AssertionError, match=r"Q|success|return"):
        check(seed=0)
