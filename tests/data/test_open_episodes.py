import pytest
import torch

from caliper.data.buffer import ReplayBuffer
from caliper.data.open_episodes import OpenEpisodes
from tests.data.conftest import SPEC, CountingEnv, make_buffer, numbers

GOAL = [3, 99, 1, 5]  # success after 3 steps, never, at once, on the very step of the horizon (5)


def roll(env: CountingEnv, open_episodes: OpenEpisodes, sink: ReplayBuffer, steps: int) -> list[int]:
    finished, obs = [], env.observe()
    for _ in range(steps):
        action = (numbers(obs)[:, None].expand(-1, 2) / 1e4).float()
        # The environment overwrites its observation buffer during the step, as a GPU one does.
        before = type(obs)(obs.pixels.clone(), obs.proprio.clone())
        step = env.step(action)
        outcomes = open_episodes.push(before, action, step, sink)
        assert sum(outcomes) == int(step.terminated.sum())
        finished.append(len(outcomes))
        obs = step.obs
    return finished


def start() -> tuple[CountingEnv, OpenEpisodes]:
    env = CountingEnv(GOAL)
    return env, OpenEpisodes(env.num_envs, env.horizon, SPEC, env.action_dim)


def test_only_whole_episodes_arrive_with_their_true_last_frame(generator):
    # cleanrl #460, #545: the next observation of a truncated step was that of the reset.
    env, open_episodes = start()
    sink = make_buffer(capacity=200)
    assert roll(env, open_episodes, sink, 7) == [1, 1, 2, 1, 3, 2, 1]
    # Env 0: two episodes of 3; 1: one of 5; 2: seven of 1; 3: one of 5. The rest is still open.
    assert len(sink) == 6 + 5 + 7 + 5
    batch = sink.sample(3000, generator)
    at = numbers(batch.obs)
    assert torch.equal(numbers(batch.next_obs), at + 1)
    torch.testing.assert_close(batch.action, at[:, None].expand(-1, 2) / 1e4)
    drawn = set(at.tolist())
    assert drawn == {
        1000,
        1001,
        1002,
        1100,
        1101,
        1102,
        *range(2000, 2005),
        *range(3000, 3700, 100),
        *range(4000, 4005),
    }


def test_time_outs_bootstrap_and_successes_end(generator):
    env, open_episodes = start()
    sink = make_buffer(capacity=200)
    roll(env, open_episodes, sink, 5)
    batch = sink.sample(2000, generator)
    at = numbers(batch.obs)
    i = at // 1000 - 1
    last = torch.tensor([2, 4, 0, 4])[i] == at % 100
    assert torch.equal(batch.terminal.bool(), last & (i != 1))
    assert torch.equal(batch.reward, torch.where(last & (i != 1), 10.0, -1.0))
    # CORL stored 0.0 as the return of everything collected online. Never successful: -1 / (1 - .97).
    torch.testing.assert_close(batch.mc_return[i == 1], torch.full_like(batch.mc_return[i == 1], -1 / 0.03))
    # 10; -1 + .97 * 10 = 8.7; -1 + .97 * 8.7 = 7.439
    expected = torch.tensor([7.439, 8.7, 10.0])[at[i == 0] % 100]
    torch.testing.assert_close(batch.mc_return[i == 0], expected)


def test_resume_in_the_middle_of_episodes():
    env, unbroken = start()
    sinks = make_buffer(200), make_buffer(200)
    roll(env, unbroken, sinks[0], 4)
    saved = {name: value.clone() for name, value in unbroken.state_dict().items()}
    assert saved["pixels"].shape[1] == 4
    sinks[1].load_state_dict(sinks[0].state_dict())
    resumed = start()[1]
    resumed.load_state_dict(saved)
    copy = CountingEnv(GOAL)
    copy.steps, copy.shown = env.steps.clone(), env.shown.clone()
    roll(env, unbroken, sinks[0], 6)
    roll(copy, resumed, sinks[1], 6)
    states = sinks[0].state_dict(), sinks[1].state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_env_that_never_ends_is_an_error():
    env, open_episodes = start()
    env.horizon = 10
    with pytest.raises(RuntimeError, match="past its horizon of 5"):
        roll(env, open_episodes, make_buffer(200), 9)


def test_an_episode_that_blew_up_is_forgotten_and_the_next_one_counts(generator):
    env, open_episodes = start()
    sink = make_buffer(capacity=200)
    roll(env, open_episodes, sink, 2)
    before = len(sink)  # env 2's two episodes of one step
    obs = type(env.buffer)(env.buffer.pixels.clone(), env.buffer.proprio.clone())
    # Env 0 blows up in its third step, which would have been its success; env 1 goes on.
    env.goal[0], env.steps[0] = 99, env.horizon - 1
    env.diverged = torch.tensor([True, False, False, False])
    step = env.step(torch.zeros(4, 2))
    assert step.truncated.tolist() == [True, False, False, False]
    assert open_episodes.push(obs, torch.zeros(4, 2), step, sink) == [True]  # env 2's
    assert len(sink) == before + 1
    env.diverged[0], env.goal[0] = False, 3
    assert roll(env, open_episodes, sink, 3) == [1, 3, 2]
    at = set(numbers(sink.sample(3000, generator).obs).tolist())
    assert at == {1100, 1101, 1102, *range(2000, 2005), *range(3000, 3600, 100), *range(4000, 4005)}
