"""The Gymnasium adapter, by the conventions of Gymnasium's own vector environments."""

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from tests.envs.conftest import make_envs  # noqa: E402  # after the skip


def make(n=2, **kwargs):
    from caliper.envs.gym import GymVectorEnv

    return GymVectorEnv(make_envs("lift", n, **kwargs))


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a | b)


def test_spaces_hold_what_comes_out():
    env = make()
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    assert env.observation_space == gymnasium.vector.utils.batch_space(env.single_observation_space, 2)
    env.action_space.seed(0)
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space and info == {}
    obs, reward, terminated, truncated, infos = env.step(env.action_space.sample())
    assert obs in env.observation_space
    assert reward.dtype == np.float64 and reward.shape == (2,)
    for flag in (terminated, truncated, infos["success"], infos["_success"]):
        assert flag.dtype == np.bool_ and flag.shape == (2,)
    assert "final_obs" not in infos


def test_a_seed_fixes_this_episode_and_the_next():
    env, runs = make(horizon=2), []
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(3)]
    for _ in range(2):
        seen = [env.reset(seed=3)[0]]
        seen += [env.step(action)[0] for action in actions]  # the second step begins a new episode
        runs.append(seen)
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    assert not same(runs[0][0], runs[0][2])
    alone, _ = make(n=1).reset(seed=4)
    assert np.array_equal(alone["proprio"][0], runs[0][0]["proprio"][1])


def test_the_last_observation_is_kept_where_an_episode_ends():
    short, long = make(horizon=2), make()
    short.action_space.seed(0)
    actions = [short.action_space.sample() for _ in range(2)]
    for env in (short, long):
        env.reset(seed=5)
        env.step(actions[0])
    want, *_ = long.step(actions[1])
    obs, _, terminated, truncated, infos = short.step(actions[1])
    assert truncated.all() and not terminated.any()
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    assert infos["final_obs"].dtype == object and infos["final_obs"].shape == (2,)
    for i in range(2):
        assert infos["final_obs"][i] in short.single_observation_space
        assert same(infos["final_obs"][i], {name: want[name][i] for name in want})
    assert not same(obs, want)
    assert infos["final_info"]["_success"].all() and not infos["final_info"]["success"].any()


def test_observations_are_not_overwritten():
    env = make()
    first, _ = env.reset(seed=0)
    kept = {name: value.copy() for name, value in first.items()}
    env.step(np.ones((2, 7), np.float32))
    assert same(first, kept)


def test_a_mask_resets_some_envs():
    env = make()
    env.reset(seed=0)
    before, *_ = env.step(np.ones((2, 7), np.float32))
    after, _ = env.reset(seed=9, options={"reset_mask": np.array([True, False])})
    assert np.array_equal(after["pixels"][1], before["pixels"][1])
    assert not np.array_equal(after["pixels"][0], before["pixels"][0])


def test_gymnasiums_wrappers_take_it():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(make(horizon=2))
    env.reset(seed=0)
    for _ in range(2):
        *_, infos = env.step(np.zeros((2, 7), np.float32))
    assert infos["episode"]["l"].tolist() == [2, 2]
