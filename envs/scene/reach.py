"""Whether states can be those of a scene: joints within their limits, rotations that are rotations."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

SLACK = 0.1  # beyond a joint's limit, rad or m, and as a share of its range: limits in MuJoCo are springs
GRIPPER, GRIPPER_SLACK = "gripper", 0.4  # robosuite starts the links of a Robotiq 2F-85 0.2 rad beyond theirs
FARTHEST, TURNS, FASTEST = 100.0, 1000.0, 1e4  # m of a free body, rad of a free hinge, m/s or rad/s
FREE, BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
UNIT = 0.01  # how far a quaternion's length may be from 1


def unreachable(model: Any, states: NDArray[np.float64]) -> tuple[int, str] | None:
    """The first state that a scene can't be in.

    Args:
        model: a compiled MjModel.
        states: (n, s), rows of [time, qpos, qvel].

    Returns:
        Its row and what is wrong with it, or None.
    """
    qpos, qvel = states[:, 1 : 1 + model.nq], states[:, 1 + model.nq :]  # (n, nq), (n, nv)
    found: list[tuple[int, str]] = []

    def refuse_where(bad: NDArray[np.bool_], what: str, values: NDArray[np.float64]) -> None:
        if bad.any():
            row = int(bad.argmax())
            found.append((row, what.format(values[row])))

    for j in range(model.njnt):
        name, kind, at = model.joint(j).name, int(model.jnt_type[j]), int(model.jnt_qposadr[j])
        if kind == FREE:
            far = np.abs(qpos[:, at : at + 3]).max(axis=1)  # (n,)
            refuse_where(far > FARTHEST, f"{name} is {{:.4g}} m away", far)
        if kind in (FREE, BALL):
            first = at + 3 * (kind == FREE)
            length = np.linalg.norm(qpos[:, first : first + 4], axis=1)
            refuse_where(
                np.abs(length - 1) > UNIT, f"the quaternion of {name} has the length {{:.4g}}", length
            )
        else:
            low, high = model.jnt_range[j] if model.jnt_limited[j] else (-TURNS, TURNS)
            slack = max(GRIPPER_SLACK if name.startswith(GRIPPER) else SLACK, SLACK * (high - low))
            value = qpos[:, at]
            limits = f"{name} is at {{:.4g}}, its limits are {low:.4g} and {high:.4g}"
            refuse_where((value < low - slack) | (value > high + slack), limits, value)
    speed = np.abs(qvel).max(axis=1, initial=0.0)
    refuse_where(speed > FASTEST, "a speed is {:.4g} m/s or rad/s", speed)
    return min(found, default=None)
