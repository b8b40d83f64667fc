"""How Gymnasium's ant walks to a near goal."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEEN = 29  # numbers that the walker sees
REACH = 2.0  # metres, beyond which all goals look equally far
_SPEED = 0.2  # brings speeds (m/s, rad/s) to the size of the rest


def seen(qpos: Array, qvel: Array, goal: Array) -> Array:
    """What the walker sees (n, 29) of ants at `qpos` (n, 15), with `qvel` (n, 14), to go to `goal` (n, 2).

    The way to the goal, height and orientation, hips and ankles, their speeds. All of it is as the task's own
    observation has it, so that a network which clones recorded walks has the same to learn from.
    """
    offset = goal - qpos[:, :2]
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    ahead = offset / np.maximum(distance, 1e-6) * np.minimum(distance, REACH)
    return np.concatenate([ahead, qpos[:, 2:], _SPEED * qvel], 1)


class Walker:
    """The ant's own gait: a policy trained by `benchmarks/distil_ant.py`, which made `ant_walker.npz`."""

    def __init__(self) -> None:
        with as_file(files("caliper.envs.scripts").joinpath("ant_walker.npz")) as path, np.load(path) as file:
            self._layers = [(file[f"w{i}"], file[f"b{i}"]) for i in range(len(file.files) // 2)]

    def act(self, qpos: Array, qvel: Array, goal: Array) -> Array:
        """Controls (n, 8) in [-1, 1] that lead to goals (n, 2), metres."""
        x = seen(qpos, qvel, goal).astype(np.float32)
        for i, (weight, bias) in enumerate(self._layers):
            x = np.maximum(x, 0) if i else x
            x = (weight @ x[..., None])[..., 0] + bias  # ant by ant: bits don't depend on the others
        return np.tanh(x).astype(np.float64)
