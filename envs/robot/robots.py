"""What the controllers and the starts of episodes must know of a robot, asked of robosuite's own classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np

from caliper.envs.scene.scenes import mounted

POSTURE_NOISE = 0.02  # radians: robosuite's Gaussian noise on the rest posture at reset
GRIPPER_FREQ = 20  # Hz at which robosuite's grippers are as fast as theirs


@dataclass(frozen=True)
class Robot:
    """One of robosuite's arms with its default gripper; names are those in a scene's model.

    Attributes:
        joints, motors: of the arm, from the base to the gripper.
        posture: the arm's rest, radians.
        fingers: the gripper's joints.
        opening: where they start, metres or radians.
        gripper: the gripper's motors.
        closing: commands of these, in half ranges per second, that close it.
        grip_site: the point that operational-space control moves.
        base_site: the frame in which it does.
        carried: how many of the arm's joints, the first ones, move that frame.
        quick: whether the gripper holds what it takes before its fingers rest, so that no script need wait.
    """

    joints: tuple[str, ...]
    motors: tuple[str, ...]
    posture: tuple[float, ...]
    fingers: tuple[str, ...]
    opening: tuple[float, ...]
    gripper: tuple[str, ...]
    closing: tuple[float, ...]
    grip_site: str
    base_site: str
    carried: int
    quick: bool


@cache
def robot_facts(robot: str) -> Robot:
    """The facts of a robot by its name.

    Raises:
        CaliperError: no such robot.
    """
    model, gripper = mounted(robot)
    base_site = f"{model.naming_prefix}right_center"
    body, carried = mujoco.MjSpec.from_string(model.get_xml()).site(base_site).parent, 0
    while body.parent is not None:
        carried, body = carried + len(body.joints), body.parent
    return Robot(
        joints=tuple(model.joints),
        motors=tuple(model.actuators),
        posture=tuple(model.init_qpos.tolist()),
        fingers=tuple(gripper.joints),
        opening=tuple(gripper.init_qpos.tolist()),
        gripper=tuple(gripper.actuators),
        # What robosuite commands in the first control step of a fresh gripper that is told to close.
        closing=tuple((gripper.format_action(np.array([1.0])) * GRIPPER_FREQ).tolist()),
        grip_site=gripper.important_sites["grip_site"],
        base_site=base_site,
        carried=carried,
        quick=robot == "panda",
    )
