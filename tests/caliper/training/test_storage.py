"""Where recorded frames are: chosen by what is free, refused before it is taken, the same run anywhere."""

import itertools
import json
import resource
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from caliper.config import estimate as estimate_module
from caliper.config.build import make_env, obs_spec
from caliper.config.compose import compose
from caliper.config.estimate import estimate, refuse_too_large, settled
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.errors import CaliperError
from caliper.rollout import stored as stored_module
from caliper.rollout.stored import stored, stored_folder
from caliper.training import data as data_module
from caliper.training.data import find_data, load_data
from caliper.training.run import train
from caliper.types import Obs, ObsSpec
from tests.caliper.training.test_resume import assert_same_run

LAYOUT = frame_layout(ObsSpec(("front",), 64, 3))
FACTS = {"frames": 6, "of": "a test"}


def some(count, first=0):
    """Frames that each tell their number, three at a time."""
    for start in range(first, first + count, 3):
        number = torch.arange(start, min(start + 3, first + count))
        pixels = number[:, None, None, None, None].expand(-1, 1, 3, 64, 64).to(torch.uint8)
        yield Obs(pixels, number[:, None].expand(-1, 3).float())


def contents(frames):
    return frames.gather(torch.tensor([5, 0, 3]))["pixels"][:, 0, 0, 0, 0].tolist()


def test_a_run_from_the_disk_is_the_run_from_memory(configure, finished, tmp_path, monkeypatch, capsys):
    words = ["data.storage=disk", f"data.frames={tmp_path / 'frames'}"]
    config = configure(f"run_dir={tmp_path / 'run'}", "video.episodes=2", "video.size=48", *words)
    train(config)
    assert_same_run(tmp_path / "run", finished)
    (folder,) = (p for p in (tmp_path / "frames").iterdir() if not p.name.startswith("."))
    said = capsys.readouterr().out
    assert "of recorded frames on disk\n" in said and f"read from {folder}\n" in said
    assert {p.name for p in folder.iterdir()} == {"pixels.npy", "proprio.npy", "frames.json"}
    assert json.loads((folder / "frames.json").read_text())["datasets"] == [find_data(config).content]

    def never(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(data_module, "rendered", never)
    load_data(config, find_data(config), None, make_env(config, 2))
    with pytest.raises(AssertionError, match="rendered again"):  # other images are other files
        load_data(
            configure("task.size=18", *words), find_data(config), None, make_env(configure("task.size=18"), 2)
        )


def test_copies_are_stored_in_their_order(configure, tmp_path):
    looks = ["data.copies=2", "data.appearance.light=0.3", f"data.frames={tmp_path}"]
    memory, disk = (
        load_data(config, find_data(config), None, make_env(config, 2)).state_dict()
        for config in (configure(*looks, f"data.storage={storage}") for storage in ("memory", "disk"))
    )
    assert all(torch.equal(column, disk[name]) for name, column in memory.items())


def test_what_is_written_is_read_and_written_once(tmp_path, capsys):
    folder = stored_folder(tmp_path, FACTS)
    assert folder != stored_folder(tmp_path, {**FACTS, "of": "another"})
    first = stored(folder, FACTS, LAYOUT, 6, some(6))
    assert contents(first) == [5, 0, 3]
    assert not first._arrays["pixels"].flags.writeable
    assert contents(stored(folder, FACTS, LAYOUT, 6, itertools.repeat(None))) == [5, 0, 3]
    assert np.load(folder / "proprio.npy")[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_interrupted_write_leaves_nothing_that_looks_whole(tmp_path):
    def interrupted():
        yield from some(3)
        raise KeyboardInterrupt

    folder = stored_folder(tmp_path, FACTS)
    with pytest.raises(KeyboardInterrupt):
        stored(folder, FACTS, LAYOUT, 6, interrupted())
    assert [p.name for p in tmp_path.iterdir()] == [f".{folder.name}.lock"]
    assert contents(stored(folder, FACTS, LAYOUT, 6, some(6))) == [5, 0, 3]


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from caliper.rollout.stored import stored
from tests.caliper.training.test_storage import FACTS, LAYOUT, contents, some

def slow(kill):
    print("rendering", flush=True)
    for obs in some(6):
        yield obs
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)

print(contents(stored(Path(sys.argv[1]), FACTS, LAYOUT, 6, slow(len(sys.argv) > 2))))
"""


def process(*words):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, words)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_write_is_made_anew_and_two_at_once_write_once(tmp_path):
    folder = stored_folder(tmp_path, FACTS)
    killed = process(folder, "kill")
    assert killed.communicate(timeout=60)[0] == "rendering\n" and killed.returncode == -9
    assert not folder.exists() and (tmp_path / f"{folder.name}.partial").is_dir()
    both = [process(folder) for _ in range(2)]
    said = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert all(text.endswith("[5, 0, 3]\n") for text in said)
    assert sum("rendering" in text for text in said) == 1
    assert sum("another process is writing" in text for text in said) <= 1
    assert not (tmp_path / f"{folder.name}.partial").exists()


def test_a_full_disk_is_refused_before_anything_is_rendered(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stored_module.shutil, "disk_usage", lambda _: usage(10, 0, 1 << 10))

    def never():
        raise AssertionError("rendered")
        yield

    with pytest.raises(
        CaliperError, match=r"needs 72 KiB for the frames, and .* has 1 KiB left; .*data\.frames="
    ):
        stored(stored_folder(tmp_path, FACTS), FACTS, LAYOUT, 6, never())
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_too_much_is_refused_before_it_is_taken(configure, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    config = configure(
        "data.copies=4000",
        "data.appearance.light=0.2",
        "data.episodes=100000",
        "task.size=64",
        "data.storage=memory",
        f"run_dir={tmp_path / 'run'}",
    )
    with pytest.raises(
        CaliperError, match=r"this would take about .* data\.storage=disk takes no memory for them"
    ):
        train(config)
    assert not (tmp_path / "run").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_auto_takes_the_fastest_that_fits(monkeypatch):
    def choice(*words, free=1 << 40, card=1 << 40):
        monkeypatch.setattr(estimate_module, "free_memory", lambda: free)
        there = SimpleNamespace(total_memory=card)
        monkeypatch.setattr(estimate_module.torch.cuda, "get_device_properties", lambda device: there)
        return settled(compose(["task=lift", *words])).data.storage

    config = compose(["task=lift", "data.storage=device"])
    whole = sum(part.size for part in estimate(config))
    assert choice() == "device" and choice(free=whole) == "device" and choice(free=whole - 1) == "disk"
    assert choice("data.storage=memory", free=1) == "memory"  # and will be refused
    gpu, learner = "device=cuda", sum(part.size for part in estimate(config) if part.learner)
    assert choice(gpu, card=learner) == "device" and choice(gpu, card=learner - 1) == "memory"
    assert choice(gpu, card=learner - 1, free=whole - learner) == "disk"
    assert choice(gpu, "learner=graph", card=learner - 1) == "device"
    assert choice("obs=state", free=1 << 20) == "device"
    monkeypatch.setattr(estimate_module, "free_memory", lambda: 1 << 40)
    told = refuse_too_large(compose(["task=lift", "data.storage=disk"]))
    images = ReplayBuffer.frame_bytes(200 * (config.recorded_horizon + 1), obs_spec(config))
    assert told.endswith(f"; {images / 2**20:.1f} MiB of recorded frames on disk")


def test_what_a_storage_cannot_do_is_refused(configure, monkeypatch):
    with pytest.raises(CaliperError, match=r"data\.storage=disk is for images, and this policy sees none"):
        check(configure("data.storage=disk", "obs=state", "encoder=state"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(CaliperError, match=r"a CUDA graph draws on the GPU alone; say learner=eager"):
        check(configure("data.storage=disk", "device=cuda", "learner=graph"))
    with pytest.raises(CaliperError, match=r"data\.storage=disc is unknown"):
        check(configure("data.storage=disc"))


MEASURE = """
import sys
from pathlib import Path
import torch
from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.data.returns import RewardConfig
from caliper.rollout.stored import stored
from caliper.types import Obs, ObsSpec

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))

