"""Lift: raise a cube off the table (robosuite's Lift, with the cube's size fixed)."""

from __future__ import annotations

import math

import mujoco
from torch import Tensor

from caliper.envs.scenes import compose, load_robosuite
from caliper.envs.tasks.base import Plan, Task, add_camera, spread, upright

TABLE_Z, CUBE_HALF = 0.8, 0.021
SPREAD = 0.03  # robosuite's: the cube starts within 3 cm of the table's centre


def table_scene(robot: str, cube_rgba: tuple[float, float, float, float] = (1, 0, 0, 1)) -> mujoco.MjSpec:
    """The table of robosuite with a robot behind it and one wooden cube on it."""
    load_robosuite()
    from robosuite.models.arenas import TableArena
    from robosuite.models.objects import BoxObject
    from robosuite.utils.mjcf_utils import CustomMaterial

    arena = TableArena(
        table_full_size=(0.8, 0.8, 0.05), table_friction=(1.0, 5e-3, 1e-4), table_offset=(0, 0, TABLE_Z)
    )
    wood = CustomMaterial(
        texture="WoodRed",
        tex_name="redwood",
        mat_name="redwood_mat",
        tex_attrib={"type": "cube"},
        mat_attrib={"texrepeat": "1 1", "specular": "0.4", "shininess": "0.1"},
    )
    cube = BoxObject(name="cube", size=[CUBE_HALF] * 3, rgba=cube_rgba, material=wood)
    spec = compose(arena, [cube], (-0.56, 0, 0), robot)
    add_camera(spec, "showcase", (0.75, 0.55, 1.35), (-0.1, -0.02, 0.88))
    return spec


class Lift(Task):
    """Solved when the cube's centre is 4 cm above the table."""

    name = "lift"
    object_body = "cube_main"
    recorded_as = ("Lift",)
    plan = Plan(hover=0.06, carry_z=TABLE_Z + 0.17, symmetry=math.pi / 2)

    def compose(self) -> mujoco.MjSpec:
        """See `Task`."""
        return table_scene(self.robot)

    def place(self, uniform: Tensor) -> Tensor:
        """See `Task`. Anywhere within 3 cm, at any angle, 1 cm above the table as in robosuite."""
        x, y = spread(uniform[:, 0], -SPREAD, SPREAD), spread(uniform[:, 1], -SPREAD, SPREAD)
        return upright(x, y, TABLE_Z + CUBE_HALF + 0.01, 2 * math.pi * uniform[:, 2])

    def success(self, object_pos: Tensor, grip_pos: Tensor) -> Tensor:
        """See `Task`. robosuite's own test."""
        return object_pos[:, 2] > TABLE_Z + 0.04
