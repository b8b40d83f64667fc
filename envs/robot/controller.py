"""robosuite's operational-space controller (Khatib 1987), batched over envs, and what all controllers share.

For end-effector pose error e and twist v, with Jacobian J and joint-space inertia M of the arm:

    torque = J^T [ Lp (kp e_p - kd v_p) ; Lo (kp e_o - kd v_o) ] + bias + N^T M (kn (q0 - q) - 2 sqrt(kn) q')
    L = (J M^-1 J^T)^-1,  Lp and Lo the inverses of its 3x3 blocks' inverses,  N = 1 - M^-1 J^T L J

The goal is the pose achieved when the action arrives plus the action's offset, or the pose that the action
says, in the frame of the robot's base, and is held for the control step. The same kernels run in float64 on
MuJoCo's arrays and in float32 on MuJoCo Warp's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
import warp as wp
from torch import Tensor

from caliper.envs.robot.kernels import POSITION_RANGE, POSITION_SCALE, ROTATION_RANGE, ROTATION_SCALE, kernels
from caliper.envs.robot.robots import Robot

# Envs to a block of a GPU's threads. The torques' matrices fill every register that a thread can have, so a
# multiprocessor holds few of them: small blocks spread 1024 envs over 32 multiprocessors, not over 4.
BLOCK = 32
Arrays = dict[str, wp.array[Any]]


@dataclass(frozen=True)
class ArmIndex:
    """Where a robot's joints, sites and motors are in a model's arrays."""

    qpos: np.ndarray  # (j,)
    dof: np.ndarray  # (j,)
    motors: np.ndarray  # (j,)
    fingers: np.ndarray  # (g,) actuators
    finger_qpos: np.ndarray  # (f,)
    finger_half: np.ndarray  # (f,) half of the fingers' ranges, m or rad
    inertia: np.ndarray  # (j, j) addresses of the arm's entries in MuJoCo's sparse inertia
    grip_site: int
    base_site: int
    root: int

    @staticmethod
    def of(model: mujoco.MjModel, robot: Robot) -> ArmIndex:
        """Looks a robot's names up in a compiled scene."""
        joints = [model.joint(name).id for name in robot.joints]
        fingers = [model.joint(name).id for name in robot.fingers]
        dof = model.jnt_dofadr[joints]
        inertia = np.zeros((len(dof), len(dof)), np.int32)
        for i in range(len(dof)):
            for j in range(i + 1):
                start = model.M_rowadr[dof[i]]
                row = model.M_colind[start : start + model.M_rownnz[dof[i]]].tolist()
                inertia[i, j] = inertia[j, i] = start + row.index(dof[j])
        site = model.site(robot.grip_site).id
        return ArmIndex(
            qpos=model.jnt_qposadr[joints],
            dof=dof,
            motors=np.array([model.actuator(name).id for name in robot.motors]),
            fingers=np.array([model.actuator(name).id for name in robot.gripper]),
            finger_qpos=model.jnt_qposadr[fingers],
            finger_half=np.ptp(model.jnt_range[fingers], axis=1) / 2,
            inertia=inertia,
            grip_site=site,
            base_site=model.site(robot.base_site).id,
            root=int(model.body_rootid[model.site_bodyid[site]]),
        )


