"""robosuite's own environments for Caliper's tasks, to compare with: tests and benchmarks only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from caliper.envs.scene.patched import PARTS, WIDTHS, controller_config, patched_robosuite
from caliper.envs.scene.scenes import ROBOTS, mend_contacts
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
    "tool_hang": "ToolHang",
}


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
    for name, known in ((task, ENVIRONMENTS), (controller, PARTS)):
        if name not in known:
            raise CaliperError(f"robosuite's side of '{name}' is unknown; choose one of: {', '.join(known)}")
    defaults = {
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "use_camera_obs": False,
        "control_freq": 20,
        "horizon": 200,
    }
    env = patched_robosuite().make(
        ENVIRONMENTS[task],
        robots=ROBOTS[robot],
        controller_configs=controller_config(controller, robot),
        **{**defaults, **kwargs},
    )
    mend_contacts(env)
    return env


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
        widths = WIDTHS.get(int(model.jnt_type[j]), (1, 1))
        for to, start, width, velocity in (
            (model.jnt_qposadr[j], theirs.jnt_qposadr[i], widths[0], False),
            (model.jnt_dofadr[j], theirs.jnt_dofadr[i], widths[1], True),
        ):
            yield slice(to, to + width), slice(start, start + width), velocity
