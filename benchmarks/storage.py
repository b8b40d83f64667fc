"""Updates per second from frames on the disk against frames in memory, in turns in one run.

Cal-QL with encoder `conv` on two 64x64 cameras, batch 256, one thread of torch's; half a million frames would be
no other: a batch draws single frames, at random. The file is larger than the processor's caches by far.

    page cache: the file has been read before, as by another run of a sweep
    cold: its pages are dropped (posix_fadvise, DONTNEED) before each batch is asked for; the disk reads all

Frames are random numbers: what is measured is how they are fetched, and losses do not change how long it takes.

    python benchmarks/storage.py            # writes benchmarks/results/storage.json
    python benchmarks/storage.py --quick    # under 50 s, writes nothing
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch
from _common import arguments, report

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


def cool(folder):
    """Drops a folder's files from the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cached(folder):
    """Share of a folder's pages in the page cache, as the kernel tells (mincore)."""
    import ctypes
    import mmap

    import numpy as np

    libc, found, total = ctypes.CDLL(None, use_errno=True), 0, 0
    for path in folder.glob("*.npy"):
        array = np.memmap(path, np.uint8, "r")
        pages = -(-len(array) // mmap.PAGESIZE)
        told = (ctypes.c_ubyte * pages)()
        if libc.mincore(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(len(array)), told):
            raise OSError(ctypes.get_errno(), "mincore")
        found, total = found + sum(byte & 1 for byte in told), total + pages
    return found / total


def main():
    """Measures and reports."""
    quick = arguments(__doc__.splitlines()[0]).quick
    count, rounds, updates = (4_000, 2, 3) if quick else (80_000, 8, 10)
    torch.set_num_threads(1)
    config = compose(["task=lift", "device=cpu", "threads=1"])
    spec, size = obs_spec(config), config.batch_size
    with tempfile.TemporaryDirectory(dir=".") as place:
        folder = Path(place) / "frames"
        disk = stored(folder, {"frames": count}, frame_layout(spec), count, episodes(count, spec))
        plain, other = buffer(count, spec), buffer(count, spec, disk)
        learners = {}
        for name, offline in {"memory": plain, "page cache": other}.items():
            online = ReplayBuffer(2, spec, ACTIONS, RewardConfig(gamma=0.99))
            sampler = MixedSampler(offline, online, 0.5)
            learners[name] = EagerLearner(make_agent(config, "cpu"), sampler, size, torch.Generator().manual_seed(2))
            learners[name].update()

        def rate(name, cold=False):
            start, away = time.perf_counter(), 0.0
            for _ in range(updates):
                if cold:
                    before = time.perf_counter()
                    cool(folder)
                    away += time.perf_counter() - before
                learners[name].update()
            return updates / (time.perf_counter() - start - away)

        rates = {"memory": [], "page cache": [], "cold": []}
        for i in range(rounds):
            order = ["memory", "page cache"] if i % 2 else ["page cache", "memory"]
            for name in order:
                rates[name].append(rate(name))
        for path in folder.glob("*.npy"):
            with open(path, "rb") as file:  # the whole file, as after another run
                while file.read(1 << 24):
                    pass
        warm = cached(folder)
        cool(folder)
        left = cached(folder)
        for _ in range(rounds):
            rates["cold"].append(rate("page cache", cold=True))

        draws = {}
        for name, one in {"memory": plain, "page cache": other}.items():
            g, seconds = torch.Generator().manual_seed(5), []
            for _ in range(20):
                start = time.perf_counter()
                one._draw(size, g)
                seconds.append(time.perf_counter() - start)
            draws[name] = 1e3 * statistics.median(seconds)
        seconds = []
        for _ in range(20):
            cool(folder)
            start = time.perf_counter()
            other._draw(size, g)
            seconds.append(time.perf_counter() - start)
        draws["cold"] = 1e3 * statistics.median(seconds)
        same = all(
            torch.equal(a, b)
            for a, b in zip(
                *(learner.agent.state_dict().values() for learner in learners.values()), strict=True
            )
        ) if not quick else None
    medians = {name: statistics.median(found) for name, found in rates.items()}
    pairs = [a / b for a, b in zip(rates["page cache"], rates["memory"], strict=True)]
    report(
        "storage",
        medians["page cache"],
        medians["memory"],
        statistics.median(pairs),
        "updates per second",
        ("torch", "numpy"),
        quick,
        meaning="frames on the disk, in the page cache (ours), against frames in memory (peer)",
        cold=medians["cold"],
        cold_ratio=medians["cold"] / medians["memory"],
        rates=rates,
        draw_ms=draws,
        cached_after_reading=warm,
        cached_after_dropping=left,
        file_mib=ReplayBuffer.frame_bytes(count, spec) / 2**20,
        frames=count,
        batch=size,
    )


if __name__ == "__main__":
    main()
