"""FQL and Q-chunking on the small problem of `test_learning`, with data of two scripts that contradict each other.

One heads for the middle, the other away from it. The flow has to keep both apart; the critics have to tell
which one pays. The bounds hold for seeds 0, 1 and 2; `CHECKS` and `BROKEN` name what misses them.
"""

import pytest
import torch

from caliper.agents import build_agent, fql, nets, qc
from caliper.agents.fql import FQL
from caliper.agents.qc import QC
from tests.agents.test_deviations import play, two_ways
from tests.agents.test_learning import ACTIONS, REWARD, SPEC

KEYS = {
    "actor_hidden": [64, 64],
    "critic_hidden": [64, 64],
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
    "bc_lr": 3e-3,
    "tau": 0.1,
    "discount": REWARD.gamma,
}
OWN = {"fql": {"alpha": 1.0}, "qc": {"chunk": 2, "best_of": 16}}


def make(name, seed, **keys):
    keys = KEYS | OWN[name] | keys
    return build_agent({"name": name, **keys}, {"name": "state"}, SPEC, ACTIONS, "cpu", seed)


def trained(name, seed, updates, learn="update", **keys):
    agent = make(name, seed, **keys)
    buffer, g = two_ways(seed, agent.config.chunk), torch.Generator().manual_seed(seed)
    for _ in range(updates):
        getattr(agent, learn)(buffer.sample(128, g))
    return agent, buffer.sample(500, g).obs


def check_modes(seed, name, **keys):
    """A clone of two scripts does what one of them does or what the other does, never their mean."""
    agent, obs = trained(name, seed, 400, "bc_update", chunk=1, **keys)
    with torch.no_grad():
        action = agent.decide(obs, deterministic=False).pi.sample(1, agent.generator)[0][:, 0]
    inward = -obs.proprio / obs.proprio.norm(dim=1, keepdim=True)
    ahead = (action[:, :2] * inward).sum(1)  # about 1 or -1
    assert (ahead > 0.5).float().mean() > 0.35 and (ahead < -0.5).float().mean() > 0.35, "the modes"
    assert (ahead.abs() < 0.3).float().mean() < 0.12, "what lies between"


def check_modes_of_one_step(seed, **keys):
    check_modes(seed, "fql", **keys)


def check_modes_of_the_flow(seed, **keys):
    check_modes(seed, "qc", best_of=1, **keys)


def check_fql(seed, **keys):
    """Climbs Q to the script that pays, and its critics know what that is worth."""
    agent, _ = trained("fql", seed, 400, **keys)
    success, value, promised = play(agent)
    assert success > 0.95 and value > 3.5, "success"
    assert abs(promised - value) < 1.0, "Q against the return"


def check_qc(seed, **keys):
    """Chooses the chunks of the script that pays."""
    agent, _ = trained("qc", seed, 400, **keys)
    success, value, promised = play(agent)
    assert success > 0.95 and value > 3.0, "success"
    assert abs(promised - value) < 1.0, "Q against the return"


CHECKS = {
    check_fql: {"alpha": 1e6},
    check_qc: {"best_of": 1},
    check_modes_of_one_step: {"flow_steps": 1},
    check_modes_of_the_flow: {"flow_steps": 1},
}
if __name__ == "__main__":
    import sys, time
    from caliper.agents import nets
    for seed in map(int, sys.argv[1:]):
        for name in OWN:
            t=time.time()
            for kw in ({}, CHECKS[globals()["check_"+name]]):
                agent,_ = trained(name, seed, 400, **kw); print(seed, name, kw, play(agent), time.time()-t, flush=True)
            agent, obs = trained(name, seed, 400, "bc_update", chunk=1, best_of=1)
            for kw in ({},{"flow_steps":1}):
                t=time.time()
                agent, obs = trained(name, seed, 400, "bc_update", chunk=1, best_of=1, **kw)
                with torch.no_grad():
                    action = agent.decide(obs, deterministic=False).pi.sample(1, agent.generator)[0][:, 0]
                inward = -obs.proprio / obs.proprio.norm(dim=1, keepdim=True)
                ahead = (action[:, :2] * inward).sum(1)
                print("modes", name, kw, (ahead > 0.5).float().mean(), (ahead < -0.5).float().mean(), (ahead.abs() < 0.3).float().mean(), time.time()-t, flush=True)
