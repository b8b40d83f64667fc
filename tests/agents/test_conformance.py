"""What every agent must do, with every kind of encoder."""

import copy
import dataclasses
from importlib.resources import files

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from caliper.agents import AGENTS, build_agent
from caliper.types import CaliperError, ObsSpec
from tests.agents.conftest import ACTIONS, CONFIGS, PIXELS, make, random_batch, random_obs

STATE = ObsSpec((), 0, 5)
CASES = [(name, encoder) for name in AGENTS for encoder in ("conv_tiny", "state")]
ACTOR_METRICS = {"actor/loss", "actor/clone_loss", "actor/grad_norm"}
SAC_METRICS = ACTOR_METRICS | {
    "actor/entropy",
    "critic/loss",
    "critic/td_loss",
    "critic/q_data",
    "critic/q_pi",
    "critic/target",
    "critic/grad_norm",
    "temperature/loss",
    "temperature/alpha",
    "temperature/grad_norm",
}
CQL_METRICS = SAC_METRICS | {
    "critic/gap",
    "critic/q_random",
    "critic/q_current",
    "critic/q_next",
    "critic/columns_std",
    "critic/policy_share",
    "critic/bound_rate",
    "critic/bound_rate_current",
    "critic/bound_rate_next",
}
METRICS = {
    "bc": ACTOR_METRICS,
    "sac": SAC_METRICS,
    "cql": CQL_METRICS,
    "calql": CQL_METRICS,
    "rlpd": SAC_METRICS,
    "wsrl": CQL_METRICS,
    "qtopt": {name for name in SAC_METRICS if name.startswith("critic/")} - {"critic/q_pi"} | {"cem/std"},
}


def spec_of(encoder):
    return STATE if encoder == "state" else PIXELS


def snapshot(agent):
    return {name: value.clone() for name, value in agent.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("name", "encoder"), CASES)
