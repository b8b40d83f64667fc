"""The policy's cameras in a configuration: names, each with a size of its own or without.

A run keeps them as a list, such as [agentview:96x128, robot0_eye_in_hand]; a command line may also say
{agentview: [96, 128], robot0_eye_in_hand: 64}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from caliper.errors import CaliperError

KEY = "task.cameras"
LARGEST = 1024  # pixels, as `task.size`
_SIZE = re.compile(r"(\d{1,4})(?:x(\d{1,4}))?")


def as_list(cameras: Any) -> Any:
    """Cameras with sizes, {name: side or [height, width]}, as the list that a run keeps; a list as it is.

    Raises:
        CaliperError: a size is neither.
    """
    if not isinstance(cameras, Mapping):
        return cameras
    found = []
    for name, size in cameras.items():
        sides = size if isinstance(size, list) else [size]
        if len(sides) not in (1, 2) or not all(type(side) is int for side in sides):
            raise CaliperError(
                f"{KEY}: {name} has the size {size}; give a side in pixels, or [height, width]"
            )
        found.append(f"{name}:{'x'.join(map(str, sides))}")
    return found


def listed(word: str) -> str:
    """A command line's pair, with a mapping of cameras as a list; every other pair as it is.

    Raises:
        CaliperError: what is in the braces is no mapping of names to sizes.
    """
    key, _, value = word.partition("=")
    if key.lstrip("+") != KEY or not value.startswith("{"):
        return word
    try:
        cameras = yaml.safe_load(value.replace(":", ": "))
    except yaml.YAMLError:
        cameras = None
    if not isinstance(cameras, dict):
        raise CaliperError(f"{word} does not fit; write {KEY}={{agentview:[96,128],robot0_eye_in_hand:64}}")
    return f"{key}=[{','.join(map(repr, as_list(cameras)))}]"


def camera_sizes(cameras: Sequence[str], size: int) -> dict[str, tuple[int, int]]:
    """Height and width of each camera's images, pixels, by the cameras' names.

    Args:
        cameras: `task.cameras`.
        size: side of the images of a camera without a size of its own.

    Raises:
        CaliperError: a size that cannot be read, or out of bounds; or a camera that is named twice.
    """
    found: dict[str, tuple[int, int]] = {}
    for entry in cameras:
        name, _, own = entry.partition(":")
        if name in found:
            raise CaliperError(f"{KEY}: '{name}' is named twice; name each camera once")
        match = _SIZE.fullmatch(own or str(size))
        sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= min(sides) <= max(sides) <= LARGEST:
            raise CaliperError(
                f"{KEY}: '{entry}' makes no sense; a size is {name}:64, or {name}:96x128 for height and "
                f"width, at least 1 and at most {LARGEST}"
            )
        found[name] = sides
    return found
