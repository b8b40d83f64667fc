"""What a task is: a scene, where its object starts, when it is solved, and how a script would solve it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import mujoco
import numpy as np
import torch
from torch import Tensor

from caliper.envs.engines.sizes import add_size
from caliper.envs.situation import Situation, add_touch_sensor
from caliper.errors import CaliperError

GAIN = 0.02  # metres of error at which a script's command saturates, at 20 Hz
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Opening:
    """Numbers of the expert's first stage, where something that slides along x covers the object. Metres.

    Attributes:
        body: what slides; its origin is the point to hold it by.
        free_x: where the body is, at least, once the object is free; world x.
        to_x: where the expert takes it.
        hover: height above the grasp point to come from and to leave to.
    """

    body: str
    free_x: float
    to_x: float
    hover: float


@dataclass(frozen=True)
class ExpertParameters:
    """Numbers of the scripted expert (`caliper.envs.scripts.experts`), metres and radians.

    Attributes:
        hover: height above the grasp point at which the gripper aligns.
        carry_z: height of the gripper while it carries.
        grasp: the point to hold the object by, in its frame.
        target: where to put the object: world x and y, or a body; None if lifting is all there is to do.
        release_z: height of the object's centre at which to let go, in the world or above the target body.
        target_tol: how near the target, horizontally, before lowering.
        symmetry: angle after which the object looks the same again; None if the gripper need not turn to it.
        turn: angle about the vertical to turn the object to before lowering it; None if any will do.
        turn_tol: how near `turn` before lowering.
        level: whether to keep the gripper vertical, which turning and far reaching tilt.
        opening: what has to be moved aside first; None if nothing covers the object.
        near: how near a waypoint, horizontally, before what comes next.
        gain: distance from a waypoint at which the command saturates, at 20 Hz.
    """

    hover: float
    carry_z: float
    grasp: tuple[float, float, float] = (0.0, 0.0, 0.0)
    target: tuple[float, float] | str | None = None
    release_z: float = 0.0
    target_tol: float = 0.012
    symmetry: float | None = None
    turn: float | None = None
    turn_tol: float = 0.08
    level: bool = False
    opening: Opening | None = None
    near: float = 0.012
    gain: float = GAIN


@dataclass(frozen=True)
class HandleParameters:
    """Numbers of the script that opens a door (`caliper.envs.scripts.handles`); the handle is the object.

    Attributes:
        door: body of the door.
        hinge: a point of the hinge's axis in the door's frame, metres; the axis is the frame's third.
        handle_joint: the joint of the handle, which turns about its own second axis; that points to the door.
        grasp: the point to hold the handle by, in its frame, metres.
        hover: distance before the door, from the grasp point, at which the gripper aligns, metres.
        free: angle of the handle from which on the latch lets go, radians.
    """

    door: str
    hinge: tuple[float, float, float]
    handle_joint: str
    grasp: tuple[float, float, float]
    hover: float
    free: float


@dataclass(frozen=True)
class HangParameters:
    """Numbers of the script that hangs the object, a tool, on a hook (`caliper.envs.scripts.hang`).

    Points are in their bodies' frames, metres. The hook's rod lies along its body's third axis, the bar at
    its top against the first; the tool's hole is at the start of its first axis, open along its third.

    Attributes:
        stand, frame: bodies of the stand and of the rod with its hook.
        mouth, floor: ends of the stand's hole.
        rod: the point to hold the rod by.
        grasp: the point to hold the tool by.
        tip, hole: sites at the rod's lower end and in the middle of the tool's hole.
        heading: where the gripper points, horizontally, while it inserts the rod; in the world.
        over: where the hole has to be before it is put over the hook's upright end, in the frame's frame.
        around: where it is to be then.
        hung: where it is to be when the tool is let go.
    """

    stand: str
    frame: str
    mouth: Point
    floor: Point
    rod: Point
    grasp: Point
    tip: str
    hole: str
    heading: Point
    over: Point
    around: Point
    hung: Point


class Task(ABC):
    """One task. Instances hold no state of any env.

    Attributes:
        name: as on the command line.
        object_body: body to manipulate.
        observed: further bodies whose poses a state observation holds, after the object's.
        contacts: pairs of bodies, each with all that hangs on it, or geoms, of which `success` asks whether
            they touch.
        draws: how many uniform numbers `place` takes.
        plan: the scripted expert's numbers, made for the panda.
        plans: those for other robots, by name, where they have to differ.
        joints: further joints whose positions `place_joints` draws.
        starts: names of the ways in which episodes can start, the usual one first; none if there is one way.
        stages: names of the stages after which the expert can stop, see `caliper.envs.scripts.experts`.
        recorded_as: what robosuite and its relatives call the task; their recordings can be imported into it.
        sizes: least and greatest half side of the object, a box, where episodes draw its size; metres.
        start: the way in which this instance's episodes start.
        robot: the one in the scene, see `caliper.envs.scene.scenes.ROBOTS`.
        draw_size: whether episodes draw the object's size.
    """

    name: str
    object_body: str
    observed: tuple[str, ...] = ()
    contacts: tuple[tuple[str, str], ...] = ()
    draws: int = 4
    plan: ExpertParameters | HandleParameters | HangParameters
    plans: Mapping[str, ExpertParameters | HandleParameters | HangParameters] = MappingProxyType({})
    joints: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    recorded_as: tuple[str, ...] = ()
    sizes: tuple[float, float] | None = None

    def __init__(self, start: str | None = None, robot: str = "panda", draw_size: bool = False) -> None:
        """Args: one of `starts`, None for the usual; the robot that is to solve it; whether to draw sizes.

        Raises:
            CaliperError: the task has no such start; lists them.
        """
        if start is not None and start not in self.starts:
            raise CaliperError(f"task '{self.name}' has no start '{start}'; {choose('start', self.starts)}")
        self.robot, self.plan = robot, self.plans.get(robot, self.plan)
        self.start = start or next(iter(self.starts), None)
        self.draw_size = draw_size

    @abstractmethod
    def compose(self) -> mujoco.MjSpec:
        """The scene before harmonisation."""

    def scene(self) -> mujoco.MjSpec:
        """The scene before harmonisation, with what `contacts` and `draw_size` need."""
        spec = self.compose()
        for body, other in self.contacts:
            add_touch_sensor(spec, body, other)
        if self.draw_size and self.sizes is not None:
            add_size(spec, self.object_body, self.sizes[1])
        return spec

    @abstractmethod
    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """Start poses by body, of those on free joints and of fixtures (mocap bodies).

        Args:
            uniform: (n, draws), in [0, 1).

        Returns:
            Positions and quaternions (wxyz), (n, 7) each.
        """

    def place_joints(self, uniform: Tensor) -> Tensor:
        """Start positions of `joints` (n, j) from uniform numbers (n, 4)."""
        return uniform[:, :0]

    @abstractmethod
    def success(self, now: Situation) -> Tensor:
        """Whether the task is solved, bool (n,)."""


def choose(what: str, known: tuple[str, ...]) -> str:
    """How to fix an unknown name."""
    return f"choose one of: {', '.join(known)}" if known else f"it has one {what}, so leave it out"


def upright(x: Tensor, y: Tensor, z: float | Tensor, yaw: Tensor) -> Tensor:
    """Poses (n, 7) of objects standing upright at (x, y, z), turned by yaw about the vertical."""
    zero = torch.zeros_like(x)
    return torch.stack([x, y, zero + z, torch.cos(yaw / 2), zero, zero, torch.sin(yaw / 2)], dim=1)


def spread(uniform: Tensor, low: float, high: float) -> Tensor:
    """Maps uniform numbers in [0, 1) to [low, high)."""
    return low + (high - low) * uniform


def add_camera(
    spec: mujoco.MjSpec, name: str, pos: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    """Adds a camera at `pos` that looks at `target`, its horizon level."""
    eye, at = np.array(pos), np.array(target)
    back = (eye - at) / np.linalg.norm(eye - at)  # MuJoCo's cameras look along -z
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    spec.worldbody.add_camera(name=name, pos=pos, quat=quat)
