"""What an observation's parts are called by other libraries, and in which layout and units they want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.envs.observation.lowdim import STANDARD
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec

NAMES = ("caliper", "robomimic", "lerobot")
# What the robot's own state is under the names of the other two, where nothing else is asked for.
ROBOSUITE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
ENDINGS = {"pixels": "image", "depth": "depth", "segmentation": "segmentation_instance"}  # robosuite's
Named = dict[str, Any]  # arrays, or one more such dict


def proprio_keys(names: str, proprio: Sequence[str] | None) -> tuple[str, ...]:
    """Which numbers of the robot's own state are observed.

    Args:
        names: see `named`.
        proprio: keys of one's choice, see `caliper.envs.observation.lowdim`; None is what is usual under
            these names.

    Raises:
        CaliperError: Caliper's standard ones are asked for under names of another library.
    """
    if proprio is None:
        return (STANDARD,) if names == "caliper" else ROBOSUITE
    if names != "caliper" and STANDARD in proprio:
        raise CaliperError(
            f"names='{names}' have no word for proprio '{STANDARD}'; leave proprio out, or choose "
            f"of robosuite's, such as {', '.join(ROBOSUITE)}"
        )
    return tuple(proprio)


def check_names(names: str, spec: ObsSpec, parts: Mapping[str, int] | None) -> None:
    """Refuses a set of names that does not exist, or has none for what is observed.

    Args:
        names: see `named`.
        spec: of the observations.
        parts: as for `named`, or None where it isn't known.

    Raises:
        CaliperError: says which there are.
    """
    if names not in NAMES:
        raise CaliperError(f"names={names!r} are unknown; choose one of: {', '.join(NAMES)}")
    if names == "caliper":
        return
    if spec.stack > 1:
        raise CaliperError(
            f"names='{names}' have no word for stacked frames; take frame_stack=1 and stack them there"
        )
    if parts is None or STANDARD in parts:
        raise CaliperError(
            f"names='{names}' need the robot's state in robosuite's numbers: make the env with "
            f"proprio=[{', '.join(ROBOSUITE)}]"
        )
    if names == "lerobot" and (spec.depth or spec.instances):
        raise CaliperError(
            "names='lerobot' have no word for depth and segmentation; use names='caliper' or 'robomimic'"
        )


def robot_parts(env: Any) -> Mapping[str, int] | None:
    """Entries of the robot's own state by their key, as in `SimEnv`, of envs as wrapped; None if unknown."""
    while env is not None and not hasattr(env, "robot_parts"):
        env = getattr(env, "env", None)
    found: Mapping[str, int] | None = getattr(env, "robot_parts", None)
    return found


def named(names: str, spec: ObsSpec, parts: Mapping[str, int] | None, obs: Obs) -> Named:
    """Observations as NumPy arrays under another library's names; copies that no later step writes to.

    Args:
        names: "caliper": images by the names of `spec.planes`, such as `pixels` uint8 (n, v, 3, h, w), and
            `proprio` (n, p), as in `Obs`. "robomimic": `<camera>_image` uint8 (n, h, w, 3),
            `<camera>_depth` float16 (n, h, w, 1) in metres, `<camera>_segmentation_instance` uint8
            (n, h, w, 1), each of `parts` by its own name, and `environment_state` (n, p - q), the bodies'
            part of a state observation, as in `SimEnv`: not robosuite's `object`, which has other entries.
            "lerobot": what its evaluation reads from an environment and turns into
            `observation.images.<camera>`, `observation.state` and `observation.environment_state`: `pixels`
            with an image (n, h, w, 3) per camera, `agent_pos` (n, q), all of `parts` in a row, and the same
            `environment_state`.
        spec: of the observations; `check_names` has seen it.
        parts: entries of the robot's own state by their key, in order, as in `SimEnv`.
        obs: n observations.
    """
    told = obs.proprio.cpu().numpy()
    if names == "caliper":
        images = {name: obs.images[name].cpu().numpy().copy() for name in spec.planes} if spec.cameras else {}
        return images | {"proprio": told.copy()}
    robot = _split(told, parts or {})
    bodies = told[:, sum(parts.values()) :].copy() if parts else told[:, :0]
    others = {"environment_state": bodies} if bodies.shape[1] else {}
    if names == "robomimic":
        return _images(spec, obs) | robot | others
    pixels = {name.removesuffix("_image"): image for name, image in _images(spec, obs).items()}
    own = np.concatenate(list(robot.values()), axis=1)
    return ({"pixels": pixels} if pixels else {}) | {"agent_pos": own} | others


def example(spec: ObsSpec) -> Obs:
    """One observation of zeros."""
    k = spec.stack
    images = {}
    for name, plane in spec.planes.items():
        v, c, h, w = plane.shape
        images[name] = torch.zeros(1, v, k * c, h, w, dtype=plane.dtype)
    return Obs.of({**images, "proprio": torch.zeros(1, k * spec.proprio)})


def _images(spec: ObsSpec, obs: Obs) -> dict[str, NDArray[Any]]:
    """Images (n, h, w, c) by robosuite's names."""
    found: dict[str, NDArray[Any]] = {}
    if not spec.cameras:
        return found
    for name, plane in spec.planes.items():
        images = obs.images[name].cpu().numpy()
        for v, camera in enumerate(plane.cameras):
            ending = ENDINGS[plane.kind]
            found[f"{spec.cameras[camera]}_{ending}"] = np.ascontiguousarray(
                images[:, v].transpose(0, 2, 3, 1)
            )
    return found


def _split(told: NDArray[Any], parts: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """The robot's own state by its keys, (n, entries) each."""
    ends = np.cumsum(list(parts.values())).tolist()
    return {
        key: told[:, end - count : end].copy() for (key, count), end in zip(parts.items(), ends, strict=True)
    }
