"""What a segmentation tells apart: the arm, the gripper, and each thing with a part that moves."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.errors import CaliperError

GRIPPER = "gripper"  # how robosuite's names of a gripper's bodies begin
MOST = 255  # instances, for their numbers are bytes


def instances(model: mujoco.MjModel) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """The instances of a scene, and to which each geom belongs.

    An instance is a body of the world with any joint in it, and all that hangs on it; a gripper counts apart
    from its arm. What stands still, tables and bins, is none.

    Args:
        model: the scene.

    Returns:
        Their names, those of their first bodies; and for each geom the number of its instance, counted from
        1, or 0: uint8 (geoms,).

    Raises:
        CaliperError: there are more than 255.
    """
    moving = {int(model.body_rootid[b]) for b in model.jnt_bodyid}
    first = np.zeros(model.nbody, np.int64)  # the body at which the instance of each body begins; 0: none
    for body in range(1, model.nbody):
        parent, root = int(model.body_parentid[body]), int(model.body_rootid[body])
        begins = _is_gripper(model, body) and not _is_gripper(model, parent)
        first[body] = (body if begins or body == root else first[parent]) if root in moving else 0
    geoms = first[model.geom_bodyid]
    found = [b for b in np.unique(geoms).tolist() if b]
    if len(found) > MOST:
        raise CaliperError(f"the scene has {len(found)} instances; a segmentation tells {MOST} apart")
    number = np.zeros(model.nbody, np.uint8)
    number[found] = np.arange(1, len(found) + 1)
    return tuple(model.body(b).name for b in found), number[geoms]


def _is_gripper(model: mujoco.MjModel, body: int) -> bool:
    return bool(model.body(body).name.startswith(GRIPPER))