spec, count = ObsSpec(("front", "wrist"), 64, 11), 8000

def episode():
    return Obs(torch.full((100, 2, 3, 64, 64), 7, dtype=torch.uint8), torch.zeros(100, 11))

frames = None
if sys.argv[1] == "disk":
    made = (episode() for _ in range(count // 100))
    frames = stored(Path(sys.argv[2]) / "f", {"frames": count}, frame_layout(spec), count, made)
generator = torch.Generator().manual_seed(0)
action, reward = torch.zeros(99, 4), torch.zeros(99)
warm = ReplayBuffer(100, spec, 4, RewardConfig(gamma=0.9))
warm.add_episode(episode(), action, reward, False)
warm.sample(256, generator)
before = anonymous()
buffer = ReplayBuffer(count, spec, 4, RewardConfig(gamma=0.9), frames=frames)
for _ in range(count // 100):
    buffer.add_episode(None if frames else episode(), action, reward, False)
for _ in range(20):
    buffer.sample(256, generator)
    buffer.expect(256, generator)
print(anonymous() - before, buffer.nbytes, ReplayBuffer.frame_bytes(count, spec))
"""


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_the_estimate_is_what_is_taken(storage, tmp_path):
    command = [sys.executable, "-c", MEASURE, storage, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    taken, whole, frames = map(int, said.splitlines()[-1].split())
    assert frames > 180 << 20
    batches = 3 * 256 * 2 * frames // 8000  # drawn, and the next under way
    if storage == "disk":
        assert taken < whole - frames + batches
    else:
        assert 0.95 * whole < taken < 1.05 * whole + batches
