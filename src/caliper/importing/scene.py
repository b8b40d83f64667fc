"""A recording's states in Caliper's scene of the task: carried over by name, compared, judged, stepped."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.scenes import state_dim
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError
from caliper.importing.controller import ARM_JOINT, Array

NUM_ENVS = 64  # steps that are tried side by side
PARKED = 2.0  # m from the robot's base, in every step: an object that takes no part
MOVED = 0.01  # m; more than that, and a grasp of the one scene is none in the other
DEEPER = 0.005  # m of contact at the start, beyond the file's own: another object of the same name
NOTED = 1e-4  # m; smaller differences go without saying
HEAVIER = 0.02  # of mass or of moment of inertia, relative; smaller differences go without saying
FREE = mujoco.mjtJoint.mjJNT_FREE


def canonical(name: str) -> str:
    """A joint's or body's name without what the versions differ in.

    >>> canonical("gripper0_right_finger_joint1"), canonical("Milk0_jnt0"), canonical("cube_main")
    ('gripper0_finger_joint1', 'Milk', 'cube')
    """
    if re.match(r"(robot|gripper|mount|fixed_mount)\d", name):
        return name.replace("right_", "")
    plain = re.sub(r"_?(main|root|jnt\d?|joint\d?)$", "", name)
    return re.sub(r"(?<=[A-Za-z])0$", "", plain)


@dataclass(frozen=True)
class Carried:
    """Recorded states in the scene's order.

    Attributes:
        states: (t, s).
        parked: joints of the file that take no part and were left out.
    """

    states: Array
    parked: Sequence[str]


def carry(theirs: mujoco.MjModel, ours: mujoco.MjModel, states: Array) -> Carried:
    """Recorded states (t, s) in the order of our scene's joints, by their names.

    Raises:
        CaliperError: a joint of the scene has no partner, or an object that the scene lacks lies within
            reach; names it.
    """
    partners: dict[str, int] = {}
    for j in range(theirs.njnt):
        name = canonical(theirs.joint(j).name)
        if name in partners:
            raise CaliperError(f"its model has two joints that are called {name} here")
        partners[name] = j
    out = np.zeros((len(states), state_dim(ours)))
    out[:, 0] = states[:, 0]
    for j in range(ours.njnt):
        i = partners.pop(canonical(ours.joint(j).name), None)
        if i is None or theirs.jnt_type[i] != ours.jnt_type[j]:
            raise CaliperError(f"its model has no joint for {ours.joint(j).name} of the scene")
        free = ours.jnt_type[j] == FREE
        for width, source, target in (
            (7 if free else 1, 1 + theirs.jnt_qposadr[i], 1 + ours.jnt_qposadr[j]),
            (6 if free else 1, 1 + theirs.nq + theirs.jnt_dofadr[i], 1 + ours.nq + ours.jnt_dofadr[j]),
        ):
            out[:, target : target + width] = states[:, source : source + width]
    out[:, 1 + ours.nq + ours.nv :] = _fixtures(theirs, ours)
    base = _base(theirs)
    for name, i in partners.items():
        at = 1 + theirs.jnt_qposadr[i]
        near = (
            theirs.jnt_type[i] != FREE or np.linalg.norm(states[:, at : at + 2] - base, axis=1).min() < PARKED
        )
        if near:
            raise CaliperError(f"its {name} takes part, and the scene has none")
    return Carried(out, sorted(partners))


def put_fixtures(data: mujoco.MjData, state: Array) -> None:
    """Puts a scene's fixtures where its state (s,) has them; a recording's states have none."""
    if len(state) == state_dim(data.model):
        fixtures = state[1 + data.model.nq + data.model.nv :].reshape(-1, 7)
        data.mocap_pos[:], data.mocap_quat[:] = fixtures[:, :3], fixtures[:, 3:]


def _fixtures(theirs: mujoco.MjModel, ours: mujoco.MjModel) -> Array:
    """Where the file's model has what stands anew in each episode, such as a door's frame: (7 * nmocap,)."""
    data, out = mujoco.MjData(theirs), np.zeros((ours.nmocap, 7))
    mujoco.mj_kinematics(theirs, data)
    bodies = {canonical(theirs.body(i).name): i for i in range(1, theirs.nbody)}
    for j in (j for j in range(ours.nbody) if ours.body_mocapid[j] >= 0):
        if (i := bodies.get(canonical(ours.body(j).name))) is None:
            raise CaliperError(f"its model has no {ours.body(j).name}, which the scene has")
        out[ours.body_mocapid[j]] = *data.xpos[i], *data.xquat[i]
    return out.ravel()


def _base(model: mujoco.MjModel) -> Array:
    """Where the first arm stands, x and y in metres."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    joints = (j for j in range(model.njnt) if ARM_JOINT.fullmatch(model.joint(j).name))
    return np.asarray(data.xpos[model.body_parentid[model.jnt_bodyid[next(joints)]], :2].copy())


