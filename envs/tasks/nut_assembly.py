"""NutAssemblySquare and NutAssemblyRound: put a nut around its peg (robosuite's own scene and test)."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import torch
from torch import Tensor

from caliper.envs.engines.room import ROOM
from caliper.envs.scene.scenes import compose, load_robosuite
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import ExpertParameters, Task, add_camera, spread, upright
from caliper.envs.tasks.bins import CLEAR

TABLE_Z = 0.82
START_Z = TABLE_Z + 0.07  # robosuite drops the nuts 6 cm onto the table
SPAWN_X, SPAWN_Y = (-0.115, -0.11), (0.11, 0.225)
PEG_TOP = 0.95
ON_PEG, LOW = 0.03, 0.05  # robosuite's: how far from the peg's axis, along x and y; how high above the table


class NutAssembly(Task):
    """Solved when the nut is around its peg, low, and the gripper is away from its centre.

    Attributes:
        kind: robosuite's name of the nut, of which its class's and its body's names are made.
        peg: the peg's body.
        side: of the table's middle on which the nut starts, 1 or -1 along y.
    """

    kind: str
    peg: str
    side: int

    def compose(self) -> mujoco.MjSpec:
        """See `Task`. The other nut is left out, both pegs stay."""
        load_robosuite()
        from robosuite.models import objects
        from robosuite.models.arenas import PegsArena

        arena = PegsArena(
            table_full_size=(0.8, 0.8, 0.05), table_friction=(1, 0.005, 0.0001), table_offset=(0, 0, TABLE_Z)
        )
        nut = getattr(objects, f"{self.kind}Object")(name=self.kind)
        spec = compose(arena, [nut], (-0.56, 0, 0), self.robot)
        # The round nut is nine boxes, which lie on the table with up to 49 contacts.
        spec.add_numeric(name=ROOM, size=3, data=[96, 400, 24])
        add_camera(spec, "showcase", (0.85, 0.55, 1.4), (0.0, 0.02, 0.88))
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. At any angle in a strip beside the robot's middle, dropped from 6 cm."""
        x, y = spread(uniform[:, 0], *SPAWN_X), self.side * spread(uniform[:, 1], *SPAWN_Y)
        return {self.object_body: upright(x, y, START_Z, 2 * math.pi * uniform[:, 2])}

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's test."""
        pos = now.pos(self.object_body)
        off = (pos - now.pos(self.peg))[:, :2].abs()
        around = (off < ON_PEG).all(1) & (pos[:, 2] < TABLE_Z + LOW)
        return around & (1 - torch.tanh(10 * (pos - now.grip_pos).norm(dim=1)) < CLEAR)


class NutAssemblySquare(NutAssembly):
    """Solved when the square nut is around the square peg and the gripper is away from its centre."""

    name = "nut_assembly_square"
    object_body, kind, peg, side = "SquareNut_main", "SquareNut", "peg1", 1
    recorded_as = ("NutAssemblySquare", "Square_D0")
    plan = ExpertParameters(
        hover=0.08,
        grasp=(0.054, 0, 0),
        carry_z=PEG_TOP + 0.06,
        target=peg,
        release_z=0.015,
        target_tol=0.006,
        level=True,
        turn=math.pi,  # the handle towards the robot: on the peg's other side the arm is too short
    )
    # The 2F-85's pads are so wide that nearer the nut they close on its corners, and it jumps away.
    plans = dict.fromkeys(("ur5e", "kinova3"), replace(plan, grasp=(0.0615, 0, 0)))


class NutAssemblyRound(NutAssembly):
    """Solved when the round nut is around the round peg and the gripper is away from its centre."""

    name = "nut_assembly_round"
    object_body, kind, peg, side = "RoundNut_main", "RoundNut", "peg2", -1
    recorded_as = ("NutAssemblyRound",)
    plan = ExpertParameters(
        hover=0.08,
        grasp=(0.06, 0, 0),
        carry_z=PEG_TOP + 0.06,
        target=peg,
        release_z=0.015,
        target_tol=0.008,
        level=True,
        turn=math.pi,
        turn_tol=1.0,
    )
    # The 2F-140 does not close fully and holds loosely; lower, more of its pads holds.
    plans = dict.fromkeys(("iiwa",), replace(plan, grasp=(0.06, 0, -0.012)))
