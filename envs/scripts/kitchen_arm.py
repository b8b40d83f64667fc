"""The arm of Franka Kitchen: inverse kinematics, and the action that brings its joints where that says."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ARM = 7  # joints before the two fingers
DAMPING = 1e-3  # of the inverse, square metres
LEVER = 0.3  # metres: a radian of turning weighs as much as this way
LONGEST, WIDEST = 0.15, 0.4  # metres and radians that a round of the inverse may go
LEAN = 0.05  # share of the way to the posture at rest that a round goes, where the gripper does not notice
FIRST_ROUNDS, ROUNDS = 60, 12  # for a new target, and for one that moves on
MARGIN = 0.02  # radians within the joints' limits
FASTEST = 0.95  # of an action, so that some is left to hold the arm against its weight


class Move(NamedTuple):
    """Where the gripper is to go now.

    Attributes:
        place: of the middle between the fingers, metres.
        turn: rotation of the gripper, (3, 3): its third column is where it points, its second where the
            fingers are.
        fingers: 1 opens, -1 closes.
    """

    place: Array
    turn: Array
    fingers: float


class Arm:
    """One arm. A spring draws every joint to where it is told to be, and a damper makes it late."""

    def __init__(self, env: Any) -> None:
        """Args: env, the kitchen of gymnasium-robotics; its current posture is the one at rest."""
        self.model, self.data = env.model, env.data
        robot, model = env.robot_env, env.model
        spring = model.actuator_gainprm[:ARM, 0]
        self._stride = robot.act_rng[:ARM] * robot.dt  # radians by which an action of 1 moves the target
        self._follows = 1 - np.exp(-spring * robot.dt / model.dof_damping[:ARM])  # share of it that is made
        self._spring = spring
        limits = np.stack([model.jnt_range[:ARM], robot.robot_pos_bound[:ARM]])
        self._low, self._high = limits[..., 0].max(0) + MARGIN, limits[..., 1].min(0) - MARGIN
        self._site = model.site("end_effector").id
        self._sketch = mujoco.MjData(model)  # where the inverse is worked out
        self.rest = self.data.qpos[:ARM].copy()
        self._aim: Array | None = None

    @property
    def place(self) -> Array:
        """Of the middle between the fingers, metres."""
        return self.site("end_effector")

    @property
    def turn(self) -> Array:
        """The gripper's rotation, (3, 3)."""
        turn: Array = self.data.site_xmat[self._site].reshape(3, 3).copy()
        return turn

    def site(self, name: str) -> Array:
        """Where a site is, metres."""
        place: Array = self.data.site(name).xpos.copy()
        return place

    def joint(self, name: str) -> float:
        """How far a joint is, radians or metres."""
        return float(self.data.joint(name).qpos[0])

    def forget(self) -> None:
        """The next target is a new one: its posture is sought from the one at rest, not from the last one."""
        self._aim = None

    def act(self, move: Move) -> Array:
        """The action (9,) towards a target: all joints go straight to the posture that reaches it."""
        start, rounds = (self.rest, FIRST_ROUNDS) if self._aim is None else (self._aim, ROUNDS)
        self._aim = self.posture(start, move.place, move.turn, rounds)
        return self.towards(self._aim, move.fingers)

    def posture(self, start: Array, place: Array, turn: Array, rounds: int) -> Array:
        """Joint angles (7,) that bring the gripper to a place and rotation, by damped least squares."""
        sketch, joints = self._sketch, start.copy()
        moves, turns = np.zeros((2, 3, self.model.nv))
        for _ in range(rounds):
            sketch.qpos[:ARM] = joints
            mujoco.mj_kinematics(self.model, sketch)
            mujoco.mj_comPos(self.model, sketch)
            mujoco.mj_jacSite(self.model, sketch, moves, turns, self._site)
            way = _at_most(place - sketch.site_xpos[self._site], LONGEST)
            spin = _at_most(turn_to(sketch.site_xmat[self._site].reshape(3, 3), turn), WIDEST)
            jacobian = np.concatenate([moves[:, :ARM], LEVER * turns[:, :ARM]])
            step = damped(jacobian, np.concatenate([way, LEVER * spin]), LEAN * (self.rest - joints))
            joints = np.clip(joints + step, self._low, self._high)
        return joints

    def towards(self, joints: Array, fingers: float) -> Array:
        """The action (9,) that goes towards joint angles (7,) and carries the arm's weight."""
        way = (joints - self.data.qpos[:ARM]) / (self._follows * self._stride)
        way /= max(1.0, np.abs(way).max() / FASTEST)
        weight = self.data.qfrc_bias[:ARM] / (self._spring * self._stride)
        action: Array = np.concatenate([way + weight, [fingers, fingers]])
        return np.clip(action, -1, 1)


def facing(yaw: float, pitch: float) -> Array:
    """Rotation of a gripper that points to the kitchen, fingers left and right.

    Args:
        yaw: to the left, radians.
        pitch: down, radians.
    """
    sy, cy, sp, cp = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    up, ahead = np.array([-sy * sp, cy * sp, cp]), np.array([-sy * cp, cy * cp, -sp])
    return np.stack([up, np.cross(ahead, up), ahead], 1)


def damped(jacobian: Array, way: Array, lean: Array) -> Array:
    """The step of the joints (7,) that goes `way` (6,), and `lean` (7,) as far as that does not matter."""
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(len(jacobian)))
    return np.asarray(inverse @ (way - jacobian @ lean) + lean)


def turn_to(turn: Array, wanted: Array) -> Array:
    """The rotation vector, radians, that leads from one rotation (3, 3) to another."""
    quat, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quat, (wanted @ turn.T).ravel())
    mujoco.mju_quat2Vel(vector, quat, 1.0)
    return vector


def _at_most(vector: Array, length: float) -> Array:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
