"""Lift: raise a cube off the table (robosuite's Lift; the cube's size is fixed unless it is to be drawn)."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import torch
from torch import Tensor

from caliper.envs.engines.sizes import SIZE
from caliper.envs.scene.scenes import compose, load_robosuite
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import ExpertParameters, Task, add_camera, spread, upright

TABLE_Z, CUBE_HALF = 0.8, 0.021
SPREAD = 0.03  # robosuite's: the cube starts within 3 cm of the table's centre


def table_scene(robot: str, objects: list[Any] | None = None) -> mujoco.MjSpec:
    """The table of robosuite with a robot behind it and objects on it; a red cube if none are given."""
    load_robosuite()
    from robosuite.models.arenas import TableArena

    arena = TableArena(
        table_full_size=(0.8, 0.8, 0.05), table_friction=(1.0, 5e-3, 1e-4), table_offset=(0, 0, TABLE_Z)
    )
    if objects is None:
        objects = [wooden_cube("cube", CUBE_HALF, "red")]
    spec = compose(arena, objects, (-0.56, 0, 0), robot)
    add_camera(spec, "showcase", (0.75, 0.55, 1.35), (-0.1, -0.02, 0.88))
    return spec


def wooden_cube(name: str, half: float, colour: str) -> Any:
    """A cube of robosuite's, by its half side in metres and the colour of its wood."""
    load_robosuite()
    from robosuite.models.objects import BoxObject
    from robosuite.utils.mjcf_utils import CustomMaterial

    wood = CustomMaterial(
        texture=f"Wood{colour.capitalize()}",
        tex_name=f"{colour}wood",
        mat_name=f"{colour}wood_mat",
        tex_attrib={"type": "cube"},
        mat_attrib={"texrepeat": "1 1", "specular": "0.4", "shininess": "0.1"},
    )
    rgba = {"red": (1, 0, 0, 1), "green": (0, 1, 0, 1)}[colour]
    return BoxObject(name=name, size=[half] * 3, rgba=rgba, material=wood)


class Lift(Task):
    """Solved when the cube's centre is 4 cm above the table."""

    name = "lift"
    object_body = "cube_main"
    draws = 7
    sizes = (0.020, 0.022)  # robosuite's
    recorded_as = ("Lift",)
    plan = ExpertParameters(hover=0.06, carry_z=TABLE_Z + 0.17, symmetry=math.pi / 2)

    def compose(self) -> mujoco.MjSpec:
        """See `Task`."""
        half = self.sizes[1] if self.draw_size else CUBE_HALF
        return table_scene(self.robot, [wooden_cube("cube", half, "red")])

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Anywhere within 3 cm, at any angle, 1 cm above the table as in robosuite."""
        x, y = spread(uniform[:, 0], -SPREAD, SPREAD), spread(uniform[:, 1], -SPREAD, SPREAD)
        yaw = 2 * math.pi * uniform[:, 2]
        if not self.draw_size:
            return {self.object_body: upright(x, y, TABLE_Z + CUBE_HALF + 0.01, yaw)}
        half = spread(uniform[:, 4:7], *self.sizes)
        fixture = torch.cat([half, torch.ones_like(half[:, :1]), torch.zeros_like(half)], 1)
        return {
            self.object_body: upright(x, y, TABLE_Z + half[:, 2] + 0.01, yaw),
            f"{SIZE}{self.object_body}": fixture,
        }

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's own test."""
        return now.pos(self.object_body)[:, 2] > TABLE_Z + 0.04