def differences(
    theirs: mujoco.MjModel, ours: mujoco.MjModel, recorded: Array, carried: Array, site: tuple[int, int]
) -> list[str]:
    """How the scene differs from the file's own model, as far as it matters; sentences.

    Args:
        theirs: the file's own model.
        ours: the scene.
        recorded: a state (s,) of the file.
        carried: the same in the scene's order.
        site: the grip sites, theirs and ours.

    Raises:
        CaliperError: the scene is too different to stand for the file's.
    """
    a, b = _posed(theirs, recorded), _posed(ours, carried)
    notes: list[str] = []
    gap = b.site_xpos[site[1]] - a.site_xpos[site[0]]
    _note(notes, "the hand stands", gap)
    bodies = {canonical(theirs.body(i).name): i for i in range(1, theirs.nbody)}
    for j in range(1, ours.nbody):
        name = canonical(ours.body(j).name)
        i = bodies.get(name)
        if i is None or re.match(r"(robot|gripper|mount|fixed_mount|base)\d?", name):
            continue
        if not (_collides(theirs, i) and _collides(ours, j)):
            continue
        if theirs.body_weldid[i] == 0 and ours.body_weldid[j] == 0:
            _note(notes, f"{name} stands", b.xpos[j] - a.xpos[i])
        elif (bigger := np.abs(_extent(ours, j) - _extent(theirs, i)).max()) > MOVED:
            raise CaliperError(
                f"the scene's {name} is another of the same name: its half sides differ by "
                f"{1e3 * bigger:.0f} mm"
            )
        elif bigger > NOTED:
            notes.append(f"half sides of {name} differ by {1e3 * bigger:.1f} mm")
        elif (heavier := _heavier(theirs, i, ours, j)) > HEAVIER:
            notes.append(f"warning: mass or shape of {name} is another, its inertia by {heavier:.0%}")
    known = {canonical(ours.body(j).name) for j in range(ours.nbody)}
    deeper = _depth(b) - _depth(a, known)
    if deeper > DEEPER:
        raise CaliperError(
            f"the scene's objects are others of the same names: they start {1e3 * deeper:.0f} mm deeper in "
            "each other than in the file's own model"
        )
    return notes


def _note(notes: list[str], what: str, gap: Array) -> None:
    if (far := float(np.linalg.norm(gap))) > MOVED:
        raise CaliperError(f"{what} {1e2 * far:.1f} cm elsewhere in the scene than in the file's own model")
    if far > NOTED:
        notes.append(f"{what} {1e3 * far:.1f} mm elsewhere")


def _posed(model: mujoco.MjModel, state: Array) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:] = state[1 : 1 + model.nq]
    put_fixtures(data, state)
    mujoco.mj_forward(model, data)
    return data


def _geoms(model: mujoco.MjModel, body: int) -> list[int]:
    hard = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    found: list[int] = np.flatnonzero((model.geom_bodyid == body) & hard).tolist()
    return found


def _collides(model: mujoco.MjModel, body: int) -> bool:
    return bool(len(_geoms(model, body)))


def _extent(model: mujoco.MjModel, body: int) -> Array:
    """Half sides of the box around what collides of a body, in its frame, metres (3,)."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for g in _geoms(model, body):
        turn, centre, half = np.zeros(9), model.geom_aabb[g, :3], model.geom_aabb[g, 3:]
        mujoco.mju_quat2Mat(turn, model.geom_quat[g])
        at = model.geom_pos[g] + turn.reshape(3, 3) @ centre
        reach = np.abs(turn.reshape(3, 3)) @ half
        low, high = np.minimum(low, at - reach), np.maximum(high, at + reach)
    half_sides: Array = (high - low) / 2
    return half_sides


def _heavier(theirs: mujoco.MjModel, i: int, ours: mujoco.MjModel, j: int) -> float:
    """Largest relative difference of two bodies' masses and principal moments of inertia."""
    pairs = ((theirs.body_mass[i], ours.body_mass[j]), (theirs.body_inertia[i], ours.body_inertia[j]))
    return max(float(np.max(np.abs(b - a) / np.maximum(np.abs(b).max(), 1e-12))) for a, b in pairs)