class Controller:
    """The controller of an arm and its gripper: two launches over an engine's arrays, no host copy between.

    Attributes:
        action: what `set_goal` reads, (n, a): the arm's entries, then the gripper's.
        closing: commanded positions of the gripper's motors, -1 to 1 each, (n, g).
        memory: what it remembers from one control step to the next, each (n, k), by name; all views.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: Robot,
        arrays: Arrays,
        freq: float,
        device: wp.Device,
        entries: int,
    ) -> None:
        """Takes the engine's live arrays by MuJoCo's field names; vectors and matrices as Warp's types.

        Args:
            model: the scene.
            robot: which of its robots.
            arrays: of the engine.
            freq: control steps per second.
            device: of the arrays.
            entries: of an action that are the arm's.
        """
        self.index, self.device = ArmIndex.of(model, robot), device
        self.n, self.real = arrays["qpos"].shape[0], arrays["qpos"].dtype
        scalars = np.float32 if self.real is wp.float32 else np.float64
        limits = model.actuator_ctrlrange.astype(scalars)
        self.joints, gripper, motors = len(self.index.dof), limits[self.index.fingers], self.index.motors
        self.action = self.zeros(entries + 1)
        self.closing = self.zeros(len(gripper))
        self.memory: dict[str, Tensor] = {"closing": wp.to_torch(self.closing)}
        self.lower, self.upper = (self.const(limits[motors, side], self.real) for side in (0, 1))
        # The last inputs of every goal kernel, see `caliper.envs.robot.kernels.gripper_function`.
        self.gripper_args = [
            self.const(self.index.fingers),
            self.const(gripper.mean(1), self.real),
            self.const((gripper[:, 1] - gripper[:, 0]) / 2, self.real),
            self.const(np.array(robot.closing) / freq, self.real),
            *(self.closing, arrays["ctrl"]),
        ]

    def zeros(self, width: int) -> wp.array[Any]:
        """Zeros (n, width) of the engine's type."""
        return wp.zeros((self.n, width), dtype=self.real, device=self.device)

    def const(self, values: np.ndarray, dtype: Any = int) -> wp.array[Any]:
        """Numbers that stay, on the device."""
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)

    def record(self, goal: Any, goal_args: list[Any], torque: Any, torque_args: list[Any]) -> None:
        """Keeps the two launches; a recorded one skips the argument packing, dearer than a CPU's kernel."""
        how = {"dim": self.n, "device": self.device, "record_cmd": True, "block_dim": BLOCK}
        self._set_goal = wp.launch(goal, inputs=goal_args, **how)
        self._torque = wp.launch(torque, inputs=torque_args, **how)

    def begin(self, mask: Tensor, joints: Tensor) -> None:
        """Forgets, where `mask` (n,) says that an episode begins, with the arm at angles (n, j)."""
        for live in self.memory.values():
            live.masked_fill_(mask[:, None], 0)

    def set_goal(self) -> None:
        """Turns `action` into goals and the gripper's commands. Once per control step."""
        self._set_goal.launch()

    def apply(self) -> None:
        """Writes the motors' torques for the state the engine is in. Once per physics step."""
        self._torque.launch()


class OperationalSpace(Controller):
    """Moves the grip point: robosuite's OSC_POSE, or OSC_POSITION, where the gripper keeps its orientation.

    Attributes:
        goal_pos, goal_mat: goal pose in the base's frame, metres, (n,) of vec3 and mat33.
        posture: joint angles the nullspace pulls to, radians, (n, j).
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        robot: Robot,
        arrays: Arrays,
        freq: float,
        device: wp.Device,
        turns: bool = True,
        absolute: bool = False,
    ) -> None:
        """See `Controller`; whether actions turn the gripper, and whether they say poses or offsets."""
        super().__init__(model, robot, arrays, freq, device, 6 if turns else 3)
        i = self.index
        self.goal_pos = wp.zeros(self.n, dtype=arrays["site_xpos"].dtype, device=device)
        self.goal_mat = wp.zeros(self.n, dtype=arrays["site_xmat"].dtype, device=device)
        self.posture = self.zeros(self.joints)
        self.memory["posture"] = wp.to_torch(self.posture)
        scales = (POSITION_RANGE, ROTATION_RANGE) if absolute else (POSITION_SCALE, ROTATION_SCALE)
        sites = [arrays["site_xpos"], arrays["site_xmat"]]
        set_goal, torque = kernels(self.real, self.joints, robot.carried)
        goal_args = [
            *(self.action, *sites, i.grip_site, i.base_site, *scales, int(absolute)),
            *(self.goal_pos, self.goal_mat, *self.gripper_args),
        ]
        torque_args = [
            *(arrays[k] for k in ("qpos", "qvel", "M", "qfrc_bias")),
            *(*sites, arrays["subtree_com"], arrays["cdof"]),
            *(self.const(a) for a in (i.inertia, i.qpos, i.dof, i.motors)),
            *(self.lower, self.upper, i.grip_site, i.base_site, i.root),
            *(self.goal_pos, self.goal_mat, self.posture, arrays["ctrl"]),
        ]
        self.record(set_goal, goal_args, torque, torque_args)

    def begin(self, mask: Tensor, joints: Tensor) -> None:
        """See `Controller`."""
        super().begin(mask, joints)
        live = self.memory["posture"]
        live.copy_(torch.where(mask[:, None], joints.to(live.dtype), live))
