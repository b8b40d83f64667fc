"""What a policy is told in numbers: the robot's own state and, where it sees no images, that of the bodies.

Proprioception is centred on the workspace and scaled to order one: an encoder sees no arbitrary offset.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.envs.tasks import Task

GRIP_CENTRE, GRIP_SCALE = (-0.05, 0.0, 0.95), 0.15  # metres
PROPRIO, POSE = 9, 12  # entries of the grip's pose, and of each body's


def bodies_dim(task: Task, privileged: bool) -> int:
    """Length of the bodies' part of a task, see `SimEnv`."""
    return POSE * (1 + len(task.observed)) if privileged else 0


def robot_part(grip_pos: Tensor, grip_mat: Tensor, fingers: Tensor) -> Tensor:
    """The robot's part (n, 9 + f).

    Args:
        grip_pos: (n, 3), metres.
        grip_mat: (n, 3, 3).
        fingers: (n, f), over half their ranges.
    """
    columns = grip_mat[:, :, :2].transpose(1, 2).reshape(-1, 6)
    return torch.cat([_scaled(grip_pos), columns, fingers], dim=1).float()


def bodies_part(pos: Tensor, mat: Tensor, grip_pos: Tensor) -> Tensor:
    """The bodies' part (n, 12 m).

    Args:
        pos: (n, m, 3), metres.
        mat: (n, m, 9).
        grip_pos: (n, 3), metres.
    """
    where = _scaled(pos)
    columns = mat.view(*mat.shape[:2], 3, 3)[..., :2].transpose(2, 3).flatten(2)  # n m 6
    return torch.cat([where, where - _scaled(grip_pos)[:, None], columns], dim=2).flatten(1).float()


def _scaled(pos: Tensor) -> Tensor:
    # Built by arithmetic: a tensor made here from numbers would be copied to a GPU at every step.
    centred = torch.stack([pos[..., i] - c for i, c in enumerate(GRIP_CENTRE)], dim=-1)
    return centred / GRIP_SCALE
