"""Two stages, like COG's drawer (Singh et al. 2020, arXiv:2010.14500): slide a lid off, lift the cube out."""

from __future__ import annotations

import math
from dataclasses import replace

import mujoco
import torch
from torch import Tensor

from caliper.envs.situation import Situation
from caliper.envs.tasks.base import ExpertParameters, Opening, Task, spread, upright
from caliper.envs.tasks.lift import CUBE_HALF, TABLE_Z, table_scene

BOX_X, HALF_X, HALF_Y = -0.07, 0.056, 0.085  # the box's centre and its half inner sides; metres
FLOOR, WALL, HEIGHT = 0.002, 0.004, 0.048  # half thickness of floor and walls, walls' height
RAIL = 0.15  # how far the side walls go on beyond the box, to carry the open lid
LID_Z, LID_HALF = 0.053, 0.003  # height of the lid's middle above the table, half its thickness
KNOB, KNOB_HEIGHT, GRASP = 0.011, 0.046, 0.03  # half side, height and grasp point above the lid's middle
KNOB_X = 0.082  # from the box's centre, out of the way of a hand above the cube
TRAVEL, OPEN = 0.14, 0.11  # where the joint ends, and from where on the whole box is free
FRICTION, DAMPING = 10.0, 8.0  # N and N s/m: the lid stays where it is left, and two fingers move it easily
SMOOTH = 0.02  # sliding friction of the lid's plate against everything
SPAWN_X, SPAWN_Y = 0.024, 0.018
CLEAR = 0.1  # the cube's height above the table when it has left the box


class PickCovered(Task):
    """Solved when the cube is 10 cm above the table; a lid on a slide joint must first be moved 12 cm."""

    name = "pick_covered"
    object_body = "cube_main"
    observed = ("lid",)
    joints = ("lid",)
    starts = ("closed", "open")
    stages = ("open",)
    plan = ExpertParameters(
        hover=0.07,
        carry_z=TABLE_Z + 0.16,
        symmetry=math.pi / 2,
        opening=Opening(
            body="lid", free_x=BOX_X + KNOB_X + OPEN, to_x=BOX_X + KNOB_X + TRAVEL - 0.01, hover=0.05
        ),
    )
    # Fingers that don't turn a cube which they take across its corners: off its middle, they squeeze it out.
    plans = dict.fromkeys(("sawyer", "ur5e"), replace(plan, near=0.005, gain=0.01))

    def compose(self) -> mujoco.MjSpec:
        """See `Task`. The lid's origin is where its knob is to be held."""
        spec = table_scene(self.robot)
        box = spec.worldbody.add_body(name="box", pos=[BOX_X, 0, TABLE_Z])
        wall_x, wall_y, z = HALF_X + WALL, HALF_Y + WALL, HEIGHT / 2
        rail = (wall_x + WALL + RAIL / 2, WALL, z)
        green, blue, yellow = (0.35, 0.6, 0.42, 1), (0.2, 0.4, 0.75, 1), (0.95, 0.75, 0.1, 1)
        _add(box, "box_floor", (0, 0, FLOOR), (HALF_X, HALF_Y, FLOOR), (0.12, 0.25, 0.5, 1))
        _add(box, "box_near", (-wall_x, 0, z), (WALL, HALF_Y, z), blue)
        _add(box, "box_far", (wall_x, 0, z), (WALL, HALF_Y, z), blue)
        _add(box, "box_left", (RAIL / 2, wall_y, z), rail, blue)
        _add(box, "box_right", (RAIL / 2, -wall_y, z), rail, blue)
        lid = spec.worldbody.add_body(name="lid", pos=[BOX_X + KNOB_X, 0, TABLE_Z + LID_Z + GRASP])
        lid.add_joint(
            name="lid",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[1, 0, 0],
            range=[0, TRAVEL],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            frictionloss=FRICTION,
            damping=[DAMPING, 0, 0],
        )
        near, far = -wall_x - WALL - KNOB_X, KNOB + 0.008  # where the plate ends, from the knob
        plate = ((far - near) / 2, wall_y + WALL, LID_HALF)
        _add(lid, "lid_plate", ((near + far) / 2, 0, -GRASP), plate, green)
        smooth = spec.geom("lid_plate")  # or a gripper that presses down on it would take it along
        smooth.friction, smooth.priority = (SMOOTH, 5e-3, 1e-4), 1
        _add(lid, "lid_knob", (0, 0, KNOB_HEIGHT / 2 - GRASP), (KNOB, KNOB, KNOB_HEIGHT / 2), yellow)
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Anywhere in the box that leaves room for the fingers, at any angle."""
        x, y = spread(uniform[:, 0], -SPAWN_X, SPAWN_X), spread(uniform[:, 1], -SPAWN_Y, SPAWN_Y)
        return {
            self.object_body: upright(
                BOX_X + x, y, TABLE_Z + 2 * FLOOR + CUBE_HALF + 0.001, 2 * math.pi * uniform[:, 2]
            )
        }

    def place_joints(self, uniform: Tensor) -> Tensor:
        """See `Task`. The lid shut, or anywhere from where the whole box is free."""
        if self.start == "closed":
            return torch.zeros_like(uniform[:, :1])
        return spread(uniform[:, :1], OPEN, TRAVEL)

    def success(self, now: Situation) -> Tensor:
        """See `Task`."""
        return now.pos(self.object_body)[:, 2] > TABLE_Z + CLEAR


def _add(
    body: mujoco.MjsBody,
    name: str,
    pos: tuple[float, float, float],
    size: tuple[float, float, float],
    rgba: tuple[float, float, float, float],
) -> None:
    """Adds a box that collides, and the same box to be seen."""
    shape = {"type": mujoco.mjtGeom.mjGEOM_BOX, "pos": pos, "size": size}
    body.add_geom(name=name, group=0, friction=(1, 5e-3, 1e-4), density=400, **shape)
    body.add_geom(name=f"{name}_visual", group=1, contype=0, conaffinity=0, mass=0, rgba=rgba, **shape)
