"""robosuite's operational-space controller as every version has had it, on a recording's own model.

It is the law of `caliper.envs.robot.controller` with what changed between versions: a `Dialect`. Written for
one env and any number of arms, to find out which dialect a recording is in and where its actions wanted
to go.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.envs.robot.kernels import KNULL, KP, POSITION_SCALE, ROTATION_SCALE
from caliper.errors import CaliperError

Array = NDArray[np.float64]
ARM_JOINT = re.compile(r"robot(\d)_joint\d+")
COMPOSITE = ("BASIC", "HYBRID_MOBILE_BASE")  # controllers of 1.5 that run each part's own
# Orientation that OSC_POSITION held in the world's frame before 1.5: the gripper pointing down.
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


@dataclass(frozen=True)
class Dialect:
    """What a version of robosuite makes of an action.

    Attributes:
        name: the versions.
        transposed: a rotation turns the other way round.
        holds: a rotation of exactly zero keeps the goal's orientation.
        fingers: how far a gripper command moves the fingers, in half ranges per physics step; 0.2 in one jump
            at the first physics step where this is None.
        based: offsets are in the frame of the robot's base, not the env's.
    """

    name: str
    transposed: bool
    holds: bool
    fingers: float | None
    based: bool


DIALECTS = (
    Dialect("1.0", transposed=True, holds=True, fingers=0.01, based=False),
    Dialect("1.1 to 1.4", transposed=False, holds=True, fingers=0.01, based=False),
    Dialect("1.5", transposed=False, holds=False, fingers=None, based=True),
)
CLOSED = 200  # control steps after which fingers are where their command sends them, in every version
JUMP = 0.2  # of the fingers, in half ranges per control step


@dataclass(frozen=True)
class Settings:
    """What a recorded environment set its controller to.

    Attributes:
        position_only: actions have no rotation.
        kp: stiffness, (6,).
        kd: damping, (6,).
        low, high: range of an action's entries without the gripper, (k,).
        out_low, out_high: metres and radians they are mapped to, (k,).
        uncoupled: position and orientation are controlled apart.
        env: offsets are in the world's frame in every version.
    """

    position_only: bool
    kp: Array
    kd: Array
    low: Array
    high: Array
    out_low: Array
    out_high: Array
    uncoupled: bool
    world: bool

    def scale(self, action: Array) -> tuple[Array, Array]:
        """The offset in metres (3,) and radians (3,) that an action (k,) without its gripper asks for."""
        inside = np.clip(action, self.low, self.high)
        gain = (self.out_high - self.out_low) / (self.high - self.low)
        offset = (inside - (self.high + self.low) / 2) * gain + (self.out_high + self.out_low) / 2
        return offset[:3], np.zeros(3) if self.position_only else offset[3:]

    @property
    def as_ours(self) -> bool:
        """Whether an action's entries mean the same metres and radians as Caliper's."""
        ours = np.array([POSITION_SCALE] * 3 + [ROTATION_SCALE] * 3)[: len(self.high)]
        return all(
            np.array_equal(value, sign * scale)
            for value, sign, scale in (
                (self.out_high, 1, ours),
                (self.out_low, -1, ours),
                (self.high, 1, np.ones_like(ours)),
                (self.low, -1, np.ones_like(ours)),
            )
        )

    def refuse_foreign(self) -> None:
        """Refuses gains under which a translated action would do something else in Caliper's scene.

        Raises:
            CaliperError: naming the gain.
        """
        if not (np.allclose(self.kp, KP) and np.allclose(self.kd, 2 * np.sqrt(KP)) and self.uncoupled):
            raise CaliperError(
                f"its controller has stiffness {_short(self.kp)}, damping {_short(self.kd)} and "
                f"uncouple_pos_ori {self.uncoupled}; Caliper's has {KP:g}, {2 * np.sqrt(KP):.4g} and True"
            )


def read_settings(config: Any) -> Settings:
    """The controller's settings of a recorded environment, in the words of 1.0 to 1.5.

    Args:
        config: its `controller_configs`; None, where the file has none, stands for robosuite's defaults.

    Raises:
        CaliperError: a controller whose actions cannot be translated; says which.
    """
    part = _arm_part({} if config is None else config)
    kind = str(part.get("type", "OSC_POSE"))
    if kind not in ("OSC_POSE", "OSC_POSITION"):
        raise CaliperError(
            f"its controller is {kind}; actions of OSC_POSE and OSC_POSITION can be translated, others not"
        )
    if not part.get("control_delta", True) or part.get("input_type", "delta") != "delta":
        raise CaliperError(
            f"its {kind} actions are absolute poses; only offsets (control_delta, input_type delta) are read"
        )
    for key, allowed in (
        ("impedance_mode", ("fixed",)),
        ("interpolation", (None,)),
        ("position_limits", (None,)),
        ("orientation_limits", (None,)),
    ):
        if (value := part.get(key, allowed[0])) not in allowed:
            raise CaliperError(f"its controller has {key} {value}; only {allowed[0]} can be translated")
    size = 3 if kind == "OSC_POSITION" else 6
    for key in ("input", "output"):
        low, high = (_vector(part.get(f"{key}_{end}", sign), size) for end, sign in (("min", -1), ("max", 1)))
        if not (low < high).all():
            raise CaliperError(f"its controller's {key}_min {_short(low)} is not below its {key}_max")
    ours = ([POSITION_SCALE] * 3 + [ROTATION_SCALE] * 3)[:size]
    kp = np.maximum(_vector(part.get("kp", KP), 6), 0)
    ratio = _vector(part.get("damping_ratio", part.get("damping", 1)), 6)
    return Settings(
        position_only=size == 3,
        kp=kp,
        kd=2 * np.sqrt(kp) * ratio,
        low=_vector(part.get("input_min", -1), size),
        high=_vector(part.get("input_max", 1), size),
        out_low=_vector(part.get("output_min", [-x for x in ours]), size),
        out_high=_vector(part.get("output_max", ours), size),
        uncoupled=bool(part.get("uncouple_pos_ori", True)),
        world=part.get("input_ref_frame", "base") == "world",
    )


def _arm_part(config: Any) -> Mapping[str, Any]:
    """The arm's part of a controller's description: a list for two arms, composite since 1.5."""
    if isinstance(config, Sequence) and not isinstance(config, str) and config:
        config = config[0]
    if not isinstance(config, Mapping):
        raise CaliperError("its controller is not described as robosuite does")
    if "body_parts" not in config:
        return config
    if (kind := config.get("type", COMPOSITE[0])) not in COMPOSITE:
        raise CaliperError(
            f"its controller is {kind}; only the arm's part of {COMPOSITE[0]} can be translated"
        )
    parts = config["body_parts"]
    parts = parts.get("arms", parts) if isinstance(parts, Mapping) else None
    part = parts.get("right") if isinstance(parts, Mapping) else None
    if not isinstance(part, Mapping):
        raise CaliperError("its controller is not described as robosuite does")
    return part


def _vector(value: Any, size: int) -> Array:
    try:
        found = np.broadcast_to(np.asarray(value, dtype=np.float64), (size,)).copy()
    except (TypeError, ValueError, OverflowError):
        found = np.full(size, np.nan)
    if not np.isfinite(found).all():
        raise CaliperError(f"its controller has {str(value)[:80]} where {size} numbers belong")
    return found


def _short(values: Array) -> str:
    return f"{values[0]:.4g}" if np.ptp(values) == 0 else str(values.round(3).tolist())


class Arm:
    """Where one arm's joints, motors and fingers are in a recorded model.

    Attributes:
        dim: entries of an action that are this arm's.
    """

    def __init__(self, model: mujoco.MjModel, number: int, position_only: bool) -> None:
        joints = _ids(model.njnt, model.joint, rf"robot{number}_joint\d+")
        sites = _ids(model.nsite, model.site, rf"gripper{number}_(right_)?grip_site")
        self.motors = _ids(model.nu, model.actuator, rf"robot{number}_torq_j\d+")
        self.fingers = _ids(model.nu, model.actuator, rf"gripper{number}_(right_)?gripper_finger_joint\d")
        if len(joints) != len(self.motors) or not sites or len(self.fingers) not in (0, 2):
            raise CaliperError(
                f"its robot {number} has {len(joints)} joints, {len(self.motors)} torque motors, "
                f"{len(self.fingers)} driven fingers and {len(sites) or 'no'} grip site; only "
                "arms such as the Panda's can be read"
            )
        self.qpos, self.dof = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self.site, self.base = sites[0], int(model.body_parentid[model.jnt_bodyid[joints[0]]])
        self.low, self.high = model.actuator_ctrlrange[self.motors].T
        self.finger_low, self.finger_high = model.actuator_ctrlrange[self.fingers].T
        self.dim = (3 if position_only else 6) + bool(self.fingers)


def _ids(count: int, get: Any, pattern: str) -> list[int]:
    return [i for i in range(count) if re.fullmatch(pattern, get(i).name)]


@dataclass
class Hidden:
    """What a recorded state leaves out: finger command (2,), and the goal's orientation, env (3, 3)."""

    closing: Array
    turn: Array


