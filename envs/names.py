"""What an observation's parts are called by other libraries, and in which layout and units they want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.envs.proprio import PROPRIO, robot_state
from caliper.errors import CaliperError
from caliper.types import Obs

NAMES = ("caliper", "robomimic", "lerobot")
Named = dict[str, Any]  # arrays, or one more such dict


def check_names(names: str, privileged: bool) -> None:
    """Refuses a set of names that does not exist, or has none for what is observed.

    Raises:
        CaliperError: says which there are.
    """
    if names not in NAMES:
        raise CaliperError(f"names={names!r} are unknown; choose one of: {', '.join(NAMES)}")
    if names == "robomimic" and privileged:
        raise CaliperError(
            "names='robomimic' cannot hold the poses of obs='state': its `object` has other entries in "
            "every task; use names='caliper' or 'lerobot'"
        )


def named(names: str, cameras: tuple[str, ...], obs: Obs) -> Named:
    """Observations as NumPy arrays under another library's names; copies that no later step writes to.

    Args:
        names: "caliper": `pixels` uint8 (n, v, 3, h, w) and `proprio` (n, p), as in `Obs`. "robomimic":
            `<camera>_image` uint8 (n, h, w, 3), `robot0_eef_pos` (n, 3) in metres, `robot0_eef_quat` (n, 4)
            as x y z w, and `robot0_gripper_qpos` (n, 2) in metres. "lerobot": what its evaluation reads from
            an environment and turns into `observation.images.<camera>`, `observation.state` and
            `observation.environment_state`: `pixels` with an image (n, h, w, 3) per camera, `agent_pos`
            (n, 9), which is robomimic's three vectors in a row, and `environment_state` (n, p - 11), the
            bodies' part of a state observation, as in `SimEnv`.
        cameras: names of the v cameras.
        obs: n observations.
    """
    pixels = obs.pixels.cpu().numpy()
    if names == "caliper":
        return ({"pixels": pixels.copy()} if cameras else {}) | {"proprio": obs.proprio.cpu().numpy().copy()}
    images = {
        camera: np.ascontiguousarray(pixels[:, v].transpose(0, 2, 3, 1)) for v, camera in enumerate(cameras)
    }
    state = hand_state(obs)
    if names == "robomimic":
        return {f"{camera}_image": image for camera, image in images.items()} | {
            f"robot0_{name}": value for name, value in state.items()
        }
    bodies = obs.proprio[:, PROPRIO:].cpu().numpy().copy()
    return (
        ({"pixels": images} if images else {})
        | {"agent_pos": np.concatenate(list(state.values()), axis=1)}
        | ({"environment_state": bodies} if bodies.shape[1] else {})
    )


def hand_state(obs: Obs) -> dict[str, NDArray[np.float32]]:
    """The robot's state as robosuite observes it.

    Returns:
        `eef_pos` (n, 3), metres; `eef_quat` (n, 4), x y z w; `gripper_qpos` (n, 2), metres. The quaternion
        is that of the hand's body, which is turned by 90 degrees against the grip point. Of the two
        that mean the same, it is the one with x above zero: that is robosuite's while the hand points down.
    """
    pos, grip, fingers = robot_state(obs.proprio.cpu())
    hand = torch.stack([grip[:, :, 1], -grip[:, :, 0], grip[:, :, 2]], dim=2)  # n 3 3
    quat = _quaternion(hand.double().numpy())
    quat *= np.where(quat[:, :1] < 0, -1, 1)
    return {"eef_pos": pos.numpy(), "eef_quat": quat.astype(np.float32), "gripper_qpos": fingers.numpy()}


def _quaternion(mat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternions (n, 4), x y z w, of rotations (n, 3, 3).

    Column j of q q^T, of which the diagonal holds the largest square, gives q without a division by a small
    number (Shepperd 1978).
    """
    trace = np.trace(mat, axis1=1, axis2=2)
    square = np.empty((len(mat), 4, 4))  # 4 q q^T
    for i in range(3):
        square[:, i, i] = 1 + 2 * mat[:, i, i] - trace
        j, k = (i + 1) % 3, (i + 2) % 3
        square[:, j, k] = square[:, k, j] = mat[:, k, j] + mat[:, j, k]
        square[:, i, 3] = square[:, 3, i] = mat[:, k, j] - mat[:, j, k]
    square[:, 3, 3] = 1 + trace
    largest = np.diagonal(square, axis1=1, axis2=2).argmax(1)
    q = square[np.arange(len(mat)), :, largest]
    return np.asarray(q / np.linalg.norm(q, axis=1, keepdims=True))
