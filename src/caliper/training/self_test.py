"""Half a minute that tells whether a GPU does what a run asks of it, and if not, what would fix it.

A few envs of `lift` on MuJoCo Warp beside the exact CPU engine, their images, and updates of an agent as
one recorded graph beside the same updates one by one. On Warp's CPU device everything is the same but the
recording of updates.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial

import torch
import warp as wp

from caliper.agents import build_agent
from caliper.agents.nets import Info
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.envs.graphs import warp_device
from caliper.envs.sim import SimEnv
from caliper.training.update import WARM_UPS, EagerLearner, GraphLearner
from caliper.types import Obs, ObsSpec

PARTS = ("driver", "physics", "image", "update")
NUM_ENVS, STEPS, SIZE = 4, 6, 32
JOINTS = 1e-4  # radians, after STEPS random control steps
PIXELS = 1.0  # mean difference, of 255
METRICS = 1e-2  # relative or absolute difference of what an update reports
NO_MEMORY = "end other programs on the GPU, or take fewer envs"
FIXES = {
    r"out of memory|failed to allocate|need .* GiB": NO_MEMORY,
    r"memory pool": "set sim=batch: this GPU or its driver has no memory pools, which recordings need",
    r"conditional graph|driver version is insufficient|no CUDA driver|nvidia driver": (
        "update the NVIDIA driver: recordings of the solver need one for CUDA 12.4 or newer"
    ),
    r"no kernel image|not compatible with the current pytorch": "install a torch built for this GPU",
    r"captur": "set sim=batch learner=eager, which record nothing",
}


@dataclass(frozen=True)
class Finding:
    """One part of the self-test: its name, what was found, and how to fix it; None if all is well."""

    name: str
    said: str
    fix: str | None = None


def self_test(device: str = "cuda") -> Iterator[Finding]:
    """Tries one thing after the other; what fails does not keep the others from being tried.

    Args:
        device: 'cuda', or a GPU with its number; 'cpu' for Warp's CPU device.
    """
    if (number := torch.device(device).index) is not None:
        torch.cuda.set_device(number)
    envs = _Envs(torch.device(device))
    checks: tuple[Callable[[], str], ...] = (
        partial(_driver, envs.device),
        envs.physics,
        envs.image,
        partial(_update, envs.device),
    )
    for name, check in zip(PARTS, checks, strict=True):
        try:
            yield Finding(name, check())
        except Exception as error:  # torch, Warp, MuJoCo Warp and CUDA each have their own kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield Finding(name, reason, fix(str(error)))


def fix(reason: str) -> str:
    """What to do about an error of CUDA, of torch or of Warp."""
    for pattern, line in FIXES.items():
        if re.search(pattern, reason, re.IGNORECASE):
            return line
    return "set sim=batch, which needs no Warp on the GPU, and report this line"


class _Difference(Exception):  # noqa: N818  # told to the user as a sentence
    """The GPU computes something else than the CPU."""


def _driver(device: torch.device) -> str:
    if device.type == "cpu":
        return "none needed on Warp's CPU device"
    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA driver")
    here = warp_device(device)
    if not here.is_mempool_enabled:
        raise RuntimeError(f"Warp has no memory pool on {here.name}")
    if not wp.is_conditional_graph_supported():
        raise RuntimeError("conditional graph nodes are not supported")
    driver = ".".join(map(str, wp.get_cuda_driver_version() or ()))
    return f"{here.name}, driver for CUDA {driver}, with memory pools and conditional graphs"


class _Envs:
    """The same episodes in both engines, made when they are first asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def make(self, sim: str, device: str) -> SimEnv:
        env = SimEnv("lift", NUM_ENVS, sim, ("agentview",), SIZE, device=device, threads=1)
        env.reset(seeds=torch.arange(NUM_ENVS))
        return env

    @cached_property
    def both(self) -> tuple[SimEnv, SimEnv]:
        return self.make("batch", "cpu"), self.make("warp", str(self.device))

    def physics(self) -> str:
        from caliper.envs.engines.warp import WarpEngine  # takes seconds to import

        exact, fast = self.both
        actions = 2 * torch.rand(STEPS, NUM_ENVS, exact.action_dim, generator=_generator("cpu")) - 1
        start = time.perf_counter()
        for action in actions.to(self.device):
            fast.step(action)
        fast.check()
        seconds = time.perf_counter() - start
        for action in actions:
            exact.step(action)
        arm = torch.as_tensor(exact.engine.controller.index.qpos)
        error = (fast.engine.qpos.cpu().double() - exact.engine.qpos)[:, arm].abs().max().item()
        if not error < JOINTS:  # written so that NaN fails too
            raise _Difference(f"after {STEPS} steps the joints are {error:.1e} rad from the CPU's")
        if not (isinstance(fast.engine, WarpEngine) and all(g.recorded for g in fast.engine.recordings())):
            raise _Difference("the physics was not recorded as a graph")
        return f"{STEPS} control steps in {seconds:.1f} s, joints within {error:.0e} rad of the CPU's"

    def image(self) -> str:
        exact, fast = self.both
        exact.set_state(fast.get_state().cpu())
        seen, wanted = fast.observe().pixels.cpu().float(), exact.observe().pixels.float()
        error = (seen - wanted).abs().mean().item()
        if not error < PIXELS or seen.min() == seen.max():
            raise _Difference(f"images differ from the CPU's by {error:.1f} of 255 on average")
        return f"{SIZE}x{SIZE}, {error:.2f} of 255 from the CPU's on average"


