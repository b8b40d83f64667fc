"""robosuite's joint-space controllers, batched over envs: each an action's meaning and a law of torques.

Annotations stay evaluated in this file: Warp reads the kernels' types from them.
"""

import math
from functools import cache
from typing import Any

import mujoco
import numpy as np
import warp as wp

from caliper.envs.controller import Arrays, Controller
from caliper.envs.kernels import gripper_function
from caliper.envs.robots import Robot

ANGLE_SCALE, KP = 0.05, 50.0  # radians at an action of 1; stiffness, critically damped
SPEED_SCALE, KV = 0.5, 3.0  # rad/s at an action of 1; torque per speed error, as a share of a motor's range
INTEGRAL, DERIVATIVE = 0.005, 0.001  # of KV, per physics step
WINDOW = 5  # physics steps over which the change of the error is averaged


@cache
def position_kernels(real: Any, joints: int) -> tuple[Any, Any]:
    """The goal and torque kernels of `JointPosition`."""
    vecj, matjj = wp.types.vector(joints, real), wp.types.matrix((joints, joints), real)
    one, scale = wp.constant(real(1.0)), wp.constant(real(ANGLE_SCALE))
    kp, kd = wp.constant(real(KP)), wp.constant(real(2 * math.sqrt(KP)))
    command_gripper = gripper_function(real)

    @wp.kernel(enable_backward=False, module="unique")
    def set_goal(
        action: wp.array2d(dtype=real),  # (n, j + 1)
        qpos: wp.array2d(dtype=real),
        qpos_adr: wp.array(dtype=int),
        goal: wp.array2d(dtype=real),
        gripper: wp.array(dtype=int),
        mid: wp.array(dtype=real),
        half: wp.array(dtype=real),
        step: wp.array(dtype=real),
        closing: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        for a in range(joints):
            goal[w, a] = qpos[w, qpos_adr[a]] + wp.clamp(action[w, a], -one, one) * scale
        command_gripper(w, action[w, joints], gripper, mid, half, step, closing, ctrl)

    @wp.kernel(enable_backward=False, module="unique")
    def torque(
        qpos: wp.array2d(dtype=real),
        qvel: wp.array2d(dtype=real),
        inertia: wp.array2d(dtype=real),
        bias: wp.array2d(dtype=real),
        inertia_adr: wp.array2d(dtype=int),
        qpos_adr: wp.array(dtype=int),
        dof_adr: wp.array(dtype=int),
        motors: wp.array(dtype=int),
        lower: wp.array(dtype=real),
        upper: wp.array(dtype=real),
        goal: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        m, acc = matjj(), vecj()
        for a in range(joints):
            acc[a] = kp * (goal[w, a] - qpos[w, qpos_adr[a]]) - kd * qvel[w, dof_adr[a]]
            for b in range(joints):
                m[a, b] = inertia[w, inertia_adr[a, b]]
        tau = m * acc
        for a in range(joints):
            ctrl[w, motors[a]] = wp.clamp(tau[a] + bias[w, dof_adr[a]], lower[a], upper[a])

    return set_goal, torque


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


@cache
def velocity_kernels(real: Any, joints: int) -> tuple[Any, Any]:
    """The goal and torque kernels of `JointVelocity`."""
    one, scale, window = (wp.constant(real(x)) for x in (1.0, SPEED_SCALE, WINDOW))
    integral, derivative = wp.constant(real(INTEGRAL)), wp.constant(real(DERIVATIVE))
    zero, oldest = wp.constant(real(0.0)), (WINDOW - 1) * joints
    command_gripper = gripper_function(real)

    @wp.kernel(enable_backward=False, module="unique")
    def set_goal(
        action: wp.array2d(dtype=real),  # (n, j + 1)
        goal: wp.array2d(dtype=real),
        gripper: wp.array(dtype=int),
        mid: wp.array(dtype=real),
        half: wp.array(dtype=real),
        step: wp.array(dtype=real),
        closing: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        for a in range(joints):
            goal[w, a] = wp.clamp(action[w, a], -one, one) * scale
        command_gripper(w, action[w, joints], gripper, mid, half, step, closing, ctrl)

    @wp.kernel(enable_backward=False, module="unique")
    def torque(
        qvel: wp.array2d(dtype=real),
        bias: wp.array2d(dtype=real),
        dof_adr: wp.array(dtype=int),
        motors: wp.array(dtype=int),
        lower: wp.array(dtype=real),
        upper: wp.array(dtype=real),
        gain: wp.array(dtype=real),
        goal: wp.array2d(dtype=real),
        summed: wp.array2d(dtype=real),  # (n, j) errors
        past: wp.array2d(dtype=real),  # (n, 5 j) errors, the latest first
        status: wp.array2d(
            dtype=real
        ),  # (n, 2): physics steps seen, at most 5; whether a motor was at its limit
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        seen = wp.min(status[w, 0] + one, window)
        growing = one - status[w, 1]  # an integral that a motor can't follow does not grow
        limited = zero
        for a in range(joints):
            error = goal[w, a] - qvel[w, dof_adr[a]]
            change = (error - past[w, oldest + a]) / seen
            summed[w, a] = summed[w, a] + growing * error
            for k in range(1, WINDOW):
                at = (WINDOW - k) * joints + a
                past[w, at] = past[w, at - joints]
            past[w, a] = error
            tau = gain[a] * (error + integral * summed[w, a] + derivative * change) + bias[w, dof_adr[a]]
            held = wp.clamp(tau, lower[a], upper[a])
            if held != tau:
                limited = one
            ctrl[w, motors[a]] = held
        status[w, 0] = seen
        status[w, 1] = limited

    return set_goal, torque


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
