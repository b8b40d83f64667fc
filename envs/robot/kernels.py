"""The operational-space controller's two Warp kernels, one thread per env (see `controller` beside it).

Written once for all arms: loops and matrices are as long as an arm has joints.

Annotations stay evaluated in this file: Warp reads the kernels' types from them.
"""

import math
from functools import cache
from typing import Any

import warp as wp

POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5  # metres and radians at an action of 1
POSITION_RANGE, ROTATION_RANGE = 1.0, math.pi  # the same of absolute poses
KP, KNULL = 150.0, 10.0  # task and nullspace stiffness; both critically damped


@cache
def gripper_function(real: Any) -> Any:
    """The part that every controller's goal kernel has: moves the commands of the gripper's motors."""
    zero, one = (wp.constant(real(x)) for x in (0.0, 1.0))

    @wp.func
    def command_gripper(
        w: int,
        way: real,  # above 0 closes, below 0 opens
        motors: wp.array(dtype=int),
        mid: wp.array(dtype=real),
        half: wp.array(dtype=real),
        step: wp.array(dtype=real),  # of the command in a control step that closes
        closing: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        for i in range(motors.shape[0]):
            move = step[i]
            if way == zero:
                move = zero
            if way < zero:
                move = -move
            closing[w, i] = wp.clamp(closing[w, i] + move, -one, one)
            ctrl[w, motors[i]] = mid[i] + half[i] * closing[w, i]

    return command_gripper


@cache
def kernels(real: Any, joints: int, carried: int) -> tuple[Any, Any]:
    """The goal and torque kernels.

    Args:
        real: floating-point type, wp.float32 or wp.float64.
        joints: of the arm.
        carried: how many of them, the first ones, move the frame that poses are given in.
    """
    vec3, mat33, spatial = (
        (wp.vec3, wp.mat33, wp.spatial_vector)
        if real is wp.float32
        else (wp.vec3d, wp.mat33d, wp.spatial_vectord)
    )
    vecj, matjj = wp.types.vector(joints, real), wp.types.matrix((joints, joints), real)
    vec6, mat66 = wp.types.vector(6, real), wp.types.matrix((6, 6), real)
    mat6j, matj6 = wp.types.matrix((6, joints), real), wp.types.matrix((joints, 6), real)
    command_gripper = gripper_function(real)
    tiny = wp.constant(real(1e-12))
    half, one = (wp.constant(real(x)) for x in (0.5, 1.0))
    kp, kd = wp.constant(real(KP)), wp.constant(real(2 * math.sqrt(KP)))
    kn, kvn = wp.constant(real(KNULL)), wp.constant(real(2 * math.sqrt(KNULL)))

    @wp.func
    def factor(a: matjj) -> matjj:  # lower Cholesky factor
        low = matjj()
        for j in range(joints):
            s = a[j, j]
            for k in range(j):
                s -= low[j, k] * low[j, k]
            d = wp.sqrt(wp.max(s, tiny))
            low[j, j] = d
            for i in range(j + 1, joints):
                t = a[i, j]
                for k in range(j):
                    t -= low[i, k] * low[j, k]
                low[i, j] = t / d
        return low

    @wp.func
    def solve(low: matjj, b: vecj) -> vecj:
        y = vecj()
        for i in range(joints):
            t = b[i]
            for k in range(i):
                t -= low[i, k] * y[k]
            y[i] = t / low[i, i]
        x = vecj()
        for m in range(joints):
            i = joints - 1 - m
            t = y[i]
            for k in range(i + 1, joints):
                t -= low[k, i] * x[k]
            x[i] = t / low[i, i]
        return x

    @wp.func
    def solve6(a: mat66, b: vec6) -> vec6:  # factor and solve
        low = mat66()
        for j in range(6):
            s = a[j, j]
            for k in range(j):
                s -= low[j, k] * low[j, k]
            d = wp.sqrt(wp.max(s, tiny))
            low[j, j] = d
            for i in range(j + 1, 6):
                t = a[i, j]
                for k in range(j):
                    t -= low[i, k] * low[j, k]
                low[i, j] = t / d
        y = vec6()
        for i in range(6):
            t = b[i]
            for k in range(i):
                t -= low[i, k] * y[k]
            y[i] = t / low[i, i]
        x = vec6()
        for m in range(6):
            i = 5 - m
            t = y[i]
            for k in range(i + 1, 6):
                t -= low[k, i] * x[k]
            x[i] = t / low[i, i]
        return x

    @wp.kernel(enable_backward=False, module="unique")
    def set_goal(
        action: wp.array2d(dtype=real),  # (n, 7), or (n, 4) where the gripper is not to turn
        site_xpos: wp.array2d(dtype=vec3),
        site_xmat: wp.array2d(dtype=mat33),
        grip: int,
        base: int,
        pos_scale: real,
        rot_scale: real,
        absolute: int,
        goal_pos: wp.array(dtype=vec3),
        goal_mat: wp.array(dtype=mat33),
        gripper: wp.array(dtype=int),
        mid: wp.array(dtype=real),
        half: wp.array(dtype=real),
        step: wp.array(dtype=real),
        closing: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        last = action.shape[1] - 1
        to_base = wp.transpose(site_xmat[w, base])
        offset, axis = vec3(), vec3()
        for i in range(3):
            offset[i] = wp.clamp(action[w, i], -one, one) * pos_scale
            if last == 6:
                axis[i] = wp.clamp(action[w, i + 3], -one, one) * rot_scale
        angle = wp.length(axis)
        turn = wp.identity(n=3, dtype=real)
        if angle > tiny:  # Rodrigues' formula
            k = wp.skew(axis / angle)
            turn = turn + wp.sin(angle) * k + (one - wp.cos(angle)) * (k * k)
        goal_pos[w] = offset
        goal_mat[w] = turn
        if absolute == 0:
            goal_pos[w] = to_base * (site_xpos[w, grip] - site_xpos[w, base]) + offset
        if absolute == 0 or last < 6:
            goal_mat[w] = turn * (to_base * site_xmat[w, grip])
        command_gripper(w, action[w, last], gripper, mid, half, step, closing, ctrl)

    @wp.kernel(enable_backward=False, module="unique")
    def torque(
        qpos: wp.array2d(dtype=real),
        qvel: wp.array2d(dtype=real),
        inertia: wp.array2d(dtype=real),
        bias: wp.array2d(dtype=real),
        site_xpos: wp.array2d(dtype=vec3),
        site_xmat: wp.array2d(dtype=mat33),
        subtree_com: wp.array2d(dtype=vec3),
        cdof: wp.array2d(dtype=spatial),
        inertia_adr: wp.array2d(dtype=int),
        qpos_adr: wp.array(dtype=int),
        dof_adr: wp.array(dtype=int),
        motors: wp.array(dtype=int),
        lower: wp.array(dtype=real),
        upper: wp.array(dtype=real),
        grip: int,
        base: int,
        root: int,
        goal_pos: wp.array(dtype=vec3),
        goal_mat: wp.array(dtype=mat33),
        posture: wp.array2d(dtype=real),
        ctrl: wp.array2d(dtype=real),
    ) -> None:
        w = wp.tid()
        x, r = site_xpos[w, grip], site_xmat[w, grip]
        x_base, r_base = site_xpos[w, base], site_xmat[w, base]
        arm = x - subtree_com[w, root]
        jac, m, qd, posture_acc = mat6j(), matjj(), vecj(), vecj()
        for a in range(joints):
            c = cdof[w, dof_adr[a]]
            angular = vec3(c[0], c[1], c[2])
            linear = vec3(c[3], c[4], c[5]) + wp.cross(angular, arm)
            for k in range(3):
                jac[k, a] = linear[k]
                jac[k + 3, a] = angular[k]
            for b in range(joints):
                m[a, b] = inertia[w, inertia_adr[a, b]]
            qd[a] = qvel[w, dof_adr[a]]
            posture_acc[a] = kn * (posture[w, a] - qpos[w, qpos_adr[a]]) - kvn * qd[a]
        twist = jac * qd
        for a in range(carried):  # only what moves against the base counts
            c = cdof[w, dof_adr[a]]
            angular = vec3(c[0], c[1], c[2])
            linear = vec3(c[3], c[4], c[5]) + wp.cross(angular, x_base - subtree_com[w, root])
            for k in range(3):
                twist[k] -= linear[k] * qd[a]
                twist[k + 3] -= angular[k] * qd[a]
        r_goal = r_base * goal_mat[w]
        e_pos = x_base + r_base * goal_pos[w] - x
        e_rot = vec3()
        for k in range(3):
            e_rot += half * wp.cross(
                vec3(r[0, k], r[1, k], r[2, k]), vec3(r_goal[0, k], r_goal[1, k], r_goal[2, k])
            )
        force = kp * e_pos - kd * vec3(twist[0], twist[1], twist[2])
        moment = kp * e_rot - kd * vec3(twist[3], twist[4], twist[5])
        low = factor(m)
        minv_jt = matj6()
        for k in range(6):
            column = vecj()
            for a in range(joints):
                column[a] = jac[k, a]
            solved = solve(low, column)
            for a in range(joints):
                minv_jt[a, k] = solved[a]
        lam_inv = jac * minv_jt
        pos_block, rot_block = mat33(), mat33()
        for i in range(3):
            for j in range(3):
                pos_block[i, j] = lam_inv[i, j]
                rot_block[i, j] = lam_inv[i + 3, j + 3]
        f, t = wp.inverse(pos_block) * force, wp.inverse(rot_block) * moment
        wrench = vec6(f[0], f[1], f[2], t[0], t[1], t[2])
        null = m * posture_acc
        tau = wp.transpose(jac) * (wrench - solve6(lam_inv, wp.transpose(minv_jt) * null)) + null
        for a in range(joints):
            ctrl[w, motors[a]] = wp.clamp(tau[a] + bias[w, dof_adr[a]], lower[a], upper[a])

    return set_goal, torque
