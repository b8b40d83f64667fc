"""Stack: put a small cube onto a larger one (robosuite's own scene and test)."""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from caliper.envs.scene.scenes import mounted
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import ExpertParameters, Task, spread, upright
from caliper.envs.tasks.lift import TABLE_Z, table_scene, wooden_cube

SMALL, LARGE = 0.02, 0.025  # half sides, metres
SPREAD = 0.08  # the cubes start within 8 cm of the table's centre
APART = math.sqrt(2) * (SMALL + LARGE)  # robosuite's: the circles around the two do not overlap
TRIES = 32  # places drawn for the larger cube, of which the first that is free counts; 1 in 1e9 finds none


class Stack(Task):
    """Solved when the small red cube lies on the large green one and is not held."""

    name = "stack"
    object_body = "cubeA_main"
    observed = ("cubeB_main",)
    draws = 4 + 2 * TRIES
    recorded_as = ("Stack", "Stack_D0", "Stack_D1")
    plan = ExpertParameters(
        hover=0.08,
        carry_z=TABLE_Z + 0.14,
        target="cubeB_main",
        release_z=SMALL + LARGE + 0.004,
        symmetry=math.pi / 2,
    )

    def __init__(self, start: str | None = None, robot: str = "panda") -> None:
        """See `Task`."""
        super().__init__(start, robot)
        self.pads = pads(robot)
        self.contacts = (("cubeA_main", "cubeB_main"), *(("cubeA_main", pad) for pad in self.pads))

    def compose(self) -> mujoco.MjSpec:
        """See `Task`."""
        return table_scene(
            self.robot, [wooden_cube("cubeA", SMALL, "red"), wooden_cube("cubeB", LARGE, "green")]
        )

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Both anywhere within 8 cm, at any angle, apart, 1 cm above the table."""
        first = spread(uniform[:, :2], -SPREAD, SPREAD)
        others = spread(uniform[:, 4:], -SPREAD, SPREAD).view(-1, TRIES, 2)
        free = (others - first[:, None]).norm(dim=2) > APART
        chosen = free.to(torch.uint8).argmax(1)  # the first
        second = others[torch.arange(len(others), device=others.device), chosen]
        return {
            f"{name}_main": upright(at[:, 0], at[:, 1], TABLE_Z + half + 0.01, 2 * math.pi * yaw)
            for name, at, half, yaw in (
                ("cubeA", first, SMALL, uniform[:, 2]),
                ("cubeB", second, LARGE, uniform[:, 3]),
            )
        }

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's test: red on green, above the table, and not between both fingers."""
        left, right = (now.touching("cubeA_main", pad) for pad in self.pads)
        held = left & right
        lifted = now.pos("cubeA_main")[:, 2] > TABLE_Z + 0.04
        return lifted & now.touching("cubeA_main", "cubeB_main") & ~held


def pads(robot: str) -> list[str]:
    """The bodies that bear the pads of a robot's two fingers, as robosuite's gripper names these."""
    model, gripper = mounted(robot)
    spec = mujoco.MjSpec.from_string(model.get_xml())
    geoms = (gripper.important_geoms[f"{side}_fingerpad"][0] for side in ("left", "right"))
    return [spec.geom(geom).parent.name for geom in geoms]
