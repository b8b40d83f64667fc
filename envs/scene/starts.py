"""Where an episode starts: the robot in its rest posture, the task's object and joints as drawn."""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from caliper.envs.robot.controller import ArmIndex
from caliper.envs.robot.robots import POSTURE_NOISE, Robot
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
        self._free, self._fixtures = {}, {}
        for i in range(model.nbody):
            body = model.body(i)
            if model.body_mocapid[i] >= 0:
                self._fixtures[body.name] = int(model.body_mocapid[i])
            elif body.jntnum[0] and model.jnt_type[body.jntadr[0]] == mujoco.mjtJoint.mjJNT_FREE:
                self._free[body.name] = int(model.jnt_qposadr[body.jntadr[0]])
        joints = [int(model.joint(name).qposadr[0]) for name in task.joints]
        self._joints = torch.tensor(joints, dtype=torch.int64, device=device)
        self._arm, self._fingers = (
            torch.as_tensor(at, device=device) for at in (index.qpos, index.finger_qpos)
        )
        self._rest, self._open, self._qpos0 = (
            torch.tensor(values, dtype=torch.float64, device=device)
            for values in (robot.posture, robot.opening, model.qpos0)
        )

    def draw(self, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where episodes with the given seeds, int64 (n,), start.

        Returns:
            Joint positions (n, nq), the arm's part of them (n, j), and the fixtures' poses (n, m, 7).
        """
        arm = self._rest + POSTURE_NOISE * normal(seeds, len(self._rest), stream=1)
        qpos = self._qpos0.repeat(len(seeds), 1)
        qpos[:, self._arm] = arm
        qpos[:, self._fingers] = self._open
        fixtures = qpos.new_zeros(len(seeds), len(self._fixtures), 7)
        for body, pose in self.task.place(uniform(seeds, self.task.draws, stream=2)).items():
            if body in self._free:
                qpos[:, self._free[body] : self._free[body] + 7] = pose
            else:
                fixtures[:, self._fixtures[body]] = pose
        if self.task.joints:  # stream 3 is the expert's
            qpos[:, self._joints] = self.task.place_joints(uniform(seeds, 4, stream=4))
        return qpos, arm, fixtures
