"""Learners on little data, and a CUDA graph played on the CPU."""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caliper.agents import build_agent
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.training.update import WARM_UPS, GraphLearner
from caliper.types import ObsSpec
from tests.agents.conftest import ACTIONS, CONFIGS, PIXELS, random_obs

STATE = ObsSpec((), 0, 5)
BATCH = 8
DEVIATIONS = {
    "actor_start": 6,
    "bc_weight": 0.5,
    "bc_weight_online": 0.1,
    "bc_fade_steps": 9,
    "conservative_weight_online": 1.0,
    "bc_better_only": True,
    "critic_encoder_from_bc": True,
    "actor_tau": 0.1,
    "lagrange": True,
}


def add(buffer, seed, t=6):
    g = torch.Generator().manual_seed(seed)
    actions = 2 * torch.rand(t, ACTIONS, generator=g) - 1
    rewards = torch.zeros(t)
    rewards[-1] = seed % 2
    obs = random_obs(t + 1, buffer.spec, seed).to(buffer.device)
    buffer.add_episode(obs, actions.to(buffer.device), rewards.to(buffer.device), bool(seed % 2))


def make(learner, name="calql", spec=PIXELS, device="cpu", encoder="conv_tiny", **keys):
    """A learner with an agent, three recorded episodes and an online buffer with room for two, empty."""
    encoder = encoder if spec.cameras else "state"
    agent = build_agent(CONFIGS[name] | keys, {"name": encoder}, spec, ACTIONS, device, 0)
    buffers = [ReplayBuffer(n, spec, ACTIONS, RewardConfig(gamma=0.97), device) for n in (30, 16)]
    for seed in range(3):
        add(buffers[0], seed)
    return learner(agent, MixedSampler(*buffers, 0.5), BATCH, torch.Generator(device).manual_seed(1))


def weights(learner):
    return {name: value.clone() for name, value in learner.agent.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Tape(TorchDispatchMode):
    """Plays a CUDA graph on the CPU: the same operations on the same memory, with the same constants.

    Refuses what a capture would: whatever brings a value to the host, or one from there.
    """

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_pinned")

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.REFUSED), f"{func} waits for the device"
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        made = [
            t if torch.is_tensor(t) and t.untyped_storage().data_ptr() not in given else None
            for t in tree_leaves(out)
        ]
        self.calls.append((func, args, kwargs or {}, made))
        return out

    @torch.no_grad()
    def play(self):
        for func, args, kwargs, made in self.calls:
            for old, new in zip(made, tree_leaves(func(*args, **kwargs)), strict=True):
                if old is not None:
                    old.copy_(new)


class TapedLearner(GraphLearner):
    """A `GraphLearner` whose graphs are tapes."""

    captures = 0

    def _aside(self, work):
        return work()

    def _capture(self, work):
        self.captures += 1
        tape = Tape()
        with tape:
            info = work()
        played = False

        def replay():
            nonlocal played
            if played:  # unlike a capture, the recording was an update already
                tape.play()
            played = True
            return info

        return replay


class OneByOne(TapedLearner):
    """Makes the same updates and captures none."""

    warm_ups = math.inf


def course(learner):
    """Cloning, updates, the switch, and episodes that come in, wrap and evict; yields all metrics."""
    if learner.agent.has_actor:
        for _ in range(WARM_UPS + 2):
            yield learner.bc_update()
    for _ in range(14):
        yield learner.update()
    learner.agent.go_online()
    for _ in range(5):
        yield learner.update()
    for seed in range(10, 15):
        add(learner.sampler.online, seed, t=3 + seed % 4)
        for _ in range(3):
            yield learner.update()
