"""The script of AntMaze: a planner's waypoints through the maze, to which the ant walks.

A stand-in for the one that made the published data: start and goal are anywhere in the maze, the ant follows
the shortest path of cells, and noise on its actions gives data of mixed quality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from caliper.envs.scripts.ant import Array, Walker

SUBSTEPS = 5  # of the physics in a step of Gymnasium's ant
NEAR = 0.45  # metres from which on Gymnasium's goal is reached
STRIP = 1.0  # metres to each side of the line between two cells' middles, within which the ant follows it
JITTER = 0.25  # of a cell's side, from its middle, as Gymnasium places starts and goals
Ints = NDArray[np.int64]
Act = Callable[[Array, Array, Array], Array]  # qpos (n, 15), qvel (n, 14), goal (n, 2): controls (n, 8)


class Maze:
    """Cells, and the way from each to each.

    Attributes:
        cells: rows and columns of the free ones, (c, 2).
        middles: where they are, metres, (c, 2).
        following: the next cell on the shortest way from a cell to another, (c, c).
        starts, goals: the cells in which the task's own episodes start and end, (s,) and (g,).
        side: of a cell, metres.
    """

    def __init__(self, maze: Any) -> None:
        """Args: maze, of gymnasium-robotics."""
        rows = [list(row) for row in maze.maze_map]
        self.side = float(maze.maze_size_scaling)
        free = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell != 1]
        number = {cell: k for k, cell in enumerate(free)}
        self.cells = np.array(free)
        self.middles = np.array([maze.cell_rowcol_to_xy(np.array(cell)) for cell in free])
        self._grid = np.full((len(rows), len(rows[0])), -1)
        self._grid[tuple(self.cells.T)] = np.arange(len(free))
        self._corner = np.array([-maze.x_map_center, maze.y_map_center])
        own = (maze.unique_reset_locations, maze.unique_goal_locations)
        self.starts, self.goals = (self.cell_at(np.array(places)) for places in own)
        sides = ((0, 1), (1, 0), (0, -1), (-1, 0))
        near = [[number[c] for d in sides if (c := (i + d[0], j + d[1])) in number] for i, j in free]
        self.following = np.tile(np.arange(len(free))[:, None], len(free))  # (c, c), of the goal by column
        for goal in range(len(free)):
            ring, reached = [goal], {goal}
            while ring:
                further = [(a, b) for b in ring for a in near[b]]
                ring = []
                for a, b in further:
                    if a not in reached:
                        reached.add(a)
                        self.following[a, goal] = b
                        ring.append(a)

    def cell_at(self, xy: Array) -> Ints:
        """The free cell in which each place (n, 2) lies, (n,)."""
        columns = np.floor((xy[:, 0] - self._corner[0]) / self.side).astype(np.int64)
        rows = np.floor((self._corner[1] - xy[:, 1]) / self.side).astype(np.int64)
        inside: Ints = self._grid[
            np.clip(rows, 0, self._grid.shape[0] - 1), np.clip(columns, 0, self._grid.shape[1] - 1)
        ]
        nearest = np.linalg.norm(xy[:, None] - self.middles, axis=2).argmin(1)
        cell: Ints = np.where(inside < 0, nearest, inside)
        return cell  # a torso above a wall belongs to the cell beside it

    def waypoint(self, xy: Array, goal: Array) -> Array:
        """Where ants at `xy` (n, 2) have to go next for a goal (n, 2), metres; the place alone decides.

        The goal itself in its own cell; else the next cell's middle, and for one who is beside the line that
        leads there the middle of its own cell first. A clone does not see who came from where.
        """
        at, last = self.cell_at(xy), self.cell_at(goal)
        following = self.following[at, last]
        along = self.middles[following] - self.middles[at]  # as long as a cell's side
        offset = xy - self.middles[at]
        across = np.abs(offset[:, 0] * along[:, 1] - offset[:, 1] * along[:, 0]) / self.side
        middle = self.middles[np.where(across < STRIP, following, at)]
        way: Array = np.where((at == last)[:, None], goal, middle)
        return way


def planner(maze: Maze) -> Act:
    """The walker, led through the maze by its waypoints."""
    walker = Walker()
    return lambda qpos, qvel, goal: walker.act(qpos, qvel, maze.waypoint(qpos[:, :2], goal))


def observed(qpos: Array, qvel: Array, goal: Array) -> Array:
    """The task's own observations (n, 31), as `flatten` lays them out: place, goal, and the rest."""
    return np.concatenate([qpos[:, :2], goal, qpos[:, 2:], qvel], 1)


