"""The Warp kernels of the joint-space controllers, one thread per env (see `joint_control` beside it).

Annotations stay evaluated in this file: Warp reads the kernels' types from them.
"""

import math
from functools import cache
from typing import Any

import warp as wp

from caliper.envs.robot.kernels import gripper_function

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
