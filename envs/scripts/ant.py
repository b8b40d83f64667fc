"""How Gymnasium's ant walks to a near goal: what its walker sees and does.

The ant looks the same after each quarter turn. So the walker is asked only for goals ahead, within 45
degrees: `Quarter` turns the ant's numbers by quarters until the goal lies there, and its actions back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SEEN = 28  # numbers that the walker sees
_ANKLE_SIGN = np.array(
    [1.0, -1.0, -1.0, 1.0]
)  # an ankle's axis points the other way on the second and third leg
_MOTORS = np.array([6, 7, 0, 1, 2, 3, 4, 5])  # Gymnasium's motors begin with the fourth leg
REACH = 2.0  # metres, beyond which all goals look equally far


@dataclass(frozen=True, slots=True)
class Quarter:
    """n ants as seen by the walker.

    Attributes:
        seen: (n, 28): height, which way is up, velocity, spin, hips and ankles, their speeds, the goal.
        turns: quarter turns of each ant, (n,).
    """

    seen: Array
    turns: NDArray[np.int64]

    @staticmethod
    def of(qpos: Array, qvel: Array, goal: Array) -> Quarter:
        """Ants at `qpos` (n, 15) with `qvel` (n, 14), to go to `goal` (n, 2), metres."""
        w, x, y, z = qpos[:, 3:7].T
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        up = np.stack(
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1
        )  # in the ant's frame
        offset = goal - qpos[:, :2]
        angle = np.arctan2(offset[:, 1], offset[:, 0]) - yaw
        turns = np.round(angle / (math.pi / 2)).astype(np.int64)
        quarter = turns * (math.pi / 2)
        distance = np.linalg.norm(offset, axis=1, keepdims=True)
        ahead = _turned(offset, yaw + quarter) / np.maximum(distance, 1e-6) * np.minimum(distance, REACH)
        flat = np.concatenate([up[:, 2:], qvel[:, 2:3]], 1)
        legs = (np.arange(4) + turns[:, None]) % 4  # (n, 4), the ant's own number of each leg
        hips = [np.take_along_axis(v.reshape(-1, 4, 2)[..., 0], legs, 1) for v in (qpos[:, 7:], qvel[:, 6:])]
        ankles = [
            np.take_along_axis(v.reshape(-1, 4, 2)[..., 1] * _ANKLE_SIGN, legs, 1)
            for v in (qpos[:, 7:], qvel[:, 6:])
        ]
        seen = [
            qpos[:, 2:3],
            _turned(up[:, :2], quarter),
            flat,
            _turned(qvel[:, :2], yaw + quarter),
            _turned(qvel[:, 3:5], quarter),
            qvel[:, 5:6],
            hips[0],
            ankles[0],
            0.1 * hips[1],
            0.1 * ankles[1],
            ahead,
        ]
        return Quarter(np.concatenate(seen, 1), turns)

    def motors(self, action: Array) -> Array:
        """Controls (n, 8) in Gymnasium's order, of the walker's action (n, 8): hips, then ankles."""
        legs = (np.arange(4) - self.turns[:, None]) % 4
        hips = np.take_along_axis(action[:, :4], legs, 1)
        ankles = np.take_along_axis(action[:, 4:], legs, 1) * _ANKLE_SIGN
        return np.stack([hips, ankles], -1).reshape(-1, 8)[:, _MOTORS]


class Walker:
    """The ant's own gait: a policy trained by `benchmarks/train_ant.py`, which made `ant_walker.npz`."""

    def __init__(self) -> None:
        with as_file(files("caliper.envs.scripts").joinpath("ant_walker.npz")) as path, np.load(path) as file:
            self._layers = [(file[f"w{i}"], file[f"b{i}"]) for i in range(len(file.files) // 2)]

    def act(self, qpos: Array, qvel: Array, goal: Array, noise: Array) -> Array:
        """Controls (n, 8) in [-1, 1] that lead to goals (n, 2), metres, with `noise` (n, 8) added."""
        quarter = Quarter.of(qpos, qvel, goal)
        x = quarter.seen.astype(np.float32)
        for i, (weight, bias) in enumerate(self._layers):
            x = np.maximum(x, 0) if i else x
            x = (weight @ x[..., None])[..., 0] + bias  # ant by ant: bits don't depend on the others
        return np.clip(quarter.motors(np.tanh(x).astype(np.float64)) + noise, -1, 1)


def _turned(vectors: Array, angle: Array) -> Array:
    """Vectors (n, 2) in a frame that is turned by `angle` (n,)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * vectors[:, 0] + s * vectors[:, 1], c * vectors[:, 1] - s * vectors[:, 0]], 1)
