"""robosuite's bin tasks: move one object from a bin to its quarter of the other, scene and test its own."""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from caliper.envs.scene.scenes import compose, load_robosuite
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import Task, add_camera, spread, upright

BIN1, BIN2, BIN_SIZE = (0.1, -0.25, 0.8), (0.1, 0.28, 0.8), (0.39, 0.49)
MARGIN = 0.05  # robosuite's, between the first bin's edge and where an object may start
CLEAR = 0.6  # robosuite's reach term below which the gripper is away


def quarter(x_side: int, y_side: int) -> tuple[float, float]:
    """Centre of a quarter of the second bin; sides are -1 or 1."""
    return BIN2[0] + x_side * BIN_SIZE[0] / 4, BIN2[1] + y_side * BIN_SIZE[1] / 4


class BinTask(Task):
    """Solved when the object lies in its quarter of the second bin and the gripper is away.

    Attributes:
        kind: robosuite's name of the object, of which its class's and its body's names are made.
        radius, bottom: robosuite's horizontal radius and bottom offset of the object, metres.
        target: centre of its quarter, world x and y.
    """

    kind: str
    radius: float
    bottom: float
    target: tuple[float, float]

    def compose(self) -> mujoco.MjSpec:
        """See `Task`. The three unused objects and the four goal ghosts of robosuite are left out."""
        load_robosuite()
        from robosuite.models import objects
        from robosuite.models.arenas import BinsArena

        arena = BinsArena(bin1_pos=BIN1, table_full_size=(*BIN_SIZE, 0.82), table_friction=(1, 0.005, 0.0001))
        thing = getattr(objects, f"{self.kind}Object")(name=self.kind)
        spec = compose(arena, [thing], (-0.5, -0.1, 0), self.robot)
        add_camera(spec, "showcase", (0.95, 0.15, 1.65), (0.0, 0.03, 0.88))
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Anywhere in the first bin, as robosuite's sampler."""
        half = [size / 2 - MARGIN - self.radius for size in BIN_SIZE]
        x = BIN1[0] + spread(uniform[:, 0], -half[0], half[0])
        y = BIN1[1] + spread(uniform[:, 1], -half[1], half[1])
        return {self.object_body: upright(x, y, BIN1[2] + self.bottom, 2 * math.pi * uniform[:, 2])}

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's test: inside the quarter, low, and the gripper's reach term below 0.6."""
        pos = now.pos(self.object_body)
        x, y, z = pos.unbind(1)
        low = [centre - size / 4 for centre, size in zip(self.target, BIN_SIZE, strict=True)]
        inside = (x > low[0]) & (x < low[0] + BIN_SIZE[0] / 2) & (y > low[1])
        inside &= (y < low[1] + BIN_SIZE[1] / 2) & (z > BIN2[2]) & (z < BIN2[2] + 0.1)
        return inside & (1 - torch.tanh(10 * (pos - now.grip_pos).norm(dim=1)) < CLEAR)
