"""The ant of AntMaze: what its walker sees, the way through a maze, and its walks."""

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")

from caliper.config.compose import compose
from caliper.envs.gymnasium_env import GymnasiumEnv
from caliper.envs.scripts.ant import seen
from caliper.envs.scripts.ant_maze import Maze, planner, walks


@pytest.fixture(scope="module")
def env():
    task = compose(["task=antmaze"]).task
    return GymnasiumEnv(task.env_id, 1, task.kwargs)


def test_the_walker_sees_the_way_no_farther_than_two_metres():
    qpos = np.arange(30, dtype=float).reshape(2, 15)
    qvel = np.arange(28, dtype=float).reshape(2, 14)
    goal = qpos[:, :2] + [[3.0, 4.0], [0.6, -0.8]]
    found = seen(qpos, qvel, goal)
    np.testing.assert_allclose(found[:, :2], [[1.2, 1.6], [0.6, -0.8]])
    np.testing.assert_array_equal(found[:, 2:15], qpos[:, 2:])
    np.testing.assert_allclose(found[:, 15:], qvel / 5)
    assert seen(qpos, qvel, qpos[:, :2])[:, :2].tolist() == [[0, 0], [0, 0]]  # where it is already


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
    assert (maze.starts.tolist(), maze.goals.tolist()) == ([start], [goal])


def test_the_place_alone_decides_where_to_go_next(env):
    maze = Maze(env.envs[0].maze)  # a U: along the lower corridor to the right, up, and back to the left
    goal = np.array([-4.3, 4.2])
    expected = {
        (-4.0, -4.9): (0, -4),  # in the first cell, on the line to the second
        (-4.0, -5.1): (-4, -4),  # beside it
        (2.5, -4.0): (4, -4),  # in the corner's cell, not yet below the next
        (3.1, -4.0): (4, 0),
        (4.9, 1.0): (4, 4),
        (-3.0, 3.0): (-4.3, 4.2),  # in the goal's own cell
    }
    places = np.array(list(expected))
    found = maze.waypoint(places, np.repeat(goal[None], len(places), 0))
    np.testing.assert_allclose(found, list(expected.values()))


def test_a_walk_is_its_seeds_and_gymnasiums(env):
    inner = env.envs[0]
    maze, noise = Maze(inner.maze), np.full(3, 0.2)
    together = list(walks(inner.model, maze, planner(maze), [7, 8, 9], noise, 40, 3, 1))
    alone = next(walks(inner.model, maze, planner(maze), [7], noise[:1], 40, 1, 1))
    assert sum(np.array_equal(alone.obs, walk.obs) for walk in together) == 1
    env.reset(seeds=torch.tensor([0]))
    first = alone.obs[0].astype(np.float64)
    inner.ant_env.set_state(np.concatenate([first[:2], first[4:17]]), first[17:])
    inner.goal = first[2:4]
    for action, expected in zip(alone.actions[:10], alone.obs[1:], strict=False):
        seen = env.step(torch.tensor(action)[None]).final_obs.proprio[0].numpy()
        np.testing.assert_allclose(seen, expected, atol=1e-4)
