"""CPU engine: `mujoco.batch`, float64, a thread pool over envs. The numbers the other engine is held to."""

from __future__ import annotations

from copy import copy
from typing import Any

import mujoco
import torch
import warp as wp
from mujoco.batch import Batch
from torch import Tensor

from caliper.envs.engines.base import POSES, Engine
from caliper.envs.engines.sizes import FIELDS, Sizes, sized
from caliper.envs.robot.control import Control

STAGE_POS, STAGE_VEL = int(mujoco.mjtStage.mjSTAGE_POS), int(mujoco.mjtStage.mjSTAGE_VEL)
_DTYPES = {
    **{k: wp.float64 for k in ("qpos", "qvel", "ctrl", "M", "qfrc_bias", "qacc_warmstart", "sensordata")},
    **{k: wp.vec3d for k in ("mocap_pos", "site_xpos", "xpos", "subtree_com")},
    **{k: wp.vec3d for k in ("geom_xpos", "cam_xpos", "light_xpos", "light_xdir")},
    **{k: wp.mat33d for k in ("site_xmat", "xmat", "geom_xmat", "cam_xmat")},
    "mocap_quat": wp.quatd,
    "cdof": wp.spatial_vectord,
}


class BatchEngine(Engine):
    """Engine on the CPU."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, control: Control, threads: int) -> None:
        """Args: the scene, the number of envs, the control of the robot, threads of the physics pool."""
        self.model, self.num_envs = model, num_envs
        # Left alone, MuJoCo puts an env whose numbers blew up back to its start, amid an episode.
        own = copy(model)
        own.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.device, self.wp_device = torch.device("cpu"), wp.get_device("cpu")
        self._batch = Batch(own, nsim=num_envs, nthread=min(threads, num_envs), persistent=True)
        self._bound = {k: self._batch.bind(k) for k in _DTYPES}  # keeps the memory alive
        arrays = {k: self._view(k) for k in _DTYPES}
        self._tensors: dict[str, Tensor] = {k: wp.to_torch(a) for k, a in arrays.items()}
        for name in ("qpos", "qvel", "ctrl", "xpos", "xmat", "site_xpos", "site_xmat"):
            setattr(self, name, self._tensors[name])
        for name in ("mocap_pos", "mocap_quat", "sensordata"):
            setattr(self, name, self._tensors[name])
        self.warmstart = self._tensors["qacc_warmstart"]
        names = FIELDS if sized(model) else ()
        self._fields = {name: torch.from_numpy(self._batch.expand(name)) for name in names}
        self._sizes = Sizes(model, self._fields)
        self.controller = control.on(model, arrays, self.wp_device)

    def _view(self, name: str) -> wp.array[Any]:
        """A Warp array over a bound MuJoCo field, without a copy."""
        array, dtype = self._bound[name], _DTYPES[name]
        shape = array.shape if dtype is wp.float64 else array.shape[:2]
        strides = array.strides[: len(shape)]  # state fields are columns of one block of rows
        return wp.array(
            ptr=array.ctypes.data, dtype=dtype, shape=shape, strides=strides, device="cpu", copy=False
        )

    def advance(self, substeps: int) -> None:
        """See `Engine`."""
        self.controller.set_goal()
        for _ in range(substeps):
            self.controller.apply()
            self._batch.step(stage=STAGE_VEL)

    def refresh(self) -> None:
        """See `Engine`."""
        self._sizes.fit(self.mocap_pos)
        self._batch.forward(stage=STAGE_VEL)

    def pose(self) -> None:
        """See `Engine`."""
        self._sizes.fit(self.mocap_pos)
        self._batch.forward(stage=STAGE_POS)

    def pose_arrays(self) -> dict[str, Tensor]:
        """See `Engine`."""
        sizes = {k: x for k, x in self._fields.items() if k == "geom_size"}
        return {k: self._tensors[k] for k in POSES} | sizes

    def overflow(self) -> tuple[Tensor, Tensor]:
        """See `Engine`. MuJoCo grows its contact memory, so nothing is ever lost."""
        return torch.zeros(self.num_envs, dtype=torch.bool), torch.zeros((self.num_envs, 0), dtype=torch.bool)