class _NotRecorded(GraphLearner):
    """Makes a graph's updates, from the same random numbers, one operation after the other."""

    def _capture(self, work: Callable[[], Info]) -> Callable[[], Info]:
        return partial(self._aside, work)


def _update(device: torch.device) -> str:
    kinds: tuple[type[EagerLearner], ...] = (GraphLearner, _NotRecorded)
    if device.type == "cpu":
        kinds = (EagerLearner, EagerLearner)
    reports = [_last_report(kind, device) for kind in kinds]
    for name, value in reports[1].items():
        error = abs(reports[0][name] - value)
        if not error < METRICS * max(1.0, abs(value)):
            raise _Difference(
                f"{name} of an update is {reports[0][name]:.4g}, and {value:.4g} without a graph"
            )
    how = "one by one, as on every CPU" if device.type == "cpu" else "as one graph, and as one by one"
    return f"{WARM_UPS + 2} updates of Cal-QL {how}: critic/loss {reports[0]['critic/loss']:.4g}"


def _last_report(kind: type[EagerLearner], device: torch.device) -> dict[str, float]:
    spec, t = ObsSpec(("agentview",), SIZE, 11), 8
    offline, online = (ReplayBuffer(2 * t, spec, 7, RewardConfig(gamma=0.99), device) for _ in range(2))
    draw = _generator(device)
    for buffer in (offline, online):
        shape = (t + 1, 1, 3, SIZE, SIZE)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=draw)
        obs = Obs(pixels, torch.randn(t + 1, spec.proprio, device=device, generator=draw))
        actions = 2 * torch.rand(t, 7, device=device, generator=draw) - 1
        buffer.add_episode(obs, actions, torch.zeros(t), terminated=False)
    agent = build_agent({"name": "calql", "n_actions": 2}, {"name": "conv_tiny"}, spec, 7, device, 0)
    learner = kind(agent, MixedSampler(offline, online, 0.5), 8, _generator(device))
    for _ in range(WARM_UPS + 2):
        info = learner.update()
    return {name: value.item() for name, value in info.items()}


def _generator(device: torch.device | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def _main(device: str) -> None:
    """Prints each finding as a line of JSON as it comes."""
    for finding in self_test(device):
        print(json.dumps(asdict(finding)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
