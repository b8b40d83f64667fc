"""robosuite's joint-space controllers, batched over envs: each an action's meaning and a law of torques."""

from __future__ import annotations

import mujoco
import numpy as np
import warp as wp

from caliper.envs.robot.controller import Arrays, Controller
from caliper.envs.robot.joint_kernels import KV, WINDOW, position_kernels, velocity_kernels
from caliper.envs.robot.robots import Robot


class JointPosition(Controller):
    """robosuite's JOINT_POSITION: torque = M (kp (goal - q) - 2 sqrt(kp) q') + bias.

    The goal is the angles achieved when the action arrives plus the action's offsets.
    """

    def __init__(
        self, model: mujoco.MjModel, robot: Robot, arrays: Arrays, freq: float, device: wp.Device
    ) -> None:
        """See `Controller`."""
        super().__init__(model, robot, arrays, freq, device, len(robot.joints))
        i, goal = self.index, self.zeros(self.joints)
        where = [self.const(a) for a in (i.inertia, i.qpos, i.dof, i.motors)]
        set_goal, torque = position_kernels(self.real, self.joints)
        self.record(
            set_goal,
            [self.action, arrays["qpos"], where[1], goal, *self.gripper_args],
            torque,
            [
                *(arrays[k] for k in ("qpos", "qvel", "M", "qfrc_bias")),
                *(*where, self.lower, self.upper, goal, arrays["ctrl"]),
            ],
        )


class JointVelocity(Controller):
    """robosuite's JOINT_VELOCITY: a PID law on the error of each joint's speed, plus bias.

    The sum of the errors stands still while a motor is at its limit; the change is the mean of the last five.
    """

    def __init__(
        self, model: mujoco.MjModel, robot: Robot, arrays: Arrays, freq: float, device: wp.Device
    ) -> None:
        """See `Controller`."""
        super().__init__(model, robot, arrays, freq, device, len(robot.joints))
        i, goal = self.index, self.zeros(self.joints)
        widths = {"summed": self.joints, "past": WINDOW * self.joints, "status": 2}
        history = {name: self.zeros(width) for name, width in widths.items()}
        self.memory |= {name: wp.to_torch(array) for name, array in history.items()}
        gain = self.const(KV * np.ptp(model.actuator_ctrlrange[i.motors], axis=1), self.real)
        set_goal, torque = velocity_kernels(self.real, self.joints)
        self.record(
            set_goal,
            [self.action, goal, *self.gripper_args],
            torque,
            [
                *(arrays["qvel"], arrays["qfrc_bias"], self.const(i.dof), self.const(i.motors)),
                *(self.lower, self.upper, gain, goal, *history.values(), arrays["ctrl"]),
            ],
        )
