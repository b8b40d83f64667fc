"""robosuite itself, quiet and able to step on mujoco 4: for its own environments, and to compare with.

robosuite 1.5.2 steps unpatched up to mujoco 3.9. Three patches carry it over what mujoco changed since:

1. 3.12: an enum member no longer equals a NumPy integer, so robosuite's look-up of joints fails.
2. 3.10: `mj_fullM(model, matrix, qM)` became `mj_fullM(model, data, matrix)`.
3. 3.11: `MjData.qM` is gone.

A fourth fixes robosuite's own JOINT_VELOCITY, which 1.5.2 cannot make: see `_gravity`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

import mujoco
import numpy as np

from caliper.envs.scene.scenes import ROBOTS, load_robosuite

# robosuite's part controllers by Caliper's names, with robosuite's default gains.
PARTS = {
    "osc_pose": "OSC_POSE",
    "osc_position": "OSC_POSITION",
    "osc_pose_absolute": "OSC_POSE",
    "osc_position_absolute": "OSC_POSITION",
    "joint_position": "JOINT_POSITION",
    "joint_velocity": "JOINT_VELOCITY",
}
WIDTHS = {
    int(mujoco.mjtJoint.mjJNT_FREE): (7, 6),
    int(mujoco.mjtJoint.mjJNT_BALL): (4, 3),
}  # in qpos and qvel


def _address(field: str, velocity: bool) -> Callable[[Any, str], int | tuple[int, int]]:
    def address(self: Any, name: str) -> int | tuple[int, int]:
        joint = self.joint_name2id(name)
        start = int(getattr(self, field)[joint])
        widths = WIDTHS.get(int(self.jnt_type[joint]))
        return start if widths is None else (start, start + widths[velocity])

    return address


@cache
def patched_robosuite() -> Any:
    """Imports robosuite, quiet and able to step on mujoco 4.

    Raises:
        CaliperError: robosuite is not installed.
    """
    load_robosuite()  # filters the warnings of the import and says what to install
    import robosuite
    from robosuite.controllers.parts import controller
    from robosuite.utils import binding_utils

    binding_utils.MjModel.get_joint_qpos_addr = _address("jnt_qposadr", velocity=False)
    binding_utils.MjModel.get_joint_qvel_addr = _address("jnt_dofadr", velocity=True)
    if not hasattr(mujoco.MjData, "qM"):
        # robosuite only ever passes `qM` on to `mj_fullM`: let the one carry the data to the other.
        binding_utils.MjData.qM = property(lambda self: self._data)
        controller.mujoco = types.SimpleNamespace(
            **vars(mujoco) | {"mj_fullM": lambda model, matrix, data: mujoco.mj_fullM(model, data, matrix)}
        )
    from robosuite.controllers.parts.generic.joint_vel import JointVelocityController

    JointVelocityController.torque_compensation = property(_gravity, lambda self, flag: None)
    return robosuite


class _Torques(np.ndarray):
    """An array that is true, as the flag that robosuite asks for under the same name."""

    def __bool__(self) -> bool:
        return self.ndim > 0 or bool(self.item())  # a sum is a number


def _gravity(controller: Any) -> _Torques:
    """The bias, which JOINT_VELOCITY adds; its class hides the property of it under a flag of that name."""
    torques: _Torques = controller.sim.data.qfrc_bias[controller.qvel_index].view(_Torques)
    return torques


def controller_config(controller: str, robot: str) -> dict[str, Any]:
    """What `robosuite.make` takes as the controller of a one-armed robot.

    Args:
        controller: one of `PARTS`.
        robot: as Caliper calls it.
    """
    robosuite = patched_robosuite()
    config: dict[str, Any] = robosuite.load_composite_controller_config(robot=ROBOTS[robot])
    part = robosuite.load_part_controller_config(default_controller=PARTS[controller])
    config["body_parts"]["right"] = part | {"gripper": {"type": "GRIP"}}
    if controller.endswith("absolute"):
        config["body_parts"]["right"]["input_type"] = "absolute"
    return config
