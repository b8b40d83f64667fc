"""What a physics engine offers: n envs of one model, advanced together under the arm's controller."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mujoco
import torch
import warp as wp
from torch import Tensor

from caliper.envs.robot.controller import Controller

POSES = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")


class Engine(ABC):
    """n envs of one MuJoCo model. All tensors are live views of the engine's memory on `device`.

    Between calls the position- and velocity-dependent fields always belong to the current state.

    Attributes:
        qpos, qvel, ctrl, warmstart: (n, nq), (n, nv), (n, nu), (n, nv).
        mocap_pos, mocap_quat: poses of the fixtures, which each episode places anew, (n, m, 3) and (n, m, 4).
        sensordata: what the scene's sensors say, (n, s).
        xpos, xmat: body poses, metres, (n, nbody, 3) and (n, nbody, 3, 3).
        site_xpos, site_xmat: site poses, likewise.
        controller: the batched controller, whose arrays the caller may write.
        limits: names of what may stop short in a physics step that is still sound, see `overflow`.
    """

    model: mujoco.MjModel
    num_envs: int
    device: torch.device
    wp_device: wp.Device
    controller: Controller
    limits: tuple[str, ...] = ()
    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor
    warmstart: Tensor
    mocap_pos: Tensor
    mocap_quat: Tensor
    sensordata: Tensor
    xpos: Tensor
    xmat: Tensor
    site_xpos: Tensor
    site_xmat: Tensor

    @abstractmethod
    def advance(self, substeps: int) -> None:
        """Runs physics steps, each under fresh torques towards the controller's goal."""

    @abstractmethod
    def refresh(self) -> None:
        """Recomputes derived fields after `qpos` or `qvel` were written."""

    @abstractmethod
    def pose(self) -> None:
        """Recomputes poses alone after `qpos` was written: all that an image needs, but no step."""

    @abstractmethod
    def pose_arrays(self) -> dict[str, Tensor]:
        """What a renderer needs: the `POSES`, as (n, count, 3[, 3]).

        Where a scene has boxes whose size is drawn (`caliper.envs.engines.sizes`), also `geom_size`.
        """

    @abstractmethod
    def overflow(self) -> tuple[Tensor, Tensor]:
        """What has gone wrong in the physics since the last call, without waiting for the device.

        Returns:
            Which envs lost contacts or constraints to a full buffer, bool (n,), so that their physics is
            not to be trusted; and which ran into each of `limits`, bool (n, len(limits)).
        """
