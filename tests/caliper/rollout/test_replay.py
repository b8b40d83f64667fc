import pytest
import torch

from caliper.data.dataset import Dataset
from caliper.envs.scene.appearance import VisualAugmentation
from caliper.errors import CaliperError
from caliper.rollout.replay import replay
from tests.data.conftest import CountingEnv, make_buffer, make_episode, numbers


@pytest.mark.parametrize("num_envs", [1, 2, 3, 4, 64])
def test_every_state_becomes_its_frame(num_envs, meta, generator):
    episodes = [
        make_episode(100, 3),
        make_episode(200, 5, success=True),
        make_episode(300, 1),
        make_episode(400, 2),
    ]
    dataset = Dataset(meta, episodes)
    buffer = make_buffer(capacity=dataset.num_frames)
    replay(CountingEnv([99] * num_envs), dataset, buffer, progress=False)
    stored = buffer.state_dict()
    assert stored["episodes"][:, 1].tolist() == [3, 5, 1, 2]
    expected = [n for e in episodes for n in range(int(e.states[0, 0]), int(e.states[0, 0]) + len(e) + 1)]
    assert stored["proprio"][:, 0].tolist() == expected
    batch = buffer.sample(200, generator)
    at = numbers(batch.obs)
    assert torch.equal(numbers(batch.next_obs), at + 1)
    torch.testing.assert_close(batch.action, at[:, None].expand(-1, 2) / 1e4)
    assert torch.equal(batch.terminal.bool(), at == 204)


@pytest.mark.parametrize("num_envs", [2, 3, 64])
def test_copies_come_after_the_dataset_as_it_is(num_envs, meta):
    dataset = Dataset(meta, [make_episode(100, 3), make_episode(200, 2, success=True)])
    buffer, env = make_buffer(capacity=21), CountingEnv([99] * num_envs)
    replay(env, dataset, buffer, progress=False, augmentation=VisualAugmentation(copies=3, seed=5))
    stored = buffer.state_dict()
    frames = [*range(100, 104), *range(200, 203)]
    assert stored["proprio"][:, 0].tolist() == 3 * frames
    assert stored["terminal"].tolist() == 3 * [0, 0, 0, 0, 1]
    keys = torch.cat([keys for keys in env.appearances if keys is not None]).tolist()
    want = [(5 << 44) + (copy << 32) + episode for copy in (1, 2) for episode in [0] * 4 + [1] * 3]
    assert [key for key in keys if key] == want  # 0 where a batch was not full
    assert env.appearances[-1] is None


def test_the_buffer_must_hold_the_copies(meta):
    buffer = make_buffer(capacity=10)
    with pytest.raises(CaliperError, match="12 frames but the replay buffer has room for 10"):
        replay(
            CountingEnv([99]),
            Dataset(meta, [make_episode(0, 5)]),
            buffer,
            augmentation=VisualAugmentation(copies=2),
        )


def test_shows_a_progress_bar(meta, capsys):
    replay(CountingEnv([99]), Dataset(meta, [make_episode(100, 3)]), make_buffer())
    assert "4/4" in capsys.readouterr().err


def test_a_buffer_without_room_is_refused(meta):
    buffer = make_buffer(capacity=10)
    with pytest.raises(CaliperError, match="12 frames but the replay buffer has room for 10"):
        replay(CountingEnv([99]), Dataset(meta, [make_episode(0, 5), make_episode(50, 5)]), buffer)
    assert len(buffer) == 0


def test_other_observations_are_refused(meta):
    env = CountingEnv([99])
    env.spec = type(env.spec)(("front",), 4, 3)
    with pytest.raises(CaliperError, match="but the replay buffer holds"):
        replay(env, Dataset(meta, [make_episode(0, 5)]), make_buffer())
