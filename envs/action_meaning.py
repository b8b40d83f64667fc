"""What the entries of an action mean, from the constants that the controller computes with."""

from __future__ import annotations

import json
from typing import Any

from caliper.envs.controller import GRIPPER_SPEED, action_dim
from caliper.envs.kernels import POSITION_SCALE, ROTATION_SCALE

AXES = {"x": "away from the robot", "y": "to its left", "z": "up"}
FRAME = "the robot's base, which has the world's directions in every scene"
RELATIVE_TO = "the pose of the grip point when the action arrives, not the goal of the action before"


def action_meaning(controller: str, control_freq: int) -> dict[str, Any]:
    """What an action means, in plain values: what a dataset says of its own.

    Args:
        controller: "osc_pose" or "osc_position".
        control_freq: actions per second.

    Returns:
        entries (each with name, one = what an entry of 1 asks for, and meaning), limits, outside, frame,
        relative_to, seconds.

    Raises:
        CaliperError: no such controller.
    """
    moves = [
        {"name": axis, "one": f"{POSITION_SCALE:g} m", "meaning": f"offset of the grip point {way}"}
        for axis, way in AXES.items()
    ]
    turns = [
        {
            "name": f"r{axis}",
            "one": f"{ROTATION_SCALE:g} rad",
            "meaning": f"turn about {axis} of the frame: a part of axis times angle",
        }
        for axis in AXES
    ]
    wide = 2 / GRIPPER_SPEED
    gripper = {
        "name": "gripper",
        "one": "closes",
        "meaning": f"only the sign counts: above 0 closes, below 0 opens, 0 holds; {wide:g} s a way",
    }
    return {
        "entries": [*moves, *(turns if action_dim(controller) == 7 else ()), gripper],
        "limits": [-1, 1],
        "outside": "clipped by the env, refused in a file",
        "frame": FRAME,
        "relative_to": RELATIVE_TO,
        "seconds": round(1 / control_freq, 6),
    }


def action_json(controller: str, control_freq: int) -> str:
    """The same as one line of JSON: what a dataset carries."""
    return json.dumps(action_meaning(controller, control_freq), sort_keys=True)


def action_table(controller: str, control_freq: int) -> str:
    """The same as lines of text for people."""
    meaning = action_meaning(controller, control_freq)
    rows = [
        f"{i}  {entry['name']:8} 1 = {entry['one']:9} {entry['meaning']}"
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
