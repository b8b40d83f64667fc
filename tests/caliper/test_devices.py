"""Everything of a run on a GPU is on the GPU: a pretended one, which refuses what a real one would."""

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from caliper.agents import build_agent
from caliper.config import devices as config_devices
from caliper.config.compose import load
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.returns import RewardConfig
from caliper.envs.bridge import bridged
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.rollout.evaluation import evaluate
from caliper.training.checkpoint import load_checkpoint, save_checkpoint
from caliper.training.interrupt import Interrupt, InterruptedRunError
from caliper.training.run import resume, train
from tests.agents.conftest import CONFIGS
from tests.pretended_cuda import pretended_cuda

HORIZON = 3
FAMILIES = ["bc", "calql", "iql", "qtopt", "rlpd", "td3bc", "fql", "qc"]


def make_env(sim="warp"):
    """Warp's envs on the device, or the CPU's with their tensors there."""
    keys = {"cameras": ("agentview",), "size": 16, "horizon": HORIZON, "threads": 1}
    device = "cuda" if sim == "warp" else "cpu"
    return bridged(SimEnv("lift", 2, sim=sim, device=device, **keys), "cuda")


@pytest.fixture
def waits(request):
    """What has waited for the device; a test's `sim` says where Warp's arrays are."""
    params = getattr(request.node, "callspec", None)
    with pretended_cuda(warp=params is None or params.params.get("sim") != "batch") as waits:
        yield waits


def test_the_pretended_device_refuses_what_a_real_one_would(waits):
    here, there = torch.zeros(3, device="cuda"), torch.zeros(3)
    assert here.device.type == here[1:].device.type == (here + 1).device.type == "cuda"
    assert there.device.type == there.to("cuda").cpu().device.type == "cpu"
    for mixed in (
        lambda: here + there,
        lambda: torch.where(here > 0, here, there),
        lambda: here.index_select(0, torch.tensor([1])),
        lambda: torch.cat([here, there]),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
    ):
        with pytest.raises(AssertionError, match=r"GPU meets the CPU's|on another device"):
            mixed()
    with pytest.raises(TypeError, match="cuda"):
        here.numpy()
    here.copy_(there)
    waits.clear()
    assert bool((here + torch.tensor(1.0)).sum() == 3) and waits == ["_local_scalar_dense"]
    model = torch.nn.Linear(3, 1).to("cuda")
    model(here).sum().backward()
    assert model.weight.grad is not None and model.weight.grad.device.type == "cuda"


@pytest.mark.parametrize("sim", ["warp", "batch"])
def test_seeds_masks_and_actions_may_come_from_anywhere(waits, sim):
    env = make_env(sim)
    seeds = torch.tensor([5, 6])
    first = env.reset(seeds=seeds).pixels.cpu()
    env.reset(mask=torch.tensor([True, False]), seeds=seeds)
    env.step(torch.zeros(2, env.action_dim))
    env.set_appearance(seeds)
    env.set_state(env.get_state().cpu())
    env.load_state_dict({name: value.cpu() for name, value in env.state_dict().items()})
    assert torch.equal(first, env.reset(seeds=seeds.to("cuda")).pixels.cpu())


def test_envs_that_do_not_fit_are_refused_before_they_are_made(waits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 16, 1 << 30))
    with pytest.raises(
        CaliperError, match=r"2 envs need 0\.0 GiB on cuda, where 0\.0 are free; lower online"
    ):
        make_env()


