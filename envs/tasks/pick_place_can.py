"""PickPlaceCan: move a can from one bin to its quarter of the other (robosuite's own scene and test)."""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from caliper.envs.scenes import compose, load_robosuite
from caliper.envs.tasks.base import Plan, Task, add_camera, spread, upright

BIN1, BIN2, BIN_SIZE = (0.1, -0.25, 0.8), (0.1, 0.28, 0.8), (0.39, 0.49)
CAN_RADIUS, CAN_BOTTOM = 0.025, 0.06  # robosuite's `horizontal_radius` and `bottom_offset`
TARGET = (BIN2[0] + BIN_SIZE[0] / 4, BIN2[1] + BIN_SIZE[1] / 4)  # centre of the can's quarter


class PickPlaceCan(Task):
    """Solved when the can stands in its quarter of the second bin and the gripper is away."""

    name = "pick_place_can"
    object_body = "Can_main"
    recorded_as = ("PickPlaceCan",)
    # The quarter's centre is at the limit of the arm's reach: aim 2 cm nearer, accept 3 cm.
    plan = Plan(
        hover=0.12,
        carry_z=1.08,
        target=(TARGET[0] - 0.02, TARGET[1] - 0.02),
        release_z=BIN2[2] + 0.10,
        target_tol=0.03,
    )

    def compose(self) -> mujoco.MjSpec:
        """See `Task`. The three unused objects and the four goal ghosts of robosuite are left out."""
        load_robosuite()
        from robosuite.models.arenas import BinsArena
        from robosuite.models.objects import CanObject

        arena = BinsArena(bin1_pos=BIN1, table_full_size=(*BIN_SIZE, 0.82), table_friction=(1, 0.005, 0.0001))
        spec = compose(arena, [CanObject(name="Can")], (-0.5, -0.1, 0), self.robot)
        add_camera(spec, "showcase", (0.95, 0.15, 1.65), (0.0, 0.03, 0.88))
        return spec

    def place(self, uniform: Tensor) -> Tensor:
        """See `Task`. Anywhere in the first bin, as robosuite's sampler."""
        half = [size / 2 - 0.05 - CAN_RADIUS for size in BIN_SIZE]
        x = BIN1[0] + spread(uniform[:, 0], -half[0], half[0])
        y = BIN1[1] + spread(uniform[:, 1], -half[1], half[1])
        return upright(x, y, BIN1[2] + CAN_BOTTOM, 2 * math.pi * uniform[:, 2])

    def success(self, object_pos: Tensor, grip_pos: Tensor) -> Tensor:
        """See `Task`. robosuite's test: inside the quarter, low, and the gripper's reach term below 0.6."""
        x, y, z = object_pos.unbind(1)
        inside = (x > BIN2[0]) & (x < BIN2[0] + BIN_SIZE[0] / 2) & (y > BIN2[1])
        inside &= (y < BIN2[1] + BIN_SIZE[1] / 2) & (z > BIN2[2]) & (z < BIN2[2] + 0.1)
        reach = 1 - torch.tanh(10 * (object_pos - grip_pos).norm(dim=1))
        return inside & (reach < 0.6)
