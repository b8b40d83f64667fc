"""Pick-and-place of the Cal-QL paper's size, a diagnostic: a cube, a tray, at most 50 control steps."""

from __future__ import annotations

import math

import mujoco
from torch import Tensor

from caliper.envs.situation import Situation
from caliper.envs.tasks.base import ExpertParameters, Task, spread, upright
from caliper.envs.tasks.lift import CUBE_HALF, TABLE_Z, table_scene

TRAY_XY, TRAY_HALF = (0.0, -0.14), 0.07
FLOOR, RIM, RIM_HEIGHT = 0.004, 0.005, 0.02  # half thickness of floor and rim, rim's height; metres
SPAWN_X, SPAWN_Y = (-0.07, 0.07), (-0.01, 0.13)
CLEAR = 0.042  # the gripper must have left the cube by this much; robosuite's measure in its bin tasks


class PickPlaceTray(Task):
    """Solved when the cube rests in the tray and the gripper has let go and moved away."""

    name = "pick_place_tray"
    object_body = "cube_main"
    plan = ExpertParameters(
        hover=0.05,
        carry_z=TABLE_Z + 0.10,
        target=TRAY_XY,
        release_z=TABLE_Z + CUBE_HALF + 0.03,
        target_tol=0.025,
        symmetry=math.pi / 2,
    )

    def compose(self) -> mujoco.MjSpec:
        """See `Task`."""
        spec = table_scene(self.robot)
        tray = spec.worldbody.add_body(name="tray", pos=[*TRAY_XY, TABLE_Z])
        wall = TRAY_HALF + RIM
        boxes = {
            "floor": ((0, 0, FLOOR), (TRAY_HALF, TRAY_HALF, FLOOR)),
            "left": ((0, wall, RIM_HEIGHT / 2), (wall + RIM, RIM, RIM_HEIGHT / 2)),
            "right": ((0, -wall, RIM_HEIGHT / 2), (wall + RIM, RIM, RIM_HEIGHT / 2)),
            "near": ((-wall, 0, RIM_HEIGHT / 2), (RIM, TRAY_HALF, RIM_HEIGHT / 2)),
            "far": ((wall, 0, RIM_HEIGHT / 2), (RIM, TRAY_HALF, RIM_HEIGHT / 2)),
        }
        for name, (pos, size) in boxes.items():
            rgba = (0.12, 0.25, 0.5, 1) if name == "floor" else (0.2, 0.4, 0.75, 1)
            shape = {"type": mujoco.mjtGeom.mjGEOM_BOX, "pos": pos, "size": size}
            tray.add_geom(name=f"tray_{name}", group=0, friction=(1, 5e-3, 1e-4), **shape)
            tray.add_geom(name=f"tray_{name}_visual", group=1, contype=0, conaffinity=0, rgba=rgba, **shape)
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Anywhere in a square of 14 cm beside the tray, at any angle."""
        x, y = spread(uniform[:, 0], *SPAWN_X), spread(uniform[:, 1], *SPAWN_Y)
        return {self.object_body: upright(x, y, TABLE_Z + CUBE_HALF + 0.001, 2 * math.pi * uniform[:, 2])}

    def success(self, now: Situation) -> Tensor:
        """See `Task`."""
        object_pos = now.pos(self.object_body)
        inside: Tensor = ((object_pos[:, 0] - TRAY_XY[0]).abs() < TRAY_HALF) & (
            (object_pos[:, 1] - TRAY_XY[1]).abs() < TRAY_HALF
        )
        resting: Tensor = object_pos[:, 2] < TABLE_Z + 2 * FLOOR + CUBE_HALF + 0.01
        away: Tensor = (object_pos - now.grip_pos).norm(dim=1) > CLEAR
        return inside & resting & away
