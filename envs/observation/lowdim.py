"""The robot's own state in numbers of one's choice: the standard ones, or robosuite's by their names.

robosuite's are as it gives them, metres and radians, neither centred nor scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from caliper.envs.engines.base import Engine
from caliper.envs.observation.proprio import PROPRIO, robot_part
from caliper.envs.robot.robots import Robot
from caliper.errors import CaliperError

STANDARD = "standard"
HAND = (
    "robot0_right_hand"  # robosuite's body of the end-effector's orientation; the position is the grip site's
)
LENGTHS: dict[str, Callable[[Robot], int]] = {
    STANDARD: lambda robot: PROPRIO + len(robot.fingers),
    "robot0_joint_pos": lambda robot: len(robot.joints),
    "robot0_joint_pos_cos": lambda robot: len(robot.joints),
    "robot0_joint_pos_sin": lambda robot: len(robot.joints),
    "robot0_joint_vel": lambda robot: len(robot.joints),
    "robot0_eef_pos": lambda _: 3,
    "robot0_eef_quat": lambda _: 4,
    "robot0_gripper_qpos": lambda robot: len(robot.fingers),
    "robot0_gripper_qvel": lambda robot: len(robot.fingers),
}


def robot_dim(keys: Sequence[str], robot: Robot) -> int:
    """How many numbers keys stand for.

    Raises:
        CaliperError: no such key, or one named twice.
    """
    for key in keys:
        if key not in LENGTHS:
            raise CaliperError(f"task.proprio: there is no '{key}'; choose from: {', '.join(LENGTHS)}")
    if len(set(keys)) < len(keys):
        raise CaliperError(f"task.proprio={list(keys)} names a key twice; name each once")
    return sum(LENGTHS[key](robot) for key in keys)


class RobotState:
    """Reads the numbers of the given keys, one after the other."""

    def __init__(self, keys: Sequence[str], engine: Engine, robot: Robot) -> None:
        """Args: names, see `LENGTHS`; the envs' engine; whose state."""
        model, index = engine.model, engine.controller.index
        self.keys = tuple(keys)
        self.dim = robot_dim(keys, robot)

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(values, np.int64), device=engine.device)

        dof_of = {int(model.jnt_qposadr[j]): int(model.jnt_dofadr[j]) for j in range(model.njnt)}
        self._engine, self._site = engine, index.grip_site
        self._joints, self._speeds = tensor(index.qpos), tensor(index.dof)
        self._fingers = tensor(index.finger_qpos)
        self._finger_half = torch.as_tensor(index.finger_half, device=engine.device).to(engine.qpos)
        self._finger_speeds = tensor(np.array([dof_of[int(q)] for q in index.finger_qpos]))
        hands = [b for b in range(model.nbody) if model.body(b).name == HAND]
        self._hand = hands[0] if hands else int(model.site_bodyid[index.grip_site])

    def read(self) -> Tensor:
        """The numbers now, float32 (n, p)."""
        parts = [self._part(key) for key in self.keys]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _part(self, key: str) -> Tensor:
        e = self._engine
        grip = e.site_xpos[:, self._site]
        if key == STANDARD:
            fingers = e.qpos[:, self._fingers] / self._finger_half
            return robot_part(grip, e.site_xmat[:, self._site].view(-1, 3, 3), fingers)
        name = key.removeprefix("robot0_")
        if name == "eef_pos":
            return grip.float()
        if name == "eef_quat":
            return quaternions(e.xmat[:, self._hand].view(-1, 3, 3)).float()
        if name.startswith("gripper"):
            return (
                e.qpos[:, self._fingers] if name == "gripper_qpos" else e.qvel[:, self._finger_speeds]
            ).float()
        if name == "joint_vel":
            return e.qvel[:, self._speeds].float()
        joints = e.qpos[:, self._joints].float()
        return {"joint_pos": joints, "joint_pos_cos": joints.cos(), "joint_pos_sin": joints.sin()}[name]


def quaternions(mat: Tensor) -> Tensor:
    """Rotations (n, 3, 3) as quaternions (n, 4), x y z w as robosuite writes them.

    Of the two for a rotation it is the one whose x is not negative: a gripper that points down has x near 1,
    so that its quaternion jumps nowhere near.
    """
    m = mat.flatten(1).unbind(1)
    diagonal = (m[0], m[4], m[8])
    # Four ways to write 4 q q_i, one for each i; the largest is far from zero (Shepperd 1978).
    trace = diagonal[0] + diagonal[1] + diagonal[2]
    x = torch.stack([1 + 2 * m[0] - trace, m[1] + m[3], m[2] + m[6], m[7] - m[5]], 1)
    y = torch.stack([m[1] + m[3], 1 + 2 * m[4] - trace, m[5] + m[7], m[2] - m[6]], 1)
    z = torch.stack([m[2] + m[6], m[5] + m[7], 1 + 2 * m[8] - trace, m[3] - m[1]], 1)
    w = torch.stack([m[7] - m[5], m[2] - m[6], m[3] - m[1], 1 + trace], 1)
    ways = torch.stack([x, y, z, w], 1)  # (n, i, 4)
    best = torch.diagonal(ways, dim1=1, dim2=2).argmax(1)
    chosen = ways.gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
    unit = chosen / chosen.norm(dim=1, keepdim=True)
    return torch.where(unit[:, :1] < 0, -unit, unit)
