"""Each deviation from the papers, on the small problem of `test_learning`: it does what it is for.

The bounds hold for seeds 0, 1 and 2; `CHECKS` names for each a value that misses them.
"""

import pytest
import torch

from caliper.data.buffer import ReplayBuffer
from caliper.rollout.episodes import ActionQueue
from tests.agents.test_learning import ACTIONS, HORIZON, REWARD, SPEC, Square, collect, make, observe

N = 200


def play(agent):
    """Success of the greedy policy, the mean return it gets and the one promised at the start."""
    env = Square(N, seed=999)
    obs, queue = observe(env.at), ActionQueue(N, agent.config.chunk, ACTIONS, "cpu")
    promised = agent.q_values(obs, agent.act(obs, deterministic=True)).mean().item()
    playing, won, returns = torch.ones(N), torch.zeros(N), torch.zeros(N)
    for t in range(HORIZON):
        step = env.step(queue.next(agent.act(obs, deterministic=True)))
        returns += playing * REWARD.gamma**t * REWARD.apply(step.reward)
        won += playing * step.success
        playing *= ~(step.terminated | step.truncated)
        obs = step.obs
    returns += (1 - won) * REWARD.gamma**HORIZON * REWARD.bias / (1 - REWARD.gamma)
    return won.mean().item(), returns.mean().item(), promised


def two_ways(seed, chunk=1):
    """Episodes of two scripts in equal number: one heads for the middle, one as fast away from it."""
    g = torch.Generator().manual_seed(seed)
    sense = torch.ones(20, 1)
    sense[::2] = -1

    def act(obs):
        move = -sense * obs.proprio / obs.proprio.abs().amax(1, keepdim=True)
        move = move + 0.3 * torch.randn(20, 2, generator=g)
        return torch.cat([move, torch.randn(20, ACTIONS - 2, generator=g)], 1).clamp(-0.99, 0.99)

    buffer = ReplayBuffer(20_000, SPEC, ACTIONS, REWARD, chunk=chunk)
    collect(act, 60, seed, buffer)
    return buffer


def trained(seed, updates=300, **keys):
    agent = make(seed, **{"conservative_weight": 0.1, "critic_lr": 3e-3, "tau": 0.1} | keys)
    buffer, g = two_ways(seed, agent.config.chunk), torch.Generator().manual_seed(seed)
    for _ in range(updates):
        agent.update(buffer.sample(128, g))
    return agent


def check_filter(seed, **keys):
    """Held hard to the data, the actor does what did well there: half of the data runs away."""
    success, value, _ = play(trained(seed, **{"bc_weight": 10.0, "bc_better_only": True} | keys))
    assert success > 0.95 and value > 3.5, "success with filtered cloning"


def check_average(seed, **keys):
    """The averaged actor has come as far as the actor, though it started where that began."""
    success, _, _ = play(trained(seed, **{"actor_tau": 0.02} | keys))
    assert success > 0.95, "success of the averaged actor"


def check_best_of(seed, **keys):
    """An actor that never learns gets there all the same when the critic chooses among its samples."""
    success, _, _ = play(trained(seed, actor_lr=0.0, **{"best_of": 32} | keys))
    assert success > 0.95, "success of the critic's choice"


def check_mixed_target(seed, **keys):
    """With the return alone as target the critic knows what the data got, without any bootstrapping."""
    agent = trained(seed, actor_lr=0.0, **{"mc_weight": 1.0} | keys)
    batch = two_ways(seed).sample(2000, torch.Generator().manual_seed(seed))
    error = agent.q_values(batch.obs, batch.action) - batch.mc_return
    assert error.abs().mean() < 1.0, "error of Q"


def check_chunk(seed, **keys):
    """Chunks of two actions get there; a gamma for one step only would promise too much."""
    keys = {"chunk": 2, "n_critics": 2, "importance_sampling": False} | keys
    success, value, promised = play(trained(seed, updates=400, **keys))
    assert success > 0.95, "success of chunks"
    assert abs(promised - value) < 1.0, "Q of chunks against the return"


# Each with the value that breaks it.
CHECKS = {
    check_filter: {"bc_better_only": False},
    check_average: {"actor_tau": 1e-9},
    check_best_of: {"best_of": 1},
    check_mixed_target: {"mc_weight": 0.0},
    check_chunk: {"discount": 0.99},
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_deviation_does_what_it_is_for(check):
    check(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_agree(check, seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_a_broken_deviation_is_noticed(check):
    with pytest.raises(AssertionError, match=r"success|error|Q"):
        check(seed=0, **CHECKS[check])
