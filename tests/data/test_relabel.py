"""Prior data: zero raw rewards, ends that are none, and returns that nobody knows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from caliper.data.dataset import Dataset
from caliper.data.relabel import relabelled
from caliper.data.returns import RewardConfig
from caliper.errors import CaliperError
from caliper.rollout.replay import replay
from tests.data.conftest import CountingEnv, make_buffer, make_episode, numbers


def test_by_hand(meta):
    rewarded = replace(make_episode(0, 3), rewards=np.array([0, 1, 0], np.float32))
    dataset = Dataset(meta, [rewarded, make_episode(100, 3, success=True)])
    prior = relabelled(dataset)
    assert dataset.returns and not prior.returns
    cut, ended = prior.episodes
    assert cut.rewards.tolist() == [0, 0, 0] and ended.rewards.tolist() == [0, 0]
    assert not cut.terminated and not ended.terminated and ended.success
    assert cut.states[:, 0].tolist() == [0, 1, 2] and cut.final_state[0] == 3
    assert ended.states[:, 0].tolist() == [100, 101] and ended.final_state[0] == 102
    assert np.array_equal(ended.actions, dataset.episodes[1].actions[:2])
    assert all(e.fault(meta) is None for e in prior.episodes)
    assert rewarded.rewards.tolist() == [0, 1, 0] and dataset.episodes[1].terminated  # left as they were


def test_an_episode_that_is_all_end_is_refused(meta):
    with pytest.raises(CaliperError, match="the prior data: episode 1 ends with its first action"):
        relabelled(Dataset(meta, [make_episode(0, 2), make_episode(9, 1, success=True)]))


def test_the_union_is_drawn_uniformly_over_transitions(meta, generator):
    task = Dataset(meta, [make_episode(1000, 2, success=True), make_episode(2000, 4)])
    prior = relabelled(Dataset(meta, [make_episode(3000, 5), make_episode(4000, 2, success=True)]))
    assert task.num_frames + prior.num_frames == 16
    buffer = make_buffer(16, RewardConfig(gamma=0.5))
    env = CountingEnv([9, 9])
    for part in (task, prior):
        replay(env, part, buffer, progress=False)
    assert len(buffer) == 2 + 4 + 5 + 1
    batch = buffer.sample(12_000, generator)
    first = numbers(batch.obs)
    drawn = {n: int((first == n).sum()) for n in first.unique().tolist()}
    wanted = [1000, 1001, 2000, 2001, 2002, 2003, 3000, 3001, 3002, 3003, 3004, 4000]
    assert sorted(drawn) == wanted and all(850 < count < 1150 for count in drawn.values())
    assert torch.equal(numbers(batch.next_obs), first + 1)
    from_prior = first >= 3000
    assert (batch.reward[from_prior] == -1).all() and not batch.terminal[from_prior].any()
    assert (batch.mc_return[from_prior] == -torch.inf).all()
    # The task's own: -1 + .5 * 10 = 4, 10; and -1 / (1 - .5) = -2 where there was no success.
    known = dict(zip(first.tolist(), batch.mc_return.tolist(), strict=True))
    assert [known[n] for n in wanted[:6]] == [4, 10, -2, -2, -2, -2]


def test_unknown_returns_survive_saving():
    buffer, again = make_buffer(8), make_buffer(8)
    frames = CountingEnv([9] * 4).observe()
    buffer.add_episode(frames, torch.zeros(3, 2), torch.zeros(3), False, returns=False)
    again.load_state_dict(buffer.state_dict())
    assert again.state_dict()["mc_return"].tolist() == [-torch.inf] * 3
