import pytest
import torch

from caliper.data.buffer import ReplayBuffer
from caliper.data.chunks import chunked
from caliper.data.returns import RewardConfig
from caliper.errors import CaliperError
from tests.data.conftest import SPEC, frames, numbers

ACTIONS = torch.tensor([[1.0], [2.0], [3.0]])
REWARDS = torch.tensor([-1.0, -1.0, 10.0])


def test_chunks_of_a_solved_episode_go_on_to_its_end():
    # h = 2, gamma = 0.5: -1 - 0.5, -1 + 0.5 * 10, and 10 alone, whose second action nobody executes
    rows = chunked(ACTIONS, REWARDS, True, 2, 0.5)
    assert rows["action"].tolist() == [[1, 2], [2, 3], [3, 3]]
    assert rows["reward"].tolist() == [-1.5, 4.0, 10.0]
    assert rows["terminal"].tolist() == [0, 1, 1]
    assert rows["span"].tolist() == [2, 2, 1]


def test_chunks_of_an_episode_cut_off_are_whole():
    rows = chunked(ACTIONS, -torch.ones(3), False, 2, 0.5)
    assert rows["action"].tolist() == [[1, 2], [2, 3]]
    assert rows["reward"].tolist() == [-1.5, -1.5]
    assert rows["terminal"].tolist() == [0, 0]
    assert rows["span"].tolist() == [2, 2]
    with pytest.raises(CaliperError, match="3 steps holds no chunk of 4"):
        chunked(ACTIONS, REWARDS, False, 4, 0.5)


@pytest.mark.parametrize("terminated", [True, False])
def test_a_chunk_of_one_is_the_transition_itself(terminated):
    rows = chunked(ACTIONS, REWARDS, terminated, 1, 0.9)
    assert torch.equal(rows["action"], ACTIONS) and torch.equal(rows["reward"], REWARDS)
    assert rows["terminal"].tolist() == [0, 0, float(terminated)] and rows["span"].tolist() == [1, 1, 1]


def test_a_buffer_of_chunks_gives_the_frame_after_the_chunk(generator):
    """Through eviction and resume too; frame numbers tell which observation is which."""
    reward = RewardConfig(scale=11.0, bias=-1.0, gamma=0.5)
    buffer = ReplayBuffer(23, SPEC, 1, reward, chunk=3)
    resumed = ReplayBuffer(23, SPEC, 1, reward, chunk=3)
    for i in range(8):
        t, terminated = 4 + i % 3, i % 2 == 0
        raw = torch.zeros(t)
        raw[-1] = float(terminated)
        at = 100 * (i + 1) + torch.arange(t + 1)
        buffer.add_episode(frames(at), at[:t, None] / 1e4, raw, terminated)
    resumed.load_state_dict(buffer.state_dict())
    first, second = (b.sample(500, torch.Generator().manual_seed(1)) for b in (buffer, resumed))
    for batch in (first, second):
        start, after = numbers(batch.obs), numbers(batch.next_obs)
        i = start // 100 - 1
        t, terminated = 4 + i % 3, i % 2 == 0
        last = 100 * (i + 1) + t
        assert torch.equal(after, torch.minimum(start + 3, last))
        assert bool((terminated | (start + 3 <= last)).all())
        assert torch.equal(batch.terminal.bool(), terminated & (start + 3 >= last))
        taken = torch.minimum(start[:, None] + torch.arange(3), last[:, None] - 1)
        torch.testing.assert_close(batch.action, taken / 1e4)
    assert torch.equal(numbers(first.obs), numbers(second.obs))
    assert set((numbers(first.obs) // 100).tolist()) == {6, 7, 8}  # frames 7 + 5 + 6; the older ones left