@dataclass(frozen=True)
class Goal:
    """Where an action sends a hand, in the world: position (3,), orientation (3, 3); gripper's sign."""

    pos: Array
    turn: Array
    grip: float


class Controller:
    """The controller of one dialect on one recorded model.

    Args:
        model: the recording's own.
        settings: of its controller.
        dialect: to speak.
        control_freq: control steps per second.
        posture: joint angles that the null space pulls to, and of the last reset, (arms, joints).

    Raises:
        CaliperError: the model holds no arm that this controller could drive.
    """

    def __init__(
        self, model: mujoco.MjModel, settings: Settings, dialect: Dialect, control_freq: float, posture: Array
    ) -> None:
        self.model, self.settings, self.dialect, self.posture = model, settings, dialect, posture
        self.arms = arms_of(model, settings)
        self.substeps = round(1 / model.opt.timestep / control_freq)
        self._mass, self._jac = np.zeros((model.nv, model.nv)), np.zeros((6, model.nv))
        self._step = dialect.fingers

    def put(self, data: mujoco.MjData, state: Array) -> None:
        """Writes a recorded state (s,) and derives what depends on it."""
        mujoco.mj_resetData(self.model, data)
        data.time, data.qpos[:], data.qvel[:] = (
            state[0],
            state[1 : 1 + self.model.nq],
            state[1 + self.model.nq :],
        )
        mujoco.mj_forward(self.model, data)

    def at_rest(self, state: Array) -> mujoco.MjData:
        """What the controller saw at the reset before a first state (s,): the robot without its noise."""
        data = mujoco.MjData(self.model)
        self.put(data, state)
        for arm, posture in zip(self.arms, self.posture, strict=True):
            data.qpos[arm.qpos] = posture
        data.qvel[:] = 0
        mujoco.mj_forward(self.model, data)
        return data

    def goals(self, data: mujoco.MjData, action: Array, hidden: Sequence[Hidden]) -> list[Goal]:
        """Where an action (a,) sends each arm from the state in `data`."""
        goals = []
        parts = np.split(action, np.cumsum([arm.dim for arm in self.arms])[:-1])
        for arm, part, before in zip(self.arms, parts, hidden, strict=True):
            offset, turn = self.settings.scale(part[: len(self.settings.high)])
            based = self.dialect.based and not self.settings.world
            frame = data.xmat[arm.base].reshape(3, 3) if based else np.eye(3)
            if self.dialect.holds and self.settings.position_only:
                orientation = DOWN
            elif self.dialect.holds and not turn.any():
                orientation = before.turn
            else:
                rotation = rotation_matrix(-turn if self.dialect.transposed else turn)
                orientation = frame @ rotation @ frame.T @ data.site_xmat[arm.site].reshape(3, 3)
            grip = float(np.sign(part[-1])) if arm.fingers else 0.0
            goals.append(Goal(data.site_xpos[arm.site] + frame @ offset, orientation, grip))
        return goals

    def closed(self, closing: Array, grip: float, substeps: int) -> Array:
        """The finger command (2,) after some physics steps of a control step."""
        way = JUMP if self._step is None else self._step * substeps
        return np.clip(closing + np.array([-way, way]) * grip, -1, 1)

    def history(self, states: Array, actions: Array) -> list[list[Hidden]]:
        """What the states leave out, before each step, per arm.

        A file that starts later than its reset has lost actions. Their gripper sign is taken to be the next
        one's, as nothing else tells it, and their rotation none.

        Args:
            states: (t, s).
            actions: (t, a).
        """
        data, out = self.at_rest(states[0]), []
        hidden = [Hidden(np.zeros(2), data.site_xmat[arm.site].reshape(3, 3).copy()) for arm in self.arms]
        for _ in range(min(self.lost(states), CLOSED)):
            for before, goal in zip(hidden, self.goals(data, actions[0], hidden), strict=True):
                before.closing = self.closed(before.closing, goal.grip, self.substeps)
        for t, action in enumerate(actions):
            out.append([copy.copy(before) for before in hidden])
            if t or not self.starts_stale(states):
                data.qpos[:] = states[t, 1 : 1 + self.model.nq]
                mujoco.mj_kinematics(self.model, data)
            for before, goal in zip(hidden, self.goals(data, action, hidden), strict=True):
                before.turn, before.closing = goal.turn, self.closed(before.closing, goal.grip, self.substeps)
        return out

    def lost(self, states: Array) -> int:
        """Control steps between the reset and the first recorded state."""
        step: float = self.substeps * self.model.opt.timestep
        return round(float(states[0, 0]) / step)

    def starts_stale(self, states: Array) -> bool:
        """Whether the first recorded step is the first that the controller ran after a reset.

        Then its goal, and the torques of its first physics step, come from what it saw at the reset. 1.0 has
        lost one action before, during which the controller did not run.
        """
        return self.lost(states) <= 1

    def step(
        self, data: mujoco.MjData, action: Array, hidden: Sequence[Hidden], rest: mujoco.MjData | None = None
    ) -> None:
        """Advances `data` by a control step.

        Args:
            data: in the state before the action.
            action: (a,).
            hidden: what the state leaves out.
            rest: what the controller believes at the first physics step, where that is not `data`.
        """
        goals = self.goals(data if rest is None else rest, action, hidden)
        for i in range(self.substeps):
            seen = rest if rest is not None and i == 0 else data
            mujoco.mj_fullM(self.model, seen, self._mass)
            for arm, posture, before, goal in zip(self.arms, self.posture, hidden, goals, strict=True):
                torque = self._torque(seen, arm, posture, goal) + data.qfrc_bias[arm.dof]
                data.ctrl[arm.motors] = np.clip(torque, arm.low, arm.high)
                if arm.fingers:
                    closing = self.closed(before.closing, goal.grip, i + 1)
                    mid, half = (arm.finger_high + arm.finger_low) / 2, (arm.finger_high - arm.finger_low) / 2
                    data.ctrl[arm.fingers] = mid + half * closing
            mujoco.mj_step2(self.model, data)
            mujoco.mj_step1(self.model, data)

    def _torque(self, data: mujoco.MjData, arm: Arm, posture: Array, goal: Goal) -> Array:
        """Torques of an arm's motors without the bias, newton metres; see `caliper.envs.robot.controller`."""
        mujoco.mj_jacSite(self.model, data, self._jac[:3], self._jac[3:], arm.site)
        jac, mass, velocity = self._jac[:, arm.dof], self._mass[np.ix_(arm.dof, arm.dof)], data.qvel[arm.dof]
        turn = data.site_xmat[arm.site].reshape(3, 3)
        error = np.concatenate(
            [goal.pos - data.site_xpos[arm.site], np.cross(turn.T, goal.turn.T).sum(0) / 2]
        )  # (6,)
        wanted = self.settings.kp * error - self.settings.kd * (jac @ velocity)
        inverse = np.linalg.solve(mass, jac.T)  # (joints, 6)
        mobility = jac @ inverse
        if self.settings.uncoupled:
            force = np.linalg.solve(mobility[:3, :3], wanted[:3])
            wrench = np.concatenate([force, np.linalg.solve(mobility[3:, 3:], wanted[3:])])
        else:
            wrench = np.linalg.solve(mobility, wanted)
        null = mass @ (KNULL * (posture - data.qpos[arm.qpos]) - 2 * np.sqrt(KNULL) * velocity)
        return np.asarray(jac.T @ (wrench - np.linalg.solve(mobility, inverse.T @ null)) + null)


