"""The script of a door: hold its handle, turn it until the latch is free, pull along the arc.

The gripper comes from before the door, points at it, and holds the handle from above and below; then it turns
with the handle, as if it were a part of it. From above there is no room: the hand is wider than the gap.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.envs.scripts.phases import Phases
from caliper.envs.scripts.turns import apply, turn_between
from caliper.envs.sim import SimEnv
from caliper.envs.tasks.base import HandleParameters

HOVER, DESCEND, CLOSE, TURN, PULL = range(5)
TOL, TURN_TOL = 0.012, 0.15  # metres and radians
RETRY, SLIPPED = 0.03, 0.06  # metres: the handle is not below the gripper; it was lost from it
CLOSE_TIME, STALL_TIME = 0.5, 1.25  # seconds
TURN_AHEAD, PULL_AHEAD = (
    0.35,
    0.12,
)  # radians on the handle's and on the hinge's arc: where the next waypoint is
HELD = 0.1  # radians by which the handle is pressed on while the door is pulled


def turn_handle(
    env: SimEnv, plan: HandleParameters, phases: Phases, off: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Makes the transitions of this control step and says what to do.

    Args:
        env: the envs.
        plan: the numbers.
        phases: the clockwork, ticked.
        off: by how much the grasp is off, metres, (n, 3).

    Returns:
        Waypoint of the gripper, metres, (n, 3); by what to turn it, a rotation vector, radians, (n, 3); where
        to close it, bool (n,).
    """
    now, go, phase = env.now, phases.go, phases.before
    grip, grip_mat = now.grip_pos.double(), now.grip_mat.double()
    handle, handle_mat = now.pos(env.task.object_body).double(), now.mat(env.task.object_body).double()
    grasp = handle + handle_mat @ torch.tensor(plan.grasp, dtype=torch.float64, device=env.device) + off
    ahead = handle_mat[:, :, 1]
    gap = grasp - grip
    beside = (gap - (gap * ahead).sum(1, keepdim=True) * ahead).norm(dim=1)
    lead = torch.where(phases.phase == TURN, TURN_AHEAD, 0.0) + torch.where(phases.phase == PULL, HELD, 0.0)
    error = _towards(grip_mat, _about(handle_mat[:, :, 1], lead) @ handle_mat)
    aligned = error.norm(dim=1) < TURN_TOL
    go((phase == HOVER) & (beside < TOL) & aligned, DESCEND)
    near = (grasp - grip).norm(dim=1) < TOL
    go((phase == DESCEND) & (near | (phases.seconds > STALL_TIME)), CLOSE)
    go((phase == DESCEND) & (beside > RETRY), HOVER)
    go((phase == CLOSE) & (phases.seconds >= CLOSE_TIME), TURN)
    go((phase == TURN) & (now.joint(plan.handle_joint) > plan.free), PULL)
    slipped = (grasp - off - grip).norm(dim=1) > SLIPPED
    go(((phase == TURN) | (phase == PULL)) & slipped, HOVER)
    door_mat = now.mat(plan.door).double()
    hinge = now.pos(plan.door).double() + door_mat @ torch.tensor(
        plan.hinge, dtype=torch.float64, device=env.device
    )
    pressed = handle + apply(_about(handle_mat[:, :, 1], lead), grip - handle)
    swing = torch.full_like(lead, PULL_AHEAD)
    pulled = hinge + apply(_about(door_mat[:, :, 2], swing), pressed - hinge)
    way = phases.choose([grasp - plan.hover * handle_mat[:, :, 1], grasp, phases.hold, pressed, pulled])
    return way, error, phases.phase >= CLOSE


def _towards(grip: Tensor, handle: Tensor) -> Tensor:
    """The rotation, as a vector (n, 3), that points the gripper at the door, the handle between its fingers.

    Args:
        grip: rotation of the gripper, (n, 3, 3): its third column is where it points, its first where the
            fingers are.
        handle: rotation of the handle, (n, 3, 3): its first column is along it, its second to the door.
    """
    along = handle[:, :, 0]
    along = along * torch.sign((grip[:, :, 1] * along).sum(1, keepdim=True))  # either way round
    ahead = handle[:, :, 1]
    wanted = torch.stack([torch.linalg.cross(along, ahead), along, ahead], 2)
    return turn_between(grip, wanted)


def _about(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations (n, 3, 3) by angles (n,) about unit vectors (n, 3)."""
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, dtype=axis.dtype, device=axis.device) + sin * k + (1 - cos) * (k @ k)
