import pytest
import torch

from caliper.data.buffer import ReplayBuffer
from caliper.data.returns import RewardConfig
from caliper.errors import CaliperError
from caliper.types import Batch, ObsSpec
from tests.data.conftest import SPEC, add, frames, make_buffer, numbers


def check(batch: Batch) -> torch.Tensor:
    """Every drawn transition is one that was put in; returns the numbers of their first frames."""
    at = numbers(batch.obs)
    assert torch.equal(numbers(batch.next_obs), at + 1)
    torch.testing.assert_close(batch.action, at[:, None].expand(-1, 2) / 1e4)
    assert torch.isfinite(batch.mc_return).all()
    assert torch.isfinite(batch.reward).all()
    return at


def test_draws_every_transition_and_nothing_else(generator):
    buffer = make_buffer()
    add(buffer, 100, 3)
    add(buffer, 300, 4, success=True)
    assert (len(buffer), buffer.num_frames, buffer.num_episodes) == (7, 9, 2)
    at = check(buffer.sample(500, generator))
    # The last frames, 103 and 304, start nothing.
    assert set(at.tolist()) == {100, 101, 102, 300, 301, 302, 303}


def test_rewards_terminals_and_returns(generator):
    buffer = make_buffer(reward=RewardConfig(gamma=0.9))
    add(buffer, 100, 2)
    add(buffer, 200, 3, success=True)
    batch = buffer.sample(300, generator)
    values = torch.stack([batch.reward, batch.terminal, batch.mc_return], 1)
    rows = dict(zip(numbers(batch.obs).tolist(), values, strict=True))
    # A time-out is not terminal; all-negative: -1 / (1 - .9) = -10.
    # Success: 10; -1 + .9 * 10 = 8; -1 + .9 * 8 = 6.2.
    expected = {100: (-1, 0, -10), 101: (-1, 0, -10), 200: (-1, 0, 6.2), 201: (-1, 0, 8), 202: (10, 1, 10)}
    assert rows.keys() == expected.keys()
    for number, row in expected.items():
        torch.testing.assert_close(rows[number], torch.tensor(row).float())


def test_the_numbers_of_all_frames_oldest_first():
    buffer = make_buffer(capacity=10)
    for first, t in ((100, 3), (200, 4), (300, 3)):  # the third takes the room of the first, across the wrap
        add(buffer, first, t)
    assert buffer.proprio()[:, 0].tolist() == [200, 201, 202, 203, 204, 300, 301, 302, 303]


def test_a_full_ring_keeps_the_newest_whole_episodes(generator):
    # A full buffer sampled out of its range in ManiSkill (#728). 23 is no multiple of an episode's frames, so
    # that episodes lie across the wrap.
    buffer, stored = make_buffer(capacity=23), []
    for i in range(40):
        t = 1 + i % 5
        add(buffer, 100 * (i + 1), t, success=i % 2 == 0)
        stored.append(range(100 * (i + 1), 100 * (i + 1) + t))
        while sum(len(r) + 1 for r in stored) > 23:
            stored.pop(0)
        assert set(check(buffer.sample(300, generator)).tolist()) == {n for r in stored for n in r}
        assert len(buffer) == sum(map(len, stored))
        assert buffer.num_frames <= 23
        assert buffer.num_episodes == len(stored)


def test_unfilled_and_evicted_returns_are_nan():
    buffer = make_buffer(capacity=10)
    add(buffer, 100, 6)
    add(buffer, 200, 2)
    stored = buffer._transitions.columns["mc_return"]
    assert int(stored.isfinite().sum()) == len(buffer) == 8
    add(buffer, 300, 3)  # 7 + 3 + 4 frames: the first episode has to go
    assert int(stored.isfinite().sum()) == len(buffer) == 5


def test_sampling_is_uniform_over_transitions(generator):
    buffer = make_buffer()
    add(buffer, 100, 1)
    add(buffer, 200, 9)
    counts = torch.bincount(numbers(buffer.sample(20000, generator).obs))
    counts = counts[counts > 0]
    assert len(counts) == 10
    assert (counts - 2000).abs().max() < 250  # 2000 +- 5.9 standard deviations


