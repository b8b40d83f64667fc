"""FQL and Q-chunking on the small problem of `test_learning`, with data of two scripts that disagree.

One heads for the middle, the other away from it: the critics have to tell which one pays. And a flow has to
keep two ways of acting apart. The bounds hold for seeds 0, 1 and 2; `CHECKS` names for each check a value
that misses them.
"""

import pytest
import torch

from caliper.agents import build_agent
from caliper.types import ObsSpec
from tests.agents.conftest import random_batch
from tests.agents.test_deviations import play, two_ways
from tests.agents.test_learning import ACTIONS, REWARD, SPEC

KEYS = {
    "actor_hidden": [64, 64],
    "critic_hidden": [64, 64],
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "tau": 0.1,
    "discount": REWARD.gamma,
    "flow_steps": 5,
}
OWN = {"fql": {"alpha": 1.0}, "qc": {"chunk": 2, "best_of": 16}}


def trained(name, seed, updates, **keys):
    keys = KEYS | OWN[name] | keys
    agent = build_agent({"name": name, **keys}, {"name": "state"}, SPEC, ACTIONS, "cpu", seed)
    buffer, g = two_ways(seed, agent.config.chunk), torch.Generator().manual_seed(seed)
    for _ in range(updates):
        agent.update(buffer.sample(128, g))
    return agent


def check_modes(seed, name="qc", **keys):
    """A clone of two scripts does what one of them does or what the other does, never their mean."""
    keys = {"actor_hidden": [64, 64], "bc_lr": 1e-2, "chunk": 1, "critic_hidden": [4]} | keys
    agent = build_agent({"name": name, **keys}, {"name": "state"}, ObsSpec((), 0, 1), 1, "cpu", seed)
    batch = random_batch(512, ObsSpec((), 0, 1), seed, actions=1)
    batch.action.copy_(0.8 * batch.action.sign())  # either, whatever is seen
    for _ in range(200):
        agent.bc_update(batch)
    with torch.no_grad():
        drawn = agent.decide(batch.obs, deterministic=False).pi.sample(4, agent.generator)[0].flatten()
    up, down = (drawn > 0.5).float().mean(), (drawn < -0.5).float().mean()
    assert up > 0.3 and down > 0.3 and up + down > 0.75, "the scripts' actions"


def check_modes_of_one_step(seed, **keys):
    """The same of a policy that makes it in one step."""
    check_modes(seed, "fql", **keys)


def check_fql(seed, **keys):
    """Climbs Q to the script that pays, and its critics know what that is worth."""
    success, value, promised = play(trained("fql", seed, 250, **keys))
    assert success > 0.95 and value > 3.5, "success"
    assert abs(promised - value) < 1.0, "Q against the return"


def check_qc(seed, **keys):
    """Chooses the chunks of the script that pays."""
    success, value, promised = play(trained("qc", seed, 350, **keys))
    assert success > 0.9 and value > 1.0, "success"  # without the choice about 0.1
    assert abs(promised - value) < 1.5, "Q against the return"


CHECKS = {
    check_fql: {"alpha": 1e6},
    check_qc: {"best_of": 1},
    check_modes: {"flow_steps": 1},
    check_modes_of_one_step: {"flow_steps": 1},
}


@pytest.mark.parametrize("check", CHECKS)
def test_an_agent_finds_what_the_data_hold(check):
    check(seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_do_too(check, seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_without_what_does_it_they_do_not(check):
    with pytest.raises(AssertionError, match=r"success|Q|actions"):
        check(seed=0, **CHECKS[check])
