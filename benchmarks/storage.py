"""Updates per second from frames on the disk against frames in memory, in turns in one run.

Cal-QL on two 64x64 cameras, batch 256, one thread of torch's, of two sizes: with encoder `conv`, as runs on
a CPU are, and one that computes little (`conv_tiny`, 16 units, 2 sampled actions), of which the drawing of
batches is a larger part.

    page cache: the file has been read before, as by another run of a sweep
    cold: its pages are dropped (posix_fadvise, DONTNEED) before each batch is asked for

Frames are random numbers: what is measured is how they are fetched.

    python benchmarks/storage.py            # writes benchmarks/results/storage.json
    python benchmarks/storage.py --quick    # under 50 s, writes nothing
"""

import ctypes
import mmap
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch
from _common import arguments, report  # type: ignore[import-not-found]  # beside this script

from caliper.config.build import make_agent, obs_spec
from caliper.config.compose import compose
from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.rollout.stored import stored
from caliper.training.update import EagerLearner
from caliper.types import Obs

LENGTH, ACTIONS = 200, 4


def episodes(count, spec):
    """Frames of random numbers, an episode at a time."""
    g = torch.Generator().manual_seed(0)
    (v, c, h, w) = spec.planes["pixels"].shape
    for _ in range(count // LENGTH):
        pixels = torch.randint(0, 256, (LENGTH, v, c, h, w), dtype=torch.uint8, generator=g)
        yield Obs(pixels, torch.randn(LENGTH, spec.proprio, generator=g))


def buffer(count, spec, frames=None):
    """All episodes, in memory or where `frames` are."""
    made = ReplayBuffer(count, spec, ACTIONS, RewardConfig(gamma=0.99), frames=frames)
    g = torch.Generator().manual_seed(1)
    for obs in episodes(count, spec) if frames is None else [None] * (count // LENGTH):
        action = 2 * torch.rand(LENGTH - 1, ACTIONS, generator=g) - 1
        made.add_episode(obs, action, torch.zeros(LENGTH - 1), False)
    return made


def cool(folder, frames):
    """Drops a folder's files from the page cache, and before from this process, or the cache keeps them."""
    for array in frames._arrays.values():
        array._mmap.madvise(mmap.MADV_DONTNEED)
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cached(folder):
    """Share of a folder's pages in the page cache, as the kernel tells (mincore)."""
    libc, found, total = ctypes.CDLL(None, use_errno=True), 0, 0
    for path in folder.glob("*.npy"):
        array = np.memmap(path, np.uint8, "r")
        pages = -(-len(array) // mmap.PAGESIZE)
        told = (ctypes.c_ubyte * pages)()
        if libc.mincore(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(len(array)), told):
            raise OSError(ctypes.get_errno(), "mincore")
        found, total = found + sum(byte & 1 for byte in told), total + pages
    return found / total


SMALL = ["agent.actor_hidden=[16]", "agent.critic_hidden=[16]", "agent.n_critics=2"]
SMALL += ["agent.n_actions=2", "agent.n_target_actions=2", "encoder=conv_tiny"]
AGENTS = {"conv": [], "tiny": SMALL}


def update_rates(words, buffers, rounds, updates, folder, frames):
    """Updates per second by where the frames are, one number a round, memory and page cache in turns.

    Also per second of the processor's time, of all threads, which other load on the machine changes less.
    """
    config = compose(["task=lift", "device=cpu", "threads=1", *words])
    learners = {}
    for name, offline in buffers.items():
        online = ReplayBuffer(2, offline.spec, ACTIONS, RewardConfig(gamma=0.99))
        g = torch.Generator().manual_seed(2)
        sampler = MixedSampler(offline, online, 0.5)
        learners[name] = EagerLearner(make_agent(config, "cpu"), sampler, config.batch_size, g)
        learners[name].update()

    def rate(name, cold=False):
        seconds = work = 0.0
        for _ in range(updates):
            if cold:
                cool(folder, frames)
            start, begun = time.perf_counter(), time.process_time()
            learners[name].update()
            seconds += time.perf_counter() - start
            work += time.process_time() - begun
        return updates / seconds, updates / work

    rates = {"memory": [], "page cache": [], "cold": []}
    for i in range(rounds):
        for name in ("memory", "page cache") if i % 2 else ("page cache", "memory"):
            rates[name].append(rate(name))
    weights = (learner.agent.state_dict().values() for learner in learners.values())
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True)), "not the same batches"
    rates["cold"] = [rate("page cache", cold=True) for _ in range(rounds)]
    return [{name: [pair[i] for pair in found] for name, found in rates.items()} for i in range(2)]


def draw_ms(buffers, b, folder, frames):
    """Milliseconds that a batch takes which nobody has gathered ahead: median and least of 30."""

    def measured(one, cold=False):
        g, found = torch.Generator().manual_seed(5), []
        for _ in range(30):
            if cold:
                cool(folder, frames)
            start = time.perf_counter()
            one._draw(b, g)
            found.append(1e3 * (time.perf_counter() - start))
        return {"median": statistics.median(found), "least": min(found)}

    draws = {name: measured(one) for name, one in buffers.items()}
    return draws | {"cold": measured(buffers["page cache"], cold=True)}


def ratios(rates):
    """Of each agent's updates per second to those from memory, the median over the rounds."""
    return {
        agent: {
            place: statistics.median(a / b for a, b in zip(of[place], of["memory"], strict=True))
            for place in ("page cache", "cold")
        }
        for agent, of in rates.items()
    }


def main():
    """Measures and reports."""
    quick = arguments(__doc__.splitlines()[0]).quick
    count, rounds = (4_000, 2) if quick else (10_000, 5)
    updates = {"conv": 1, "tiny": 5} if quick else {"conv": 1, "tiny": 8}
    torch.set_num_threads(1)
    config = compose(["task=lift"])
    spec = obs_spec(config)
    with tempfile.TemporaryDirectory(dir=".") as place:
        folder = Path(place) / "frames"
        disk = stored(folder, {"frames": count}, frame_layout(spec), count, episodes(count, spec))
        buffers = {"memory": buffer(count, spec), "page cache": buffer(count, spec, disk)}
        warm = cached(folder)  # as it was written, or read by another run
        draws = draw_ms(buffers, config.batch_size, folder, disk)
        cool(folder, disk)
        left = cached(folder)
        for path in folder.glob("*.npy"):
            path.read_bytes()
        measured = {
            name: update_rates(words, buffers, rounds, updates[name], folder, disk)
            for name, words in AGENTS.items()
        }
    rates = {agent: by_clock for agent, (by_clock, _) in measured.items()}
    work = {agent: by_work for agent, (_, by_work) in measured.items()}
    medians = {
        agent: {place: statistics.median(found) for place, found in of.items()} for agent, of in rates.items()
    }
    report(
        "storage",
        medians["tiny"]["page cache"],
        medians["tiny"]["memory"],
        ratios(rates)["tiny"]["page cache"],
        "updates per second",
        ("torch", "numpy"),
        quick,
        meaning="the tiny agent's, frames in a file in the page cache (ours) against memory (peer)",
        ratios=ratios(rates),
        ratios_per_processor_second=ratios(work),
        medians=medians,
        rates=rates,
        draw_ms=draws,
        load=os.getloadavg()[0],
        cached_when_written=warm,
        cached_when_dropped=left,
        file_mib=ReplayBuffer.frame_bytes(count, spec) / 2**20,
        frames=count,
        batch=config.batch_size,
    )


if __name__ == "__main__":
    main()