def test_same_generator_same_batch():
    buffer = make_buffer()
    add(buffer, 100, 9)
    first, second = (buffer.sample(16, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.obs.pixels, second.obs.pixels)
    # Batches don't share memory with the buffer or with one another.
    first.obs.pixels.zero_()
    assert torch.equal(second.obs.pixels, buffer.sample(16, torch.Generator().manual_seed(3)).obs.pixels)


def test_memory_is_at_most_055_of_two_images_per_transition():
    spec, episodes, t = ObsSpec(("a", "b"), 64, 11), 25, 40
    nbytes = ReplayBuffer.estimate(episodes * (t + 1), spec, 7)
    naive = 2 * (2 * 3 * 64 * 64 + 4 * 11) + 4 * (7 + 3)  # two observations, action, reward, terminal, return
    assert nbytes / (episodes * t) / naive <= 0.55


def test_nbytes_is_what_is_allocated():
    buffer = make_buffer(capacity=37)
    columns = [*buffer._frames.columns.values(), *buffer._transitions.columns.values()]
    assert buffer.nbytes == sum(c.nbytes for c in columns) == ReplayBuffer.estimate(37, SPEC, 2)
    assert buffer._frames.columns["pixels"].dtype == torch.uint8


def test_resume_draws_the_same_and_evicts_the_same():
    buffer, resumed = make_buffer(capacity=23), make_buffer(capacity=23)
    for i in range(9):
        add(buffer, 100 * (i + 1), 4)
    add(resumed, 7000, 5)  # leftovers must vanish
    state = buffer.state_dict()
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    assert state["pixels"].untyped_storage().nbytes() == buffer.num_frames * 96  # only the used part is saved
    resumed.load_state_dict(state)
    for i in range(6):
        batches = [b.sample(64, torch.Generator().manual_seed(i)) for b in (buffer, resumed)]
        assert torch.equal(check(batches[0]), check(batches[1]))
        assert torch.equal(batches[0].mc_return, batches[1].mc_return)
        for b in (buffer, resumed):
            add(b, 1000 + 100 * i, 3 + i % 3)
    assert len(buffer) == len(resumed)


def test_resume_of_an_empty_buffer():
    buffer = make_buffer()
    buffer.load_state_dict(make_buffer().state_dict())
    assert len(buffer) == 0


def test_resume_with_other_shapes_is_refused():
    buffer = make_buffer(capacity=23)
    for i in range(4):
        add(buffer, 100 * (i + 1), 4)
    with pytest.raises(CaliperError, match=r"has 20 frames, this one room for 10"):
        make_buffer(capacity=10).load_state_dict(buffer.state_dict())
    with pytest.raises(CaliperError, match="pixels has shape"):
        ReplayBuffer(23, ObsSpec(("front",), 4, 3), 2, RewardConfig(gamma=0.97)).load_state_dict(
            buffer.state_dict()
        )


def test_refusals(generator):
    buffer = make_buffer(capacity=5)
    with pytest.raises(CaliperError, match="is empty"):
        buffer.sample(4, generator)
    with pytest.raises(CaliperError, match="6 frames does not fit a buffer of 5"):
        add(buffer, 0, 5)
    with pytest.raises(CaliperError, match="at least 2"):
        make_buffer(capacity=1)
    with pytest.raises(CaliperError, match="GiB on cpu"):
        make_buffer(capacity=10**13)
    with pytest.raises(ValueError, match="2 actions need 3 frames"):
        buffer.add_episode(frames(torch.arange(2)), torch.zeros(2, 2), torch.zeros(2), False)


def test_a_draw_that_a_graph_may_hold_is_uniform_over_what_is_stored():
    # 16 rows in a ring that has wrapped: 16,000 draws give each 1,000, with a standard deviation of 31
    buffer = make_buffer(20)
    for first in (0, 100, 200):
        add(buffer, first, 8)
    g = torch.Generator().manual_seed(0)
    drawn = numbers(buffer.sample(16_000, g, captured=True).obs)
    found, counts = drawn.unique(return_counts=True)
    assert found.tolist() == [*range(100, 108), *range(200, 208)]
    assert (counts - 1000).abs().max() < 5 * 31
