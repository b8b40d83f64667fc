"""Envs that only stand as they are put: what a renderer sees of those that another library steps."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.engines.base import POSES


class Puppets:
    """Envs that only stand as they are put: what a renderer sees of those that another library steps."""

    def __init__(self, model: mujoco.MjModel, fixtures: Sequence[str], num_envs: int) -> None:
        """Args: the scene, its bodies whose places are part of a state, and the number of envs n."""
        self.model, self.num_envs, self.device = model, num_envs, torch.device("cpu")
        self._data = mujoco.MjData(model)
        self._fixtures = [model.body(name).id for name in fixtures]
        sizes = {name: getattr(self._data, name).reshape(-1, *_shape(name)).shape for name in POSES}
        self._poses = {name: np.zeros((num_envs, *size)) for name, size in sizes.items()}

    def put(self, i: int, state: NDArray[np.float64]) -> None:
        """Puts env i into a state [time, qpos, qvel, fixtures]."""
        model, data = self.model, self._data
        put(model, data, state, self._fixtures)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        for name, held in self._poses.items():
            held[i] = getattr(data, name).reshape(held.shape[1:])

    def pose_arrays(self) -> dict[str, Tensor]:
        """See `Engine`."""
        return {name: torch.from_numpy(held) for name, held in self._poses.items()}


def put(
    model: mujoco.MjModel, data: mujoco.MjData, state: NDArray[np.float64], fixtures: Sequence[int]
) -> None:
    """Writes a state [time, qpos, qvel, fixtures] where MuJoCo keeps its parts."""
    data.time = state[0]
    data.qpos[:], data.qvel[:], poses = np.split(state[1:], [model.nq, model.nq + model.nv])
    poses = poses.reshape(-1, 7)
    model.body_pos[fixtures], model.body_quat[fixtures] = poses[:, :3], poses[:, 3:]


def _shape(name: str) -> tuple[int, ...]:
    return (3, 3) if name.endswith("mat") else (3,)