@dataclass(frozen=True, slots=True)
class Walk:
    """An episode: observations float32 (t + 1, 31) as `flatten` lays them out, actions float32 (t, 8).

    Attributes:
        success: whether the last step reached the goal.
    """

    obs: NDArray[np.float32]
    actions: NDArray[np.float32]
    success: bool


def walks(
    model: mujoco.MjModel,
    maze: Maze,
    act: Act,
    seeds: Sequence[int],
    noise: Array,
    horizon: int,
    num_envs: int,
    threads: int,
    fixed: bool = False,
) -> Iterator[Walk]:
    """An episode from each seed, as they end; each draws start, goal and noise from its seed alone.

    Args:
        model: of the maze with its ant.
        maze: its cells.
        act: what leads an ant to its goal, such as `planner`.
        seeds: of the episodes.
        noise: standard deviation of the noise on each episode's actions.
        horizon: steps after which an episode is cut.
        num_envs: ants that walk side by side, each in a world of its own.
        threads: of the physics.
        fixed: from the task's own start to its own goal, instead of between any two places.
    """
    n = min(num_envs, len(seeds))
    worlds = Batch(model, nsim=n, nthread=min(threads, n), persistent=True)
    qpos, qvel, ctrl, warm = (worlds.bind(name) for name in ("qpos", "qvel", "ctrl", "qacc_warmstart"))
    first = model.qpos0.copy()
    goal, shake = np.zeros((n, 2)), np.zeros((n, horizon, 8))
    steps = np.zeros(n, np.int64)
    obs, actions = np.zeros((n, horizon + 1, 31), np.float32), np.zeros((n, horizon, 8), np.float32)
    waiting, live = list(zip(seeds, noise, strict=True)), np.zeros(n, bool)

    def begin(i: int) -> None:
        seed, level = waiting.pop(0)
        rng = np.random.default_rng(seed)
        if fixed:
            start = rng.choice(maze.starts)
            end = rng.choice(maze.goals[maze.goals != start])
        else:
            start, end = rng.choice(len(maze.middles), 2, replace=False)
        places = maze.middles[[start, end]] + rng.uniform(-JITTER, JITTER, (2, 2)) * maze.side
        qpos[i], qvel[i], warm[i] = first, 0, 0
        qpos[i, :2], goal[i] = places
        shake[i] = level * rng.standard_normal((horizon, 8))
        steps[i], live[i] = 0, True
        obs[i, 0] = observed(qpos, qvel, goal)[i]

    for i in range(n):
        begin(i)
    every = np.arange(n)
    while live.any():
        now = np.minimum(steps, horizon - 1)
        action = np.clip(act(qpos, qvel, goal) + shake[every, now], -1, 1).astype(np.float32)
        ctrl[:] = action
        worlds.step(nstep=SUBSTEPS)
        actions[every, now], obs[every, now + 1] = action, observed(qpos, qvel, goal)
        steps += 1
        reached = np.linalg.norm(qpos[:, :2] - goal, axis=1) <= NEAR
        for i in np.flatnonzero(live & (reached | (steps >= horizon))).tolist():
            t = steps[i]
            yield Walk(obs[i, : t + 1].copy(), actions[i, :t].copy(), bool(reached[i]))
            live[i] = False
            if waiting:
                begin(i)
