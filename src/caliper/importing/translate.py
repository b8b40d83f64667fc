"""What a recorded action means in Caliper's words: an offset from the achieved pose, in the base's frame."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from caliper.data.formats.recordings import RecordedDemo
from caliper.envs.robot.kernels import POSITION_SCALE, ROTATION_SCALE
from caliper.importing.controller import Array, rotation_vector
from caliper.importing.dialect import Reading, first_sight


@dataclass(frozen=True)
class Translation:
    """Recorded actions in Caliper's controller.

    Attributes:
        actions: float64 (t, a) in [-1, 1].
        controller: that reads them, "osc_pose" or "osc_position".
        largest: largest entry before it was clipped: above 1 a goal lay farther away than an action reaches.
        clipped: steps with such an entry.
        beyond: steps whose recorded action already left the controller's range, which robosuite clips too.
    """

    actions: Array
    controller: str
    largest: float
    clipped: int
    beyond: int


def translate(demo: RecordedDemo, reading: Reading) -> Translation:
    """A single arm's recorded actions as Caliper's.

    Where the recorded controller is ours, so are its actions, to the last bit. Elsewhere the goal that each
    action set is taken from the demo's history and said as an offset from the recorded state: exact, but
    where that offset is out of an action's reach.

    Args:
        demo: states (t, s) and actions (t, a) that fit the reading's model.
        reading: the dialect they are in.
    """
    controller, settings = reading.controller, reading.controller.settings
    dialect, (arm,) = controller.dialect, controller.arms
    grip = np.clip(demo.actions[:, -1:], -1, 1) if arm.fingers else np.zeros((len(demo.actions), 1))
    recorded = demo.actions[:, : len(settings.high)]
    outside = (recorded < settings.low) | (recorded > settings.high)
    position_only = settings.position_only and not dialect.holds
    offsets = _offsets(demo, reading)  # (t, 6)
    if dialect.based and not settings.world and settings.as_ours:
        ours = np.zeros_like(offsets)
        ours[:, : recorded.shape[1]] = np.clip(recorded, -1, 1)
        keep = slice(1, None) if reading.way.posture == "rest" else slice(None)
        offsets[keep] = ours[keep]
    reached = np.clip(offsets, -1, 1)
    over = np.abs(offsets) > 1 + 1e-9
    return Translation(
        actions=np.hstack([reached[:, :3] if position_only else reached, grip]),
        controller="osc_position" if position_only else "osc_pose",
        largest=float(np.abs(offsets).max()),
        clipped=int(over.any(1).sum()),
        beyond=int(outside.any(1).sum()),
    )


def _offsets(demo: RecordedDemo, reading: Reading) -> Array:
    """Goals as offsets from the recorded states, in an action's units, (t, 6)."""
    controller, (arm,) = reading.controller, reading.controller.arms
    data, out = mujoco.MjData(controller.model), np.zeros((len(demo.actions), 6))
    for t, action in enumerate(demo.actions):
        data.qpos[:] = demo.states[t, 1 : 1 + controller.model.nq]
        mujoco.mj_kinematics(controller.model, data)
        seen = first_sight(controller, demo, t)
        (goal,) = controller.goals(data if seen is None else seen, action, reading.history[t])
        base, hand = data.xmat[arm.base].reshape(3, 3), data.site_xmat[arm.site].reshape(3, 3)
        out[t, :3] = base.T @ (goal.pos - data.site_xpos[arm.site]) / POSITION_SCALE
        out[t, 3:] = base.T @ rotation_vector(goal.turn @ hand.T) / ROTATION_SCALE
    return out
