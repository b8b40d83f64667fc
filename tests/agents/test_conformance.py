"""What every agent must do, with every kind of encoder."""

import copy
import dataclasses
import math
import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from caliper.agents import AGENTS, build_agent
from caliper.agents.probe import probe
from caliper.config.meanings import choices
from caliper.encoders.base import Encoder
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from tests.agents.conftest import (
    ACTIONS,
    CONFIGS,
    PIXELS,
    equal,
    keys_of,
    make,
    random_batch,
    random_obs,
    snapshot,
    update_all,
)

STATE = ObsSpec((), 0, 5)
CASES = [(name, encoder) for name in AGENTS for encoder in ("conv_tiny", "state")]
CRITICS = [name for name, (agent, _) in AGENTS.items() if agent.has_critic]
ACTORS = [name for name, (agent, _) in AGENTS.items() if agent.has_actor]
# Images per update; others: the actor's at s and s', the critic's, its target's.
ENCODED = {"bc": 1, "qtopt": 2, "iql": 5, "fql": 5, "qc": 5}


def metrics(text):
    """Names grouped as "part/name name"; every trained part has a gradient norm besides."""
    part, names = None, set()
    for word in text.split():
        if "/" in word:
            part, word = word.split("/")
            names.add(f"{part}/grad_norm")
        names.add(f"{part}/{word}")
    return names


BC = metrics("actor/loss bc_loss")
TD = metrics("critic/loss td_loss q_data q_pi target")
WEIGHTED = metrics("actor/std advantage weight")
SAC_METRICS = BC | TD | metrics("actor/entropy temperature/loss alpha")
CQL_METRICS = SAC_METRICS | metrics(
    "critic/gap q_random q_current q_next columns_std policy_share"
    " bound_rate bound_rate_current bound_rate_next"
)
METRICS = {
    "bc": BC,
    "sac": SAC_METRICS,
    "cql": CQL_METRICS,
    "calql": CQL_METRICS,
    "iql": BC | TD | WEIGHTED | metrics("value/loss v"),
    "awac": BC | TD | WEIGHTED,
    "td3bc": BC | TD | metrics("actor/weight"),
    "rlpd": SAC_METRICS,
    "wsrl": CQL_METRICS,
    "qtopt": TD - {"critic/q_pi"} | {"cem/std"},
    "fql": BC | TD | metrics("flow/loss") | {"actor/distill_loss"},
    "qc": TD - {"critic/q_pi"} | metrics("actor/loss") | {"critic/gain"},
}


def frozen(agent):
    """Names of the parameters that no update is to move, nor their slow copies."""
    learns = {name: p.requires_grad for name, p in agent.named_parameters()}
    return {name for name in learns if not learns[name.removeprefix("target_")]}


