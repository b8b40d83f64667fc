"""Everything of a run on a GPU is on the GPU: a pretended one, which refuses what a real one would."""

import pytest
import torch

from caliper.agents import build_agent
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.returns import RewardConfig
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.rollout.evaluation import evaluate
from tests.agents.conftest import CONFIGS
from tests.pretended_cuda import pretended_cuda

HORIZON = 3
FAMILIES = ["bc", "calql", "iql", "qtopt", "rlpd", "td3bc"]


def make_env(**keys):
    keys = {"cameras": ("agentview",), "size": 16, "horizon": HORIZON, "threads": 1} | keys
    return SimEnv("lift", 2, sim="warp", device="cuda", **keys)


@pytest.fixture
def waits():
    with pretended_cuda() as waits:
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


def test_seeds_masks_and_actions_may_come_from_anywhere(waits):
    env = make_env()
    seeds = torch.tensor([5, 6])
    first = env.reset(seeds=seeds).pixels.cpu()
    env.reset(mask=torch.tensor([True, False]), seeds=seeds)
    env.step(torch.zeros(2, env.action_dim))
    env.set_appearance(seeds)
    env.set_state(env.get_state().cpu())
    env.load_state_dict({name: value.cpu() for name, value in env.state_dict().items()})
    assert torch.equal(first, env.reset(seeds=seeds.to("cuda")).pixels.cpu())


def test_worlds_that_do_not_fit_are_refused_before_they_are_made(waits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 16, 1 << 30))
    with pytest.raises(
        CaliperError, match=r"2 worlds need 0\.0 GiB on cuda, where 0\.0 are free; lower online"
    ):
        make_env()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_on_the_device(waits, name):
    env = make_env()
    agent = build_agent(CONFIGS[name], {"name": "conv_tiny"}, env.spec, env.action_dim, env.device, 0)
    offline, online = (
        ReplayBuffer(40, env.spec, env.action_dim, RewardConfig(), env.device) for _ in range(2)
    )
    open_episodes = OpenEpisodes(2, HORIZON, env.spec, env.action_dim, env.device)
    obs, ended = env.observe(), 0
    for step in range(2 * HORIZON):
        waits.clear()
        action = agent.act(obs, deterministic=False)
        result = env.step(action)
        assert waits == []
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


def test_an_evaluation_on_the_device(waits):
    env = make_env()
    agent = build_agent(CONFIGS["calql"], {"name": "conv_tiny"}, env.spec, env.action_dim, env.device, 0)
    result, calibration = evaluate(agent, env, [0, 1, 2], RewardConfig(), "offline")
    assert result.lengths == [HORIZON] * 3 and len(calibration["q"]) == 3 * HORIZON
