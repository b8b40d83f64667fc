"""How actions reach a robot: which robot, which controller, how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mujoco
import warp as wp

from caliper.envs.robot.controller import Arrays, Controller, OperationalSpace
from caliper.envs.robot.joint_control import JointPosition, JointVelocity
from caliper.envs.robot.robots import robot_facts
from caliper.errors import CaliperError, one_of

CONTROLLERS: dict[str, Callable[..., Controller]] = {
    "osc_pose": OperationalSpace,
    "osc_position": partial(OperationalSpace, turns=False),
    "osc_pose_absolute": partial(OperationalSpace, absolute=True),
    "osc_position_absolute": partial(OperationalSpace, turns=False, absolute=True),
    "joint_position": JointPosition,
    "joint_velocity": JointVelocity,
}
POSE, JOINTS = ("x", "y", "z", "rx", "ry", "rz"), ("joint_position", "joint_velocity")


def action_names(controller: str, robot: str = "panda") -> tuple[str, ...]:
    """What an action's entries are called: the arm's, then the gripper's, which opens (-1) or closes (1).

    Raises:
        CaliperError: no such controller or robot.
    """
    if controller not in CONTROLLERS:
        raise CaliperError(f"controller '{controller}' is unknown; {one_of(CONTROLLERS, controller)}")
    if controller in JOINTS:
        return (*robot_facts(robot).joints, "gripper")
    return (*POSE[: 6 if "pose" in controller else 3], "gripper")


def action_dim(controller: str, robot: str = "panda") -> int:
    """Length of the action of a controller.

    Raises:
        CaliperError: no such controller or robot.
    """
    return len(action_names(controller, robot))


@dataclass(frozen=True)
class Control:
    """A controller by its name, of a robot by its name, and its actions per second."""

    controller: str = "osc_pose"
    freq: float = 20
    robot: str = "panda"

    def on(self, model: mujoco.MjModel, arrays: Arrays, device: wp.Device) -> Controller:
        """The controller on an engine's live arrays, see `Controller`."""
        make = CONTROLLERS[self.controller]
        return make(model, robot_facts(self.robot), arrays, self.freq, device)