def test_update_changes_every_trained_parameter(name, encoder):
    agent = make(name, encoder, spec=spec_of(encoder))
    before = snapshot(agent)
    info = agent.update(random_batch(spec=spec_of(encoder)))
    # The greedy cloning loss does not reach the standard deviation; the multiplier needs the Lagrange form.
    untouched = {"log_lagrange"} | (
        {"actor.log_std_scale", "actor.log_std_offset"} if name == "bc" else set()
    )
    for key, value in agent.state_dict().items():
        assert torch.equal(value, before[key]) == (key in untouched), key
    assert all(v.dim() == 0 and not v.requires_grad and torch.isfinite(v) for v in info.values())


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_are_complete_and_distinct(name):
    # A missing comma in the official code fuses two names, so that two metrics are never logged.
    assert set(make(name).update(random_batch())) == METRICS[name]
    if name != "bc":
        lagrange = {"lagrange": True} if name in ("cql", "calql", "wsrl") else {}
        extra = {"critic/lagrange", "critic/lagrange_loss"} if lagrange else set()
        assert set(make(name, **lagrange).update(random_batch())) == METRICS[name] | extra


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
    # Alone an observation gets the action it gets in a batch: evaluation is free of the number of worlds.
    torch.testing.assert_close(agent.act(obs[2:3], deterministic=True)[0], greedy[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AGENTS)
def test_saved_state_gives_the_same_next_update(name):
    first, second = make(name, seed=0), make(name, seed=1)
    for i in range(2):
        first.update(random_batch(seed=i))
        if first.has_actor:
            first.clone(random_batch(seed=i))
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
    info = make(name).update(random_batch(b=1))
    assert all(torch.isfinite(v) for v in info.values())


@pytest.mark.parametrize("name", ["sac", "cql", "calql"])
def test_q_values_are_the_ensembles_minimum(name):
    agent, obs = make(name), random_obs(5)
    assert agent.has_critic
    action = agent.act(obs, deterministic=True)
    with torch.no_grad():
        q = agent.critic(agent.critic.encode(obs), action[:, None])
    assert torch.equal(agent.q_values(obs, action), q[..., 0].min(0).values)
    assert not make("bc").has_critic


@pytest.mark.parametrize("name", [name for name, (kind, _) in AGENTS.items() if kind.has_actor])
def test_cloning_learns_and_moves_the_actor_only(name):
    agent = make(name, "state", spec=STATE, clone_lr=1e-2)
    before = snapshot(agent)
    batch = random_batch(b=64, spec=STATE)
    target = torch.where(batch.obs.proprio[:, :ACTIONS] > 0, 1.0, -1.0)  # saturated, as the experts' are
    batch = dataclasses.replace(batch, action=target)
    for _ in range(60):
        agent.clone(batch)
    wrong = (agent.act(batch.obs, deterministic=True) - target).abs().mean()
    assert float(wrong) < 0.2  # about 1 before
    changed = {key for key, value in agent.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("actor.") for key in changed)


@pytest.mark.parametrize("name", ["sac", "cql", "calql"])
@pytest.mark.parametrize(
    "keys",
    [
        {"n_critics": 5},
        {"layer_norm": True},
        {"encoder_per_critic": True},
        {"shift_pad": 0},
        {"precision": "bfloat16"},
        {"autotune_entropy": False, "init_temperature": 0.0},
        {"bc_weight": 0.1, "clone_loss": "nll"},
        {"bc_weight": 0.1, "clone_better_only": True},
        {"mc_weight": 0.5},
        {"encoder_weight_decay": 0.1},
        {"actor_tau": 0.01},
        {"best_of": 4},
        {"chunk": 2},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_options(name, keys):
    agent = make(name, **keys)
    before = snapshot(agent)
    for _ in range(2):
        info = agent.update(random_batch(actions=agent.action_dim))
    assert agent.act(random_obs(3), deterministic=False).shape == (3, agent.action_dim)
    assert all(torch.isfinite(v) for v in info.values())
    assert not torch.equal(before["critic.head.weights.0"], agent.state_dict()["critic.head.weights.0"])


def test_bfloat16_gives_nearly_the_same_gradients():
    """Casts cached where gradients are off must not cut the graph where they are on."""
    full, half = (
        make("calql", precision=precision).update(random_batch()) for precision in ("float32", "bfloat16")
    )
    for key in ("actor/grad_norm", "critic/grad_norm", "critic/loss"):
        assert float(half[key]) == pytest.approx(float(full[key]), rel=0.02)


@pytest.mark.parametrize("name", ["sac", "cql", "calql"])
def test_levers_that_are_off_change_no_bit(name):
    published = make(name)
    off = {
        "bc_weight": 0.0,
        "bc_weight_online": 0.0,
        "bc_fade_steps": 9,
        "clone_loss": "nll",
        "clone_lr": 1.0,
        "clone_better_only": True,
        "mc_weight": 0.0,
        "best_of": 4,
    }
    if name != "sac":
        off["conservative_weight_online"] = published.config.conservative_weight
    other = make(name, **off)
    for i in range(3):
        if i == 1:
            published.go_online()
            other.go_online()
        published.update(random_batch(seed=i))
        other.update(random_batch(seed=i))
    assert equal(published.state_dict(), other.state_dict())


def test_images_are_encoded_once_per_network_and_update():
    agent, calls = make("calql"), []
    networks = {"actor": agent.actor, "critic": agent.critic, "target": agent.target_critic}
    for name, network in networks.items():
        network.encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    agent.update(random_batch())
    assert sorted(calls) == ["actor", "actor", "critic", "target"]  # the actor at s and at s'


class NoHostCopy(TorchDispatchMode):
    """Refuses to bring a number to the host, which would make a GPU wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", AGENTS)
def test_an_update_brings_nothing_to_the_host(name):
    agent, batch = make(name), random_batch()
    with NoHostCopy():
        agent.update(batch)


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
    with pytest.raises(CaliperError, match=r"'calq'.*bc, calql, cql, .*sac"):
        build_agent({"name": "calq"}, {"name": "state"}, STATE, ACTIONS, "cpu", 0)
    with pytest.raises(CaliperError, match=r"'tua'.*tau"):
        make("calql", tua=0.1)
    with pytest.raises(CaliperError, match=r"clone_loss='mae'.*mse, nll"):
        make("calql", clone_loss="mae")
    with pytest.raises(CaliperError, match="chunk=0"):
        make("bc", chunk=0)
    with pytest.raises(CaliperError, match="init_temperature"):
        make("calql", init_temperature=0.0)


def test_configs_are_complete():
    """Every YAML file builds its agent, holds every key, and gives the published defaults."""
    names = {path.name.removesuffix(".yaml") for path in files("caliper.configs").joinpath("agent").iterdir()}
    assert names == set(AGENTS) == set(CONFIGS)
    for name in names:
        text = files("caliper.configs").joinpath("agent", f"{name}.yaml").read_text()
        loaded = OmegaConf.to_container(OmegaConf.create(text))
        defaults = {f.name: f.default for f in dataclasses.fields(AGENTS[name][1])}
        assert loaded.pop("name") == name
        assert {key: tuple(v) if isinstance(v, list) else v for key, v in loaded.items()} == defaults
