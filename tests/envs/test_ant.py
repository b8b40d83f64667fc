"""The ant of AntMaze: what its walker sees, the way through a maze, and its walks."""

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")

from caliper.config.compose import compose
from caliper.envs.gymnasium_env import GymnasiumEnv
from caliper.envs.scripts.ant import Quarter
from caliper.envs.scripts.ant_maze import Maze, walks


@pytest.fixture(scope="module")
def env():
    task = compose(["task=antmaze"]).task
    return GymnasiumEnv(task.env_id, 1, task.kwargs)


def test_a_goal_to_the_left_is_one_ahead_of_another_leg():
    qpos = np.array(
        [[5.0, 1, 0.6, 1, 0, 0, 0, 0.1, 0.5, 0.2, -0.6, 0.3, -0.7, 0.4, 0.8]]
    )  # hip, ankle by leg
    qvel = np.zeros((1, 14))
    qvel[0, :6] = [-2, 1, 0.5, 0.7, 0.2, 0.1]
    quarter = Quarter.of(qpos, qvel, np.array([[5.0, 4.0]]))
    assert quarter.turns.tolist() == [1]
    seen = quarter.seen[0]
    expected = [
        0.6,
        0,
        0,
        1,
        0.5,
        1,
        2,
        0.2,
        -0.7,
        0.1,
    ]  # height; up; rise, speed ahead and to the left; spin
    np.testing.assert_allclose(seen[:10], expected, atol=1e-12)
    np.testing.assert_allclose(
        seen[10:18], [0.2, 0.3, 0.4, 0.1, 0.6, 0.7, 0.8, 0.5]
    )  # from the second leg on
    np.testing.assert_allclose(seen[26:], [2, 0], atol=1e-12)  # no farther than 2
    motors = quarter.motors(np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]))
    # Gymnasium's order: fourth leg, first, second, third; the first action's pair belongs to the second leg.
    np.testing.assert_allclose(motors[0], [0.3, 0.7, 0.4, 0.8, 0.1, -0.5, 0.2, -0.6])


def test_the_way_through_the_u(env):
    maze = Maze(env.envs[0].maze)
    number = {tuple(cell): i for i, cell in enumerate(maze.cells.tolist())}
    start, goal = number[3, 1], number[1, 1]
    way = [start]
    while way[-1] != goal:
        way.append(int(maze.following[way[-1], goal]))
    assert [maze.cells[i].tolist() for i in way] == [[3, 1], [3, 2], [3, 3], [2, 3], [1, 3], [1, 2], [1, 1]]
    assert maze.middles[start].tolist() == [-4, -4]
    assert maze.cell_at(np.array([[-4.0, -4], [-2.1, -2.1], [0, 0.1]])).tolist()[:2] == [start, start]


def test_a_walk_is_its_seeds_and_gymnasiums(env):
    inner = env.envs[0]
    maze, noise = Maze(inner.maze), np.full(3, 0.2)
    together = list(walks(inner.model, maze, [7, 8, 9], noise, 40, 3, 1))
    alone = next(walks(inner.model, maze, [7], noise[:1], 40, 1, 1))
    assert sum(np.array_equal(alone.obs, walk.obs) for walk in together) == 1
    env.reset(seeds=torch.tensor([0]))
    first = alone.obs[0].astype(np.float64)
    inner.ant_env.set_state(np.concatenate([first[:2], first[4:17]]), first[17:])
    inner.goal = first[2:4]
    for action, expected in zip(alone.actions[:10], alone.obs[1:], strict=False):
        seen = env.step(torch.tensor(action)[None]).final_obs.proprio[0].numpy()
        np.testing.assert_allclose(seen, expected, atol=1e-4)