def arms_of(model: mujoco.MjModel, settings: Settings) -> list[Arm]:
    """The arms in a recorded model, in the order of their numbers.

    Raises:
        CaliperError: there is none, or one of another kind.
    """
    names = (model.joint(j).name for j in range(model.njnt))
    numbers = sorted({int(found[1]) for name in names if (found := ARM_JOINT.fullmatch(name))})
    if not numbers:
        raise CaliperError("its model holds no robot of robosuite's (no joint named robot0_joint1)")
    return [Arm(model, number, settings.position_only) for number in numbers]


@contextmanager
def unwarned() -> Iterator[None]:
    """No warnings of numpy's and of MuJoCo's meanwhile, which also go to a file in the user's folder.

    A model that blows up in the hands of a wrong controller is what a measurement is for.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        mujoco.set_mju_user_warning(before)


def rotation_matrix(vector: Array) -> Array:
    """The rotation (3, 3) about an axis by its length, radians (3,)."""
    quat, matrix, angle = np.zeros(4), np.zeros(9), float(np.linalg.norm(vector))
    mujoco.mju_axisAngle2Quat(quat, vector / angle if angle else np.array([1.0, 0.0, 0.0]), angle)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def rotation_vector(matrix: Array) -> Array:
    """The axis times the angle, radians (3,), of a rotation (3, 3)."""
    quat, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix).ravel())
    mujoco.mju_quat2Vel(vector, quat, 1)
    return vector
