"""What the entries of an action mean, from the constants that the controller computes with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from caliper.envs.robot.control import JOINTS, action_names
from caliper.envs.robot.joint_kernels import ANGLE_SCALE, SPEED_SCALE
from caliper.envs.robot.kernels import POSITION_RANGE, POSITION_SCALE, ROTATION_RANGE, ROTATION_SCALE
from caliper.envs.robot.robots import GRIPPER_FREQ, Robot, robot_facts

AXES = {"x": "away from the robot", "y": "to its left", "z": "up"}
FRAME = "the robot's base, which has the world's directions in every scene"
OWN_FRAME = "each robot's own base, whose x points away from it; it may be turned in the world"
TURNING_FRAME = "the robot's first link, which turns with {}; at 0 it has the world's directions"
RELATIVE_TO = "the pose of the grip point when the action arrives, not the goal of the action before"


def action_meaning(controller: str, control_freq: int, robot: str = "panda") -> dict[str, Any]:
    """What an action means, in plain values: what a dataset says of its own.

    Args:
        controller: one of `caliper.envs.robot.control.CONTROLLERS`.
        control_freq: actions per second.
        robot: one of `caliper.envs.scene.scenes.ROBOTS`.

    Returns:
        entries (each with name, one = what an entry of 1 asks for, and meaning), limits, outside, frame,
        relative_to, seconds.

    Raises:
        CaliperError: no such controller or robot.
    """
    names, facts = action_names(controller, robot), robot_facts(robot)
    gripper = _gripper(facts, GRIPPER_FREQ)
    frame = TURNING_FRAME.format(facts.joints[0]) if facts.carried else FRAME
    if controller in JOINTS:
        frame, arm = "each joint's own axis", [_joint(controller, name) for name in names[:-1]]
        relative_to = "the angles when the action arrives" if controller == "joint_position" else "rest"
    elif controller.endswith("absolute"):
        frame, arm = f"{frame}; its origin is {facts.base_site}", [_pose(name) for name in names[:-1]]
        relative_to = "nothing: it says the pose itself"
    else:
        arm, relative_to = [_offset(name) for name in names[:-1]], RELATIVE_TO
    return {
        "entries": [*arm, gripper],
        "limits": [-1, 1],
        "outside": "clipped by the env, refused in a file",
        "frame": frame,
        "relative_to": relative_to,
        "seconds": round(1 / control_freq, 6),
    }


def robosuite_meaning(controller: str, control_freq: int, robots: Sequence[str]) -> dict[str, Any]:
    """The same of an environment that robosuite steps: the robots in turn, `robot0 x` and so on.

    Args:
        controller: of each robot's arm.
        control_freq: actions per second, at each of which robosuite's grippers move on.
        robots: of `caliper.envs.scene.scenes.ROBOTS`.
    """
    each = [action_meaning(controller, control_freq, robot) for robot in robots]
    entries = []
    for i, (robot, told) in enumerate(zip(robots, each, strict=True)):
        own = [*told["entries"][:-1], _gripper(robot_facts(robot), control_freq)]
        entries += [entry | {"name": f"robot{i} {entry['name']}"} for entry in own]
    frames = [told["frame"].replace(FRAME, OWN_FRAME) for told in each]
    frame = "; ".join(f"robot{i}: {own}" for i, own in enumerate(frames))
    return each[0] | {"entries": entries, "frame": frame if len(set(frames)) > 1 else frames[0]}


def _gripper(robot: Robot, freq: float) -> dict[str, str]:
    """The last entry, for a gripper that moves on `freq` times a second by robosuite's step."""
    wide = 2 / max(map(abs, robot.closing)) * GRIPPER_FREQ / freq
    meaning = f"only the sign counts: above 0 closes, below 0 opens, 0 holds; {wide:g} s a way"
    return {"name": "gripper", "one": "closes", "meaning": meaning}


def _offset(name: str) -> dict[str, str]:
    if name in AXES:
        one, meaning = f"{POSITION_SCALE:g} m", f"offset of the grip point {AXES[name]}"
    else:
        one, meaning = (
            f"{ROTATION_SCALE:g} rad",
            f"turn about {name[1]} of the frame: a part of axis times angle",
        )
    return {"name": name, "one": one, "meaning": meaning}


def _pose(name: str) -> dict[str, str]:
    if name in AXES:
        one, meaning = f"{POSITION_RANGE:g} m", f"where the grip point goes, {AXES[name]}"
    else:
        one = f"{ROTATION_RANGE:g} rad"
        meaning = f"how the gripper is turned in the frame, about {name[1]}: a part of axis times angle"
    return {"name": name, "one": one, "meaning": meaning}


def _joint(controller: str, name: str) -> dict[str, str]:
    if controller == "joint_position":
        return {"name": name, "one": f"{ANGLE_SCALE:g} rad", "meaning": "offset of the joint's angle"}
    return {"name": name, "one": f"{SPEED_SCALE:g} rad/s", "meaning": "speed of the joint"}


def action_json(controller: str, control_freq: int, robot: str = "panda") -> str:
    """The same as one line of JSON: what a dataset carries."""
    return json.dumps(action_meaning(controller, control_freq, robot), sort_keys=True)


def action_table(controller: str, control_freq: int, robot: str = "panda") -> str:
    """The same as lines of text for people."""
    meaning = action_meaning(controller, control_freq, robot)
    width = max(8, *(len(entry["name"]) for entry in meaning["entries"]))
    rows = [
        f"{i}  {entry['name']:{width}} 1 = {entry['one']:9} {entry['meaning']}"
        for i, entry in enumerate(meaning["entries"])
    ]
    low, high = meaning["limits"]
    return "\n".join(
        [
            *rows,
            f"each in [{low}, {high}]: {meaning['outside']}",
            f"frame: {meaning['frame']}",
            f"relative to: {meaning['relative_to']}",
            f"lasts {meaning['seconds']:g} s ({control_freq} Hz)",
        ]
    )
