"""robosuite's own environments, to compare with: tests and benchmarks only, nothing at run time imports this.

robosuite 1.5.2 steps unpatched up to mujoco 3.9. Three patches carry it over what mujoco changed since:

1. 3.12: an enum member no longer equals a NumPy integer, so robosuite's look-up of joints fails.
2. 3.10: `mj_fullM(model, matrix, qM)` became `mj_fullM(model, data, matrix)`.
3. 3.11: `MjData.qM` is gone.

A fourth fixes robosuite's own JOINT_VELOCITY, which 1.5.2 cannot make: see `_gravity`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import mujoco
import numpy as np

from caliper.envs.scene.scenes import ROBOTS, load_robosuite
from caliper.errors import CaliperError

ENVIRONMENTS = {
    "lift": "Lift",
    "pick_place_can": "PickPlaceCan",
    "pick_place_milk": "PickPlaceMilk",
    "pick_place_bread": "PickPlaceBread",
    "pick_place_cereal": "PickPlaceCereal",
    "stack": "Stack",
    "nut_assembly_square": "NutAssemblySquare",
    "nut_assembly_round": "NutAssemblyRound",
    "door": "Door",
}
CONTROLLERS = {
    "osc_pose": "OSC_POSE",
    "osc_position": "OSC_POSITION",
    "osc_pose_absolute": "OSC_POSE",
    "osc_position_absolute": "OSC_POSITION",
    "joint_position": "JOINT_POSITION",
    "joint_velocity": "JOINT_VELOCITY",
}
_WIDTHS = {
    int(mujoco.mjtJoint.mjJNT_FREE): (7, 6),
    int(mujoco.mjtJoint.mjJNT_BALL): (4, 3),
}  # in qpos and qvel


def _address(field: str, velocity: bool) -> Callable[[Any, str], int | tuple[int, int]]:
    def address(self: Any, name: str) -> int | tuple[int, int]:
        joint = self.joint_name2id(name)
        start = int(getattr(self, field)[joint])
        widths = _WIDTHS.get(int(self.jnt_type[joint]))
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
    return controller.sim.data.qfrc_bias[controller.qvel_index].view(_Torques)


def make_oracle(task: str, controller: str = "osc_pose", robot: str = "panda", **kwargs: Any) -> Any:
    """The environment robosuite has for a task, as `robosuite.make` returns it.

    Args:
        task: one of `ENVIRONMENTS`.
        controller: as Caliper calls it, with robosuite's default gains.
        robot: as Caliper calls it.
        kwargs: for `robosuite.make`; without any, no images are drawn and episodes end only at `horizon`.

    Raises:
        CaliperError: robosuite is not installed, or has no such task or controller.
    """
    for name, known in ((task, ENVIRONMENTS), (controller, CONTROLLERS)):
        if name not in known:
            raise CaliperError(f"robosuite's side of '{name}' is unknown; choose one of: {', '.join(known)}")
    robosuite = patched_robosuite()
    config = robosuite.load_composite_controller_config(robot=ROBOTS[robot])
    part = robosuite.load_part_controller_config(default_controller=CONTROLLERS[controller])
    config["body_parts"]["right"] = part | {"gripper": {"type": "GRIP"}}
    part = config["body_parts"]["right"]
    if controller.endswith("absolute"):
        part["input_type"] = "absolute"
    defaults = {
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "use_camera_obs": False,
        "control_freq": 20,
        "horizon": 200,
    }
    return robosuite.make(
        ENVIRONMENTS[task], robots=ROBOTS[robot], controller_configs=config, **{**defaults, **kwargs}
    )


def arm_controller(env: Any) -> Any:
    """The arm's controller object of an oracle, whose goals and torques tests read."""
    return env.robots[0].part_controllers["right"]


def joint_state(env: Any, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """The oracle's positions and velocities in the order of another model's joints, matched by name.

    Returns:
        qpos (nq,) and qvel (nv,) of `model`, float64.
    """
    data = env.sim.data._data
    qpos, qvel = np.zeros(model.nq), np.zeros(model.nv)
    for ours, theirs, velocity in _pairs(env, model):
        (qvel if velocity else qpos)[ours] = (data.qvel if velocity else data.qpos)[theirs]
    return qpos, qvel


def put_state(env: Any, model: mujoco.MjModel, state: np.ndarray) -> None:
    """Puts an oracle into a state [time, qpos, qvel, fixtures] of another model, matched by name."""
    data, theirs = env.sim.data._data, env.sim.model._model
    nq = model.nq
    for ours, there, velocity in _pairs(env, model):
        (data.qvel if velocity else data.qpos)[there] = state[1 + velocity * nq :][ours]
    fixtures = state[1 + nq + model.nv :].reshape(-1, 7)
    for body in np.flatnonzero(model.body_mocapid >= 0):
        pose = fixtures[model.body_mocapid[body]]
        there = theirs.body(model.body(body).name).id
        theirs.body_pos[there], theirs.body_quat[there] = pose[:3], pose[3:]
    env.sim.forward()


def _pairs(env: Any, model: mujoco.MjModel) -> Iterator[tuple[slice, slice, bool]]:
    """Where each joint's numbers are in another model and in the oracle, and whether they are velocities."""
    theirs = env.sim.model._model
    for j in range(model.njnt):
        i = theirs.joint(model.joint(j).name).id
        widths = _WIDTHS.get(int(model.jnt_type[j]), (1, 1))
        for to, start, width, velocity in (
            (model.jnt_qposadr[j], theirs.jnt_qposadr[i], widths[0], False),
            (model.jnt_dofadr[j], theirs.jnt_dofadr[i], widths[1], True),
        ):
            yield slice(to, to + width), slice(start, start + width), velocity
