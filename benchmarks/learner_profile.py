"""Where an update's time goes on a CPU, operation by operation, and what share of the peak each gets.

Cal-QL as `preset=pick_place_tray_demo` has it: two 64x64 cameras, `conv`, batch 64, bfloat16; half of the
batch is online. On one thread every operation below autograd is timed by its CPU seconds (neighbours hardly
move these) and its multiplications and additions are counted; the peak is what the machine itself gets out of
a product of large square matrices. On the clock the whole update is timed on every core, in float32 too.

    python benchmarks/learner_profile.py            # full, writes benchmarks/results/learner_profile.json
    python benchmarks/learner_profile.py --quick    # under 50 s, writes nothing
"""

import os
import statistics
import time
from collections import defaultdict

import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from caliper.config.build import make_agent, obs_spec
from caliper.config.compose import compose
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.machine import cores
from caliper.training.update import EagerLearner
from caliper.types import Obs
from caliper.utils.memory import keep_freed_memory

PRESET, EPISODE, EPISODES, SIDE = "pick_place_tray_demo", 38, 40, 2048
KINDS = {  # operations by what they are for; the rest is "everything else"
    "convolutions": ("convolution",),
    "convolutions, backward": ("convolution_backward",),
    "products": ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv"),
    "casts and copies": ("_to_copy", "copy_", "clone", "cat", "stack"),
    "shift of the images": ("gather",),
    "Adam and the targets": ("_fused_adam_", "_foreach_lerp_"),
}


class Timed(TorchDispatchMode):
    """CPU seconds, calls and floating-point operations of every operation, by name."""

    def __init__(self):
        super().__init__()
        self.seconds, self.calls, self.flops = defaultdict(float), defaultdict(int), defaultdict(int)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.process_time()
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.seconds[name] += time.process_time() - start
        self.calls[name] += 1
        if count := flop_registry.get(func.overloadpacket):
            self.flops[name] += count(*args, **(kwargs or {}), out_val=out)
        return out


def make_learner(precision):
    """The preset's learner, on episodes of noise: what is in the images costs nothing."""
    config = compose([f"preset={PRESET}", f"agent.precision={precision}"])
    agent = make_agent(config, "cpu")
    agent.go_online()
    spec = obs_spec(config)
    buffers = [
        ReplayBuffer(EPISODES * (EPISODE + 1), spec, agent.action_dim, RewardConfig(gamma=0.99))
        for _ in range(2)
    ]
    for buffer in buffers:
        for _ in range(EPISODES):
            shape = (EPISODE + 1, len(spec.cameras), 3, spec.size, spec.size)
            pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
            obs = Obs(pixels, torch.randn(EPISODE + 1, spec.proprio))
            actions = 2 * torch.rand(EPISODE, agent.action_dim) - 1
            buffer.add_episode(obs, actions, torch.zeros(EPISODE), terminated=False)
    agent.updates = config.agent["actor_start"]  # past the updates that only clone
    return EagerLearner(
        agent, MixedSampler(*buffers, 0.5), config.batch_size, torch.Generator().manual_seed(0)
    )


def median(function, clock, times):
    taken = []
    for _ in range(times):
        start = clock()
        function()
        taken.append(clock() - start)
    return statistics.median(taken)


def peak(dtype):
    """GFLOP per CPU second of a large product, on one thread."""
    a, b = torch.randn(SIDE, SIDE, dtype=dtype), torch.randn(SIDE, SIDE, dtype=dtype)
    return 2e-9 * SIDE**3 / median(lambda: a @ b, time.process_time, 5)


def profile(learner, updates):
    """Rows by kind of operation: milliseconds of CPU, GFLOP and calls of an update."""
    rounds = []
    for _ in range(updates):
        with Timed() as timed:
            learner.update()
        rounds.append(timed)
    names = {name for timed in rounds for name in timed.seconds}
    kind_of = {name: kind for kind, members in KINDS.items() for name in members}
    rows = defaultdict(lambda: {"ms": 0.0, "gflop": 0.0, "calls": 0})
    for name in names:
        row = rows[kind_of.get(name, "everything else")]
        row["ms"] += 1e3 * statistics.median(timed.seconds[name] for timed in rounds)
        row["gflop"] += 1e-9 * rounds[-1].flops[name]
        row["calls"] += rounds[-1].calls[name]
    return rows


def main():
    args = arguments(__doc__.splitlines()[0])
    keep_freed_memory()
    updates = 10 if args.quick else 60
    torch.set_num_threads(1)
    learners = {precision: make_learner(precision) for precision in ("bfloat16", "float32")}
    for learner in learners.values():
        for _ in range(5):
            learner.update()
    best = {name: peak(getattr(torch, name)) for name in learners}
    cpu = {name: 1e3 * median(x.update, time.process_time, updates) for name, x in learners.items()}
    rows = profile(learners["bfloat16"], updates)
    rows["between operations"] = {
        "ms": cpu["bfloat16"] - sum(row["ms"] for row in rows.values()),
        "gflop": 0.0,
        "calls": 0,
    }
    print(f"{'':26}{'CPU ms':>8}{'GFLOP':>8}{'of peak':>9}{'calls':>7}")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["ms"]):
        share = row["gflop"] / (1e-3 * row["ms"]) / best["bfloat16"] if row["ms"] > 0 else 0.0
        row |= {"ms": round(row["ms"], 2), "gflop": round(row["gflop"], 3), "share_of_peak": round(share, 3)}
        print(f"{name:26}{row['ms']:8.2f}{row['gflop']:8.3f}{share:9.1%}{row['calls']:7}")
    gflop = sum(row["gflop"] for row in rows.values())
    torch.set_num_threads(cores())
    clock = {name: [] for name in learners}
    for _ in range(updates):  # in turns
        for name, learner in learners.items():
            clock[name].append(1e3 * median(learner.update, time.perf_counter, 1))
    report(
        "learner_profile",
        ours=round(cpu["bfloat16"], 1),
        peer=round(1e3 * gflop / best["bfloat16"], 1),
        ratio=round(cpu["bfloat16"] * best["bfloat16"] / gflop / 1e3, 2),
        unit="CPU milliseconds per update, one thread; beside it its products and convolutions at the peak",
        packages=("torch",),
        quick=args.quick,
        peak_gflops={name: round(value, 1) for name, value in best.items()},
        gflop=round(gflop, 2),
        cpu_ms={name: round(value, 1) for name, value in cpu.items()},
        clock_ms={f"{name}, {cores} threads": round(statistics.median(x), 1) for name, x in clock.items()},
        operations=rows,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
