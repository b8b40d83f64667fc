"""What a run takes of the memory: told before it is taken, near what is taken, held to what is free."""

from types import SimpleNamespace

import pytest

from caliper.config import estimate as module
from caliper.config.compose import compose
from caliper.config.estimate import estimate, refuse_too_large, refuse_too_many_runs
from caliper.data.buffer import ReplayBuffer
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from caliper.utils import memory
from caliper.utils.memory import free_memory, in_words


def parts(*words):
    return {part.name: part for part in estimate(compose(["task=lift", *words]))}


def test_buffers_by_hand():
    found = parts("data.episodes=10", "data.horizon=40", "online.capacity=500", "online.num_envs=4")
    spec = ObsSpec(("agentview", "robot0_eye_in_hand"), 64, 11)
    frame = 2 * 3 * 64 * 64 + 11 * 4  # two images, and the robot's own state
    transition = 2 * 8 + 4 * 4 + 3 * 4  # where its frames are; the action; reward, terminal, return
    assert ReplayBuffer.estimate(1, spec, 4) == frame + transition
    assert found["the dataset's images"].size == 10 * 41 * (frame + transition)
    assert found["the online buffer"].size == 500 * (frame + transition)
    assert found["episodes in progress"].size == 4 * 41 * (frame + transition)
    assert parts("data.copies=3")["the dataset's images"].size == 3 * parts()["the dataset's images"].size


def test_a_network_from_a_file_by_hand():
    words = ["encoder=pretrained", "encoder.weights=random", "encoder.size=32"]  # resnet18
    weights, all_layers, largest = 11_176_512, 153_600, 64 * 16 * 16  # see tests/encoders/test_pretrained.py
    kept, seen = parts(*words), parts(*words, "encoder.cached=false")
    assert kept["the frozen network"].size == 4 * (weights + 3 * 64 * largest)  # 64 images at once
    assert seen["the frozen network"].size == 4 * (4 * weights + 3 * 64 * largest)  # actor, critics, targets
    saved = seen["the online buffer"].size - kept["the online buffer"].size
    assert saved == 50_000 * 2 * (3 * 64**2 - 512 * 4)  # of each camera's frame
    tuned = parts(*words, "encoder.frozen=false", f"encoder.sha256={'0' * 64}", "batch_size=8")
    seen = parts(*words, "encoder.cached=false", "batch_size=8")
    assert tuned["an update"].size - seen["an update"].size == 8 * 2 * all_layers * 4  # of two cameras
    assert tuned["the encoders"].size > 5 * 2 * weights * 4 and tuned["the frozen network"].size == 0


def test_what_fits_is_named_and_fits(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 2 << 30)
    words = ["task=lift", "online.capacity=1000000"]
    with pytest.raises(CaliperError, match="the online buffer alone 23") as refused:
        refuse_too_large(compose(words))
    fits = int(str(refused.value).split("at most ")[1].split()[0])
    assert refuse_too_large(compose(["task=lift", f"online.capacity={fits}"])).startswith(
        "memory: about 2.0 GiB"
    )
    with pytest.raises(CaliperError):
        refuse_too_large(compose(["task=lift", f"online.capacity={fits + 10}"]))


def test_what_the_learner_takes_is_held_to_its_gpu(monkeypatch):
    card = SimpleNamespace(total_memory=2 << 30)
    monkeypatch.setattr(module.torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 30)  # here; the buffer needs none of it
    words = ["task=lift", "device=cuda"]
    told = refuse_too_large(compose([*words, "online.capacity=50000"]))
    assert "of 2.0 GiB on cuda; " in told and told.endswith("of 1.0 GiB free here")
    there, here = told.split("; ")
    assert "the online buffer" in there and "the envs" not in there and "the envs" in here
    with pytest.raises(CaliperError, match=r"and 2\.0 GiB is what cuda has: the online buffer alone 23"):
        refuse_too_large(compose([*words, "online.capacity=1000000"]))
    with pytest.raises(CaliperError, match=r"and 1\.0 GiB are free: the envs alone"):
        refuse_too_large(compose([*words, "evaluation.num_envs=5000"]))


def test_runs_side_by_side_must_fit_together(monkeypatch):
    small, large = (compose(["task=lift", f"online.capacity={n}"]) for n in (1000, 20_000))
    one, other = (sum(part.size for part in estimate(config)) for config in (small, large))
    monkeypatch.setattr(module, "free_memory", lambda: 2 * other)
    refuse_too_many_runs([large, small, large], 2, "sweep.jobs")
    monkeypatch.setattr(module, "free_memory", lambda: 2 * other - 1)  # the two large ones may meet
    with pytest.raises(CaliperError, match=r"2 runs at once would take .* are free; give sweep\.jobs=1$"):
        refuse_too_many_runs([large, small, large], 2, "sweep.jobs")
    monkeypatch.setattr(module, "free_memory", lambda: other + one)
    refuse_too_many_runs([small, large], 8, "sweep.jobs")
    monkeypatch.setattr(module, "free_memory", lambda: one)
    with pytest.raises(CaliperError, match="make them smaller"):
        refuse_too_many_runs([small, large], 2, "sweep.jobs")


def test_runs_side_by_side_share_a_gpu(monkeypatch):
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 40)
    config = compose(["task=lift", "device=cuda"])
    size = sum(part.size for part in estimate(config) if part.learner)
    card = SimpleNamespace(total_memory=3 * size)
    monkeypatch.setattr(module.torch.cuda, "get_device_properties", lambda device: card)
    refuse_too_many_runs([config] * 9, 3, "compare.jobs")
    with pytest.raises(CaliperError, match=r"is what cuda:0 has; give compare\.jobs=3$"):
        refuse_too_many_runs([config] * 9, 4, "compare.jobs")
    named = compose(["task=lift", "device=cuda:0"])  # the same card by its number
    with pytest.raises(CaliperError, match=r"is what cuda:0 has; give compare\.jobs=3$"):
        refuse_too_many_runs([config, named] * 2, 4, "compare.jobs")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    limit, used, uses = (tmp_path / name for name in ("max", "current", "stat"))
    limit.write_text("max\n")
    used.write_text("1000\n")
    monkeypatch.setattr(memory, "CGROUPS", ((str(limit), str(used), str(uses)),))
    whole = free_memory()
    assert whole > 1 << 20
    limit.write_text("5000\n")
    assert free_memory() == 4000
    uses.write_text("anon 100\ninactive_file 300\nactive_file 400\nfile_mapped 50\n")
    assert free_memory() == 4700  # what is cached of files makes room
    limit.write_text("300\n")
    assert free_memory() == 0


def test_sizes_in_words():
    assert [in_words(n) for n in (2048, 3 << 20, 5 << 29, 7 << 40)] == [
        "2 KiB",
        "3.0 MiB",
        "2.5 GiB",
        "7.0 TiB",
    ]
