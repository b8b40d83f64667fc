"""Which keys move the arm, and what each asks of the controller."""

from __future__ import annotations

from dataclasses import dataclass

from caliper.envs.robot.control import action_names
from caliper.errors import CaliperError

GRIPPER = "G"
GRIPPER_SECONDS = 0.4  # how long the arm waits for the gripper that was told to open or close
PRESS_SECONDS = 0.1  # what one press of a key lasts in the simulation
# Letters that the viewer's camera has not taken (W A S D Q E), two to an axis: the positive direction first.
# With shift held the same turn the gripper.
AXES = {"x": ("I", "K"), "y": ("J", "L"), "z": ("U", "O")}
TURNS = {"rx": ("J", "L"), "ry": ("I", "K"), "rz": ("U", "O")}
WORDS = {"x": ("away from the robot", "back"), "y": ("to its left", "to its right"), "z": ("up", "down")}


@dataclass(frozen=True)
class Move:
    """What a key does: entry `entry` of the action gets `sign`."""

    key: str
    shift: bool
    entry: int
    sign: int
    words: str


def moves(controller: str, robot: str) -> list[Move]:
    """The keys of a controller that moves the grip point.

    Raises:
        CaliperError: the controller speaks of joints, or of where to be instead of how to move.
    """
    if controller not in ("osc_position", "osc_pose"):
        raise CaliperError(
            f"task.controller={controller} cannot be moved by keys; say "
            "task.controller=osc_position or osc_pose"
        )
    found = []
    for entry, name in enumerate(action_names(controller, robot)[:-1]):
        keys = AXES.get(name) or TURNS[name]
        words = WORDS.get(name) or (f"turn about {name[1]}", f"turn about {name[1]}, backwards")
        for key, sign, word in zip(keys, (1, -1), words, strict=True):
            found.append(Move(key, name in TURNS, entry, sign, word))
    return found
