"""Frames on the disk or in the host's memory give the batches that frames in memory give, ahead of time."""

import numpy as np
import pytest
import torch

from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.data.mixing import MixedSampler
from caliper.data.returns import RewardConfig
from caliper.data.ring import Ring
from caliper.data.stored_frames import StoredFrames
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from tests.data.conftest import SPEC, add, frames, make_buffer

LENGTHS = (5, 9, 3)
COUNT = sum(LENGTHS) + len(LENGTHS)
NUMBERS = torch.cat([torch.arange(100 * i, 100 * i + t + 1) for i, t in enumerate(LENGTHS)])


def write(folder):
    folder.mkdir()
    for name, rows in frames(NUMBERS).tensors.items():
        np.save(folder / f"{name}.npy", rows.numpy())


def filled(elsewhere=None, spec=SPEC):
    buffer = ReplayBuffer(COUNT, spec, 2, RewardConfig(gamma=0.97), frames=elsewhere)
    for i, t in enumerate(LENGTHS):
        if isinstance(elsewhere, StoredFrames):
            number = torch.arange(100 * i, 100 * i + t)
            rewards = torch.zeros(t)
            rewards[-1] = float(i == 1)
            buffer.add_episode(None, number[:, None].expand(-1, 2) / 1e4, rewards, i == 1)
        else:
            add(buffer, 100 * i, t, success=i == 1)
    return buffer


def everything(batch):
    tensors = {f"obs {k}": v for k, v in batch.obs.tensors.items()}
    tensors |= {f"next {k}": v for k, v in batch.next_obs.tensors.items()}
    return tensors | {k: getattr(batch, k) for k in ("action", "reward", "terminal", "mc_return")}


def same(one, other):
    one, other = everything(one), everything(other)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def elsewhere(tmp_path, request):
    if request.param == "memory":
        return lambda spec: Ring(COUNT, frame_layout(spec), torch.device("cpu"))
    write(tmp_path / "frames")
    return lambda spec: StoredFrames(tmp_path / "frames", frame_layout(spec), COUNT)


@pytest.mark.parametrize("elsewhere", ["memory", "disk"], indirect=True)
def test_columns_that_are_not_asked_for_are_left_alone(elsewhere):
    frames = elsewhere(SPEC)
    filled(frames)
    slot = torch.tensor([6, 0, 6])
    alone = frames.gather(slot, ["proprio"])
    assert alone.keys() == {"proprio"}  # and no image was copied: a dataset of them can be larger than memory
    assert torch.equal(alone["proprio"], frames.gather(slot)["proprio"])
    assert alone["proprio"][:, 0].tolist() == [100, 0, 100]  # first frames of the episodes


@pytest.mark.parametrize("elsewhere", ["memory", "disk"], indirect=True)
@pytest.mark.parametrize("stack", [1, 3])
def test_batches_are_bit_equal_with_online_data_between(elsewhere, stack):
    spec = ObsSpec(SPEC.cameras, SPEC.size, SPEC.proprio, stack=stack)
    plain, other = filled(spec=spec), filled(elsewhere(spec), spec)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in plain.state_dict().items())
    samplers = []
    for offline in (plain, other):
        online = ReplayBuffer(60, spec, 2, RewardConfig(gamma=0.97))
        samplers.append((MixedSampler(offline, online, 0.5), torch.Generator().manual_seed(3)))
    hits = 0
    for i in range(40):
        if i % 7 == 6:  # what comes in between changes how a batch is split, and at times the generator
            for sampler, generator in samplers:
                add(sampler.online, 1000 * i, 4)
                torch.rand(i % 2, generator=generator)
        expected = other._ahead._expected
        hits += expected is not None and torch.equal(expected.state, samplers[1][1].get_state())
        one, two = (sampler.sample(16, generator) for sampler, generator in samplers)
        assert same(one, two)
        assert torch.equal(samplers[0][1].get_state(), samplers[1][1].get_state())
    assert hits >= 30  # most were gathered ahead


def test_an_episode_that_comes_in_is_drawn_at_once(tmp_path):
    write(tmp_path / "frames")
    buffer = ReplayBuffer(
        COUNT,
        SPEC,
        2,
        RewardConfig(gamma=0.97),
        frames=StoredFrames(tmp_path / "frames", frame_layout(SPEC), COUNT),
    )
    generator, twin = (torch.Generator().manual_seed(0) for _ in range(2))
    buffer.add_episode(None, torch.zeros(5, 2), torch.zeros(5), False)
    buffer.expect(64, generator)
    buffer.add_episode(None, torch.ones(9, 2), torch.zeros(9), False)
    drawn = buffer.sample(64, generator)
    assert (drawn.action == 1).any()
    assert torch.equal(drawn.action, buffer._draw(64, twin).action)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b""),
        lambda file: np.save(file, np.zeros((COUNT, 3), np.uint8)),
        lambda file: np.save(file, np.array([{"an": "object"}]), allow_pickle=True),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage):
    write(tmp_path / "frames")
    damage(tmp_path / "frames" / "pixels.npy")
    with pytest.raises(CaliperError, match=r"pixels\.npy are .*; delete .*frames, and the next run"):
        StoredFrames(tmp_path / "frames", frame_layout(SPEC), COUNT)


def test_memory_is_drawn_without_a_thread():
    assert make_buffer()._ahead is None
