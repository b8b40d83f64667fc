"""Where an episode starts: the robot in its rest posture, the task's object and joints as drawn."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from caliper.envs.controller import ArmIndex
from caliper.envs.robots import POSTURE_NOISE, Robot
from caliper.envs.seeding import normal, uniform
from caliper.envs.tasks import Task


class Starts:
    """Draws start positions for all envs at once, without host synchronisation.

    Each kind of thing has a stream of its own, so that one with more numbers moves no other.
    """

    def __init__(
        self, task: Task, model: mujoco.MjModel, robot: Robot, index: ArmIndex, device: torch.device
    ) -> None:
        """Args: the task, its compiled scene, its robot, where that is in it, and where to draw."""
        self.task = task
        body = model.body(task.object_body)
        self._object = int(model.jnt_qposadr[body.jntadr[0]])
        joints = [int(model.joint(name).qposadr[0]) for name in task.joints]
        self._joints = torch.tensor(joints, dtype=torch.int64, device=device)
        self._arm, self._fingers = (
            torch.as_tensor(at, device=device) for at in (index.qpos, index.finger_qpos)
        )
        self._rest, self._open, self._qpos0 = (
            torch.tensor(values, dtype=torch.float64, device=device)
            for values in (robot.posture, robot.opening, model.qpos0)
        )

    def draw(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Joint positions (n, nq) of episodes with the given seeds, int64 (n,), and the arm's part (n, j)."""
        arm = self._rest + POSTURE_NOISE * normal(seeds, len(self._rest), stream=1)
        qpos = self._qpos0.repeat(len(seeds), 1)
        qpos[:, self._arm] = arm
        qpos[:, self._fingers] = self._open
        qpos[:, self._object : self._object + 7] = self.task.place(uniform(seeds, 4, stream=2))
        if self.task.joints:  # stream 3 is the expert's
            qpos[:, self._joints] = self.task.place_joints(uniform(seeds, 4, stream=4))
        return qpos, arm