def _depth(data: mujoco.MjData, known: Container[str] | None = None) -> float:
    """Depth of the deepest contact, metres; only those of bodies of `known` names, if given.

    Objects that take no part are parked in each other, several centimetres deep.
    """
    model, deepest = data.model, 0.0
    for contact in data.contact[: data.ncon]:
        names = [canonical(model.body(model.geom_bodyid[g]).name) for g in contact.geom]
        if known is None or all(name in known for name in names):
            deepest = max(deepest, -float(contact.dist))
    return deepest


@dataclass(frozen=True)
class Step:
    """Errors of single control steps in the scene.

    Attributes:
        arm: largest joint error of the arm, rad (t,).
        fingers: of the fingers, m (t,).
        object: distance of the task's object, m (t,).
        last: the scene's state after the last action, (s,).
    """

    arm: Array
    fingers: Array
    object: Array
    last: Array


class SceneTrial:
    """Caliper's envs of a task, in which recorded states are judged and stepped.

    Args:
        task: name of the task.
        controller: that reads the actions.
        control_freq: control steps per second.

    Raises:
        CaliperError: the frequency does not divide the physics' rate.
    """

    def __init__(self, task: str, controller: str, control_freq: int) -> None:
        self.env = SimEnv(
            task,
            NUM_ENVS,
            cameras=(),
            controller=controller,
            control_freq=control_freq,
            horizon=1 << 40,
        )
        self.model = self.env.engine.model
        index = self.env.engine.controller.index
        self.site, self._arm, self._fingers = index.grip_site, index.qpos, index.finger_qpos

    def solved(self, states: Array) -> Array:
        """Which of the states (t, s) meet the task's test, bool (t,)."""
        found = []
        for first in range(0, len(states), NUM_ENVS):
            batch = torch.as_tensor(states[first : first + NUM_ENVS])
            self.env.set_state(batch)
            found.append(self.env.solved()[: len(batch)].numpy())
        return np.concatenate(found)

    def step(self, states: Array, actions: Array, posture: str) -> Step:
        """Every recorded step by itself: from its state, under its action, compared with the next state.

        Args:
            states: (t, s) in the scene's order.
            actions: (t, a) of the scene's controller.
            posture: "rest" or "start", see `caliper.importing.dialect.Way`.
        """
        env, nq, nv = self.env, self.model.nq, self.model.nv
        closing = fingers_closed(actions[:, -1], env.control_freq)  # (t, 2)
        start = states[0, 1 + self._arm]
        after = []
        for first in range(0, len(states), NUM_ENVS):
            rows = states[first : first + NUM_ENVS]
            m, state = len(rows), env.state_dict()
            for name in ("ctrl", "warmstart", "closing"):
                state[name].zero_()
            state["steps"].zero_()
            state["posture"][:] = torch.as_tensor(
                np.array(robot_facts("panda").posture) if posture == "rest" else start
            )
            state["qpos"][:m] = torch.as_tensor(rows[:, 1 : 1 + nq])
            state["qvel"][:m] = torch.as_tensor(rows[:, 1 + nq : 1 + nq + nv])
            if self.model.nmocap:
                fixtures = torch.as_tensor(rows[:, 1 + nq + nv :]).view(m, -1, 7)
                state["mocap_pos"][:m], state["mocap_quat"][:m] = fixtures[..., :3], fixtures[..., 3:]
            state["closing"][:m] = torch.as_tensor(closing[first : first + m])
            env.load_state_dict(state)
            action = torch.zeros(NUM_ENVS, env.action_dim, dtype=torch.float64)
            action[:m] = torch.as_tensor(actions[first : first + m])
            env.step(action)
            after.append(env.final_state[:m].numpy().copy())
        reached = np.concatenate(after)  # (t, s)
        gap = np.abs(reached[:-1, 1:] - states[1:, 1:])
        moved = self._object_at(reached[:-1]) - self._object_at(states[1:])
        return Step(
            arm=gap[:, self._arm].max(1),
            fingers=gap[:, self._fingers].max(1),
            object=np.linalg.norm(moved, axis=1),
            last=reached[-1],
        )

    def _object_at(self, states: Array) -> Array:
        """Where the task's object is in states (t, s), metres (t, 3)."""
        found = [np.zeros((0, 3))]
        for first in range(0, len(states), NUM_ENVS):
            batch = torch.as_tensor(states[first : first + NUM_ENVS])
            self.env.set_state(batch)
            found.append(self.env.object_pos[: len(batch)].double().numpy().copy())
        return np.concatenate(found)


def fingers_closed(grip: Array, control_freq: int) -> Array:
    """The finger command before each step (t, 2), from the gripper entries (t,) of all actions."""
    way = np.array(robot_facts("panda").closing) / control_freq
    closing, out = np.zeros(2), []
    for sign in np.sign(grip):
        out.append(closing)
        closing = np.clip(closing + way * sign, -1, 1)
    return np.array(out)