def spec_of(encoder):
    return STATE if encoder == "state" else PIXELS


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_update_changes_every_trained_parameter(name, encoder):
    agent = make(name, encoder, spec=spec_of(encoder))
    before = snapshot(agent)
    info = update_all(agent, random_batch(spec=spec_of(encoder)))
    # The greedy cloning loss does not reach the standard deviation.
    untouched = frozen(agent) | ({"actor.log_std_scale", "actor.log_std_offset"} if name == "bc" else set())
    for key, value in agent.state_dict().items():
        assert torch.equal(value, before[key]) == (key in untouched), key
    assert all(v.dim() == 0 and not v.requires_grad and torch.isfinite(v) for v in info.values())


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_are_complete_and_distinct(name):
    # A missing comma in the official code fuses two names, so that two metrics are never logged.
    assert set(update_all(make(name))) == METRICS[name]
    if "lagrange" in keys_of(name):
        extra = {"critic/lagrange", "critic/lagrange_loss"}
        assert set(update_all(make(name, lagrange=True))) == METRICS[name] | extra


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_actions(name, encoder):
    agent = make(name, encoder, spec=spec_of(encoder))
    obs = random_obs(6, spec_of(encoder))
    greedy = agent.act(obs, deterministic=True)
    assert greedy.shape == (6, ACTIONS) and greedy.dtype == torch.float32 and not greedy.requires_grad
    assert torch.equal(greedy, agent.act(obs, deterministic=True))
    samples = [agent.act(obs, deterministic=False) for _ in range(2)]
    assert not torch.equal(*samples)
    assert max(float(x.abs().max()) for x in [greedy, *samples]) <= 1
    # Alone an observation gets the action it gets in a batch: evaluation is free of the number of envs.
    torch.testing.assert_close(agent.act(obs[2:3], deterministic=True)[0], greedy[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AGENTS)
def test_saved_state_gives_the_same_next_update(name):
    first, second = make(name, seed=0), make(name, seed=1)
    for i in range(2):
        first.update(random_batch(seed=i))
        if first.has_actor:
            first.bc_update(random_batch(seed=i))
    first.go_online()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_train_state(copy.deepcopy(first.train_state()))
    for i in (5, 6):
        a, b = first.update(random_batch(seed=i)), second.update(random_batch(seed=i))
        assert equal(a, b)
    assert equal(first.state_dict(), second.state_dict())
    assert torch.equal(*(x.act(random_obs(3), deterministic=False) for x in (first, second)))


def plain(value):
    """Whether a value holds only what a file can without code: tensors, numbers, strings, lists, dicts."""
    if isinstance(value, dict):
        return all(plain(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(plain(v) for v in value)
    return value is None or isinstance(value, torch.Tensor | int | float | str | bool)


@pytest.mark.parametrize("name", AGENTS)
def test_train_state_is_plain(name):
    agent = make(name)
    agent.update(random_batch())
    assert plain(agent.train_state())


@pytest.mark.parametrize("name", AGENTS)
def test_a_seed_fixes_all_numbers_and_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    first, second, other = make(name, seed=3), make(name, seed=3), make(name, seed=4)
    for agent in (first, second, other):
        agent.update(random_batch())
    assert torch.equal(before, torch.get_rng_state())
    assert equal(first.state_dict(), second.state_dict())
    assert not equal(first.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", AGENTS)
def test_one_transition_is_a_batch(name):
    info = update_all(make(name), random_batch(b=1))
    assert all(torch.isfinite(v) for v in info.values())


@pytest.mark.parametrize("name", CRITICS)
def test_q_values_are_the_ensembles_minimum(name):
    agent, obs = make(name), random_obs(5)
    assert agent.has_critic
    action = agent.act(obs, deterministic=True)
    with torch.no_grad():
        q = agent.critic(agent.critic.encoder(obs), action[:, None])
    assert torch.equal(agent.q_values(obs, action), q[..., 0].min(0).values)


@pytest.mark.parametrize("name", CRITICS)
def test_probing_changes_nothing(name):
    agent, obs = make(name), random_obs(5)
    before, state = snapshot(agent), agent.generator.get_state()
    first, second = (probe(agent, obs, agent.decide(obs, deterministic=True)) for _ in range(2))
    for key, value in first.items():
        assert value.shape == (5,) and torch.isfinite(value).all() and torch.equal(value, second[key]), key
    assert equal(agent.state_dict(), before) and torch.equal(agent.generator.get_state(), state)


@pytest.mark.parametrize("name", ACTORS)
def test_cloning_learns_and_moves_the_actor_only(name):
    agent = make(name, "state", spec=STATE, bc_lr=1e-2, actor_hidden=[64, 64])
    before = snapshot(agent)
    batch = random_batch(b=64, spec=STATE)
    target = torch.where(batch.obs.proprio[:, :ACTIONS] > 0, 1.0, -1.0)  # saturated, as the experts' are
    batch = dataclasses.replace(batch, action=target)
    for _ in range(250 if "flow_steps" in keys_of(name) else 60):  # a flow learns a whole distribution
        agent.bc_update(batch)
    wrong = (agent.act(batch.obs, deterministic=True) - target).abs().mean()
    assert float(wrong) < 0.2  # about 1 before
    changed = {key for key, value in agent.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith(("actor.", "flow.")) for key in changed)


@pytest.mark.parametrize("name", AGENTS)
def test_images_are_encoded_once_per_network_and_update(name):
    agent, calls = make(name), []
    batch = random_batch()
    encoders = [(key, module) for key, module in agent.named_modules() if isinstance(module, Encoder)]
    for key, module in encoders:
        module.register_forward_hook(lambda _, args, __, key=key: calls.append((key, args[0].proprio)))
    for _ in range(2):
        calls.clear()
        agent.update(batch)
        # Images are shifted, so new tensors; the proprioception beside them is the batch's own.
        seen = [(key, proprio is batch.obs.proprio) for key, proprio in calls]
        waiting = agent.updates % agent.actor_every != 0
        assert len(seen) == len(set(seen)) == ENCODED.get(name, 4) - waiting
        assert all(proprio is batch.obs.proprio or proprio is batch.next_obs.proprio for _, proprio in calls)


class NoHostCopy(TorchDispatchMode):
    """Refuses to bring a number to the host, which would make a GPU wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_brings_nothing_to_the_host(name):
    agent, batch = make(name), random_batch()
    with NoHostCopy():
        update_all(agent, batch)


def test_golden_numbers():
    """Numbers of this code itself: a change here is a change of the algorithm, and has to be meant."""
    agent = make("calql", seed=0)
    info = [agent.update(random_batch(seed=i)) for i in range(2)][-1]
    golden = {
        "critic/td_loss": 5.423263,
        "critic/gap": 4.809581,
        "actor/loss": -1.071754,
        "actor/entropy": 1.074708,
    }
    assert {key: float(info[key]) for key in golden} == pytest.approx(golden, rel=1e-4)


def test_unknown_names_and_keys_are_named():
    known = ", ".join(sorted(AGENTS))
    with pytest.raises(CaliperError, match=f"agent.name=calq is unknown; did you mean calql.*{known}"):
        build_agent({"name": "calq"}, {"name": "state"}, STATE, ACTIONS, "cpu", 0)
    with pytest.raises(CaliperError, match=r"'tua'.*tau"):
        make("calql", tua=0.1)
    with pytest.raises(CaliperError, match=r"precision='half'.*float32, bfloat16"):
        make("calql", precision="half")
    with pytest.raises(CaliperError, match=r"agent.chunk=None has the wrong type; it must be int"):
        make("bc", chunk=None)  # as from a run folder that somebody has edited
    with pytest.raises(CaliperError, match="chunk=0"):
        make("bc", chunk=0)
    with pytest.raises(CaliperError, match="init_temperature"):
        make("calql", init_temperature=0.0)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("calql", "n_critics", 0),
        ("calql", "n_actions", 0),
        ("calql", "n_target_actions", 0),
        ("calql", "cql_temperature", 0.0),
        ("sac", "critic_hidden", [16, 0]),
        ("sac", "critic_lr", -1.0),
        ("sac", "actor_lr", math.nan),
        ("sac", "shift_pad", -1),
        ("sac", "tau", 1.5),
        ("td3bc", "actor_every", 0),
        ("qtopt", "first_std", -1.0),
    ],
)
def test_values_that_make_no_sense_are_refused(name, key, value):
    with pytest.raises(
        CaliperError, match=rf"agent\.{key}={re.escape(str(value))} makes no sense; it must be"
    ):
        make(name, **{key: value})


def test_clips_the_wrong_way_round_are_refused():
    with pytest.raises(CaliperError, match=r"clip_diff_min=2.0 exceeds agent.clip_diff_max=1.0"):
        make("cql", clip_diff_min=2.0, clip_diff_max=1.0)


@pytest.mark.parametrize("name", AGENTS)
def test_every_learning_rate_may_change_at_a_resume_and_then_counts(name):
    rates = {f.name: f for f in dataclasses.fields(AGENTS[name][1]) if f.name.endswith("_lr")}
    assert rates and all(f.metadata["resume"] for f in rates.values())
    first = make(name)
    first.update(random_batch(seed=0))
    other, same = make(name, **dict.fromkeys(rates, 0.0)), make(name)
    for agent in (other, same):
        agent.load_state_dict(first.state_dict())
        agent.load_train_state(copy.deepcopy(first.train_state()))
    before = snapshot(other)
    for agent in (first, other, same):
        agent.update(random_batch(seed=1))
    assert equal(first.state_dict(), same.state_dict())
    learnt = {name for name, p in other.named_parameters() if p.requires_grad}
    assert all(torch.equal(before[name], other.state_dict()[name]) for name in learnt)
    assert not equal(first.state_dict(), other.state_dict())


def test_configs_are_complete():
    """Every YAML file builds its agent, holds every key, and gives the published defaults."""
    found = choices("agent")
    assert set(AGENTS) <= found.keys() and set(AGENTS) == set(CONFIGS)
    for name, values in found.items():
        agent = AGENTS[values["name"]][1]
        defaults = {f.name: f.default for f in dataclasses.fields(agent)}
        assert name not in AGENTS or values["name"] == name
        plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key != "name"}
        assert plain == defaults