@pytest.mark.parametrize(("name", "sim"), [*((name, "warp") for name in FAMILIES), ("calql", "batch")])
def test_what_a_run_does_on_the_device(waits, name, sim):
    env = make_env(sim)
    agent = build_agent(CONFIGS[name], {"name": "conv_tiny"}, env.spec, env.action_dim, env.device, 0)
    offline, online = (
        ReplayBuffer(40, env.spec, env.action_dim, RewardConfig(gamma=0.99), env.device) for _ in range(2)
    )
    open_episodes = OpenEpisodes(2, HORIZON, env.spec, env.action_dim, env.device)
    obs, ended = env.observe(), 0
    for step in range(2 * HORIZON):
        waits.clear()
        action = agent.act(obs, deterministic=False)
        result = env.step(action)
        assert waits == ([] if sim == "warp" else ["to"])  # the CPU's physics needs the actions, all at once
        waits.clear()
        ended += len(open_episodes.push(obs, action, result, offline if step < HORIZON else online))
        assert waits == ["cpu"]  # whatever ends, all of it is known to the host at once
        obs = result.obs
    assert ended == 4 and len(offline) == len(online) == 2 * HORIZON
    env.check()
    generator = torch.Generator(env.device).manual_seed(0)
    sampler = MixedSampler(offline, online, 0.5)
    updates = [lambda b: agent.update(b)] + ([lambda b: agent.bc_update(b)] if agent.has_actor else [])
    for update in updates:
        for captured in (False, True):
            batch = sampler.sample(4, generator, captured)
            waits.clear()
            info = update(batch)
            assert waits == [] and info
            assert all(value.device.type == "cuda" for value in info.values())
    agent.go_online()
    agent.update(sampler.sample(4, generator))
    assert agent.act(obs, deterministic=True).device.type == "cuda"
    state = online.state_dict(), open_episodes.state_dict(), env.state_dict(), agent.train_state()
    online.load_state_dict(state[0])
    open_episodes.load_state_dict(state[1])
    env.load_state_dict(state[2])
    agent.load_train_state(state[3])
    agent.update(sampler.sample(4, generator))


@pytest.mark.parametrize("sim", ["warp", "batch"])
def test_an_evaluation_on_the_device(waits, sim):
    env = make_env(sim)
    agent = build_agent(CONFIGS["calql"], {"name": "conv_tiny"}, env.spec, env.action_dim, env.device, 0)
    result, calibration = evaluate(agent, env, [0, 1, 2], RewardConfig(gamma=0.99), "offline")
    assert result.lengths == [HORIZON] * 3 and len(calibration["q"]) == 3 * HORIZON


@contextmanager
def place(device):
    """Where a run can be on a device; whether it was there."""
    if device == "cpu":
        yield
    else:
        with pretended_cuda(warp=False) as waits:
            try:
                yield
            finally:
                assert waits


@pytest.mark.parametrize(("first", "second"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_another_device(configure, tmp_path, monkeypatch, no_report, first, second):
    """All of a run with the simulation on the CPU: dataset, both phases, evaluations, checkpoints, video."""
    config = configure(f"run_dir={tmp_path / 'run'}", "video.episodes=2", "video.size=48", f"device={first}")
    seen = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, device_count=lambda: 1))
    monkeypatch.setattr(config_devices, "torch", seen)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    checks = iter(range(1000))

    def stop(interrupt):
        interrupt.requested = next(checks) == 45  # within the online phase
        check(interrupt)

    check = Interrupt.check
    monkeypatch.setattr(Interrupt, "check", stop)
    with place(first), pytest.raises(InterruptedRunError):
        train(config)
    weights, before = load_checkpoint(tmp_path / "run")
    assert before["counters"]["online"] and before["counters"]["env_steps"] < config.online.env_steps
    # A real GPU's generators have a state of their own length.
    before["generator"] = before["generator"][:16]
    before["agent"]["generator"] = before["agent"]["generator"][:16]
    save_checkpoint(tmp_path / "run", weights, before)
    with place(second):
        resume(tmp_path / "run", replace(config, device=second))
    after = load_checkpoint(tmp_path / "run")[1]
    assert after["counters"]["env_steps"] == config.online.env_steps
    assert (tmp_path / "run" / "videos" / "rollouts.mp4").stat().st_size > 0
    starts = json.loads((tmp_path / "run" / "devices.json").read_text())["starts"]
    assert [(start["learner"], start["engine"]) for start in starts] == [(first, "batch"), (second, "batch")]
    assert load(tmp_path / "run" / "config.yaml").device == second
