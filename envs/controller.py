"""robosuite's operational-space controller (Khatib 1987), batched over envs.

For end-effector pose error e and twist v, with Jacobian J and joint-space inertia M of the arm:

    torque = J^T [ Lp (kp e_p - kd v_p) ; Lo (kp e_o - kd v_o) ] + bias + N^T M (kn (q0 - q) - 2 sqrt(kn) q')
    L = (J M^-1 J^T)^-1,  Lp and Lo the inverses of its 3x3 blocks' inverses,  N = 1 - M^-1 J^T L J

The goal is the pose achieved when the action arrives plus the action's offset, in the frame of the robot's
base, and is held for the control step. The same kernels run in float64 on MuJoCo's arrays and in float32 on
MuJoCo Warp's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import warp as wp

from caliper.envs.kernels import kernels
from caliper.errors import CaliperError, one_of

# Action entries after the offset of the pose: the last one opens (-1) or closes (+1) the gripper.
ACTION_DIMS = {"osc_pose": 7, "osc_position": 4}
# Envs to a block of a GPU's threads. The torques' matrices fill every register that a thread can have, so a
# multiprocessor holds few of them: small blocks spread 1024 envs over 32 multiprocessors, not over 4.
BLOCK = 32
GRIPPER_SPEED = 4.0  # half ranges of the fingers per second: robosuite's 0.2 per control step at its 20 Hz


def action_dim(controller: str) -> int:
    """Length of the action of a controller.

    Raises:
        CaliperError: no such controller.
    """
    if controller not in ACTION_DIMS:
        raise CaliperError(f"controller '{controller}' is unknown; {one_of(ACTION_DIMS, controller)}")
    return ACTION_DIMS[controller]


@dataclass(frozen=True)
class ArmIndex:
    """Where the Panda's joints, sites and motors are in a model's arrays."""

    qpos: np.ndarray  # (7,)
    dof: np.ndarray  # (7,)
    motors: np.ndarray  # (7,)
    fingers: np.ndarray  # (2,) actuators
    finger_qpos: np.ndarray  # (2,)
    inertia: np.ndarray  # (7, 7) addresses of the arm's entries in MuJoCo's sparse inertia
    grip_site: int
    base_site: int
    root: int

    @staticmethod
    def of(model: mujoco.MjModel) -> ArmIndex:
        """Looks the names up in a compiled robosuite Panda scene."""
        joints = [model.joint(f"robot0_joint{i}").id for i in range(1, 8)]
        fingers = [model.joint(f"gripper0_right_finger_joint{i}").id for i in (1, 2)]
        dof = model.jnt_dofadr[joints]
        inertia = np.zeros((7, 7), np.int32)
        for i in range(7):
            for j in range(i + 1):
                start = model.M_rowadr[dof[i]]
                row = model.M_colind[start : start + model.M_rownnz[dof[i]]].tolist()
                inertia[i, j] = inertia[j, i] = start + row.index(dof[j])
        site = model.site("gripper0_right_grip_site").id
        return ArmIndex(
            qpos=model.jnt_qposadr[joints],
            dof=dof,
            motors=np.array([model.actuator(f"robot0_torq_j{i}").id for i in range(1, 8)]),
            fingers=np.array([model.actuator(f"gripper0_right_gripper_finger_joint{i}").id for i in (1, 2)]),
            finger_qpos=model.jnt_qposadr[fingers],
            inertia=inertia,
            grip_site=site,
            base_site=model.site("robot0_right_center").id,
            root=int(model.body_rootid[model.site_bodyid[site]]),
        )


class OperationalSpace:
    """The controller's state and its two launches over an engine's arrays, no host copy in between.

    Attributes:
        goal_pos, goal_mat: goal pose in the base's frame, metres, (n,) of vec3 and mat33.
        posture: joint angles the nullspace pulls to, radians, (n, 7).
        closing: commanded finger positions, -1 to 1 each, (n, 2); hidden state of robosuite's gripper.
    """

    def __init__(
        self, model: mujoco.MjModel, arrays: dict[str, wp.array[Any]], control_freq: float, device: wp.Device
    ) -> None:
        """Takes the engine's live arrays by MuJoCo's field names; vectors and matrices as Warp's types."""
        self.index = ArmIndex.of(model)
        n, real = arrays["qpos"].shape[0], arrays["qpos"].dtype
        vec3, mat33 = arrays["site_xpos"].dtype, arrays["site_xmat"].dtype
        scalars = np.float32 if real is wp.float32 else np.float64
        limits = model.actuator_ctrlrange.astype(scalars)

        def const(values: np.ndarray, dtype: Any = int) -> wp.array[Any]:
            return wp.array(np.ascontiguousarray(values), dtype=dtype, device=device)

        i = self.index
        self.action = wp.zeros((n, 7), dtype=real, device=device)
        self.goal_pos = wp.zeros(n, dtype=vec3, device=device)
        self.goal_mat = wp.zeros(n, dtype=mat33, device=device)
        self.posture = wp.zeros((n, 7), dtype=real, device=device)
        self.closing = wp.zeros((n, 2), dtype=real, device=device)
        fingers = limits[i.fingers]
        set_goal, torque = kernels(real)
        sites = [arrays["site_xpos"], arrays["site_xmat"]]
        self._goal_args = [
            *(self.action, *sites, i.grip_site, i.base_site, const(i.fingers)),
            *(const(fingers.mean(1), real), const((fingers[:, 1] - fingers[:, 0]) / 2, real)),
            *(GRIPPER_SPEED / control_freq, self.goal_pos, self.goal_mat, self.closing, arrays["ctrl"]),
        ]
        self._torque_args = [
            *(arrays[k] for k in ("qpos", "qvel", "M", "qfrc_bias")),
            *(*sites, arrays["subtree_com"], arrays["cdof"]),
            *(const(a) for a in (i.inertia, i.qpos, i.dof, i.motors)),
            *(const(limits[i.motors, 0], real), const(limits[i.motors, 1], real)),
            *(i.grip_site, i.base_site, i.root, self.goal_pos, self.goal_mat, self.posture, arrays["ctrl"]),
        ]
        # A recorded launch skips the argument packing, which costs more than the kernel on a CPU.
        how = {"dim": n, "device": device, "record_cmd": True, "block_dim": BLOCK}
        self._set_goal = wp.launch(set_goal, inputs=self._goal_args, **how)
        self._torque = wp.launch(torque, inputs=self._torque_args, **how)

    def set_goal(self) -> None:
        """Turns `action` into goals and finger commands. Once per control step."""
        self._set_goal.launch()

    def apply(self) -> None:
        """Writes the motors' torques for the state the engine is in. Once per physics step."""
        self._torque.launch()
