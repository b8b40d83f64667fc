"""Door: press down a door's handle and pull it open (robosuite's own scene and test, with the latch)."""

from __future__ import annotations

import math

import mujoco
from torch import Tensor

from caliper.envs.scene.scenes import compose, load_robosuite
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import HandleParameters, Task, add_camera, spread, upright

TABLE = (-0.2, -0.35, 0.8)  # robosuite's table, at whose far edge the door stands
DOOR_HALF = 0.3  # half the door's height, metres
X, Y, YAW = (
    (0.07, 0.09),
    (-0.01, 0.01),
    (-math.pi / 2 - 0.25, -math.pi / 2),
)  # robosuite's, from the table's centre
OPEN = 0.3  # radians


class Door(Task):
    """Solved when the door is open by 0.3 rad; its latch holds it until the handle is turned."""

    name = "door"
    object_body = "Door_latch"
    observed = ("Door_door",)
    recorded_as = ("Door",)
    plan = HandleParameters(
        door="Door_door",
        handle_joint="Door_latch_joint",
        hinge=(0.255, 0, 0),
        grasp=(0.115, -0.1, 0),
        hover=0.1,
        free=1.25,
    )

    def compose(self) -> mujoco.MjSpec:
        """See `Task`. The door's frame is a fixture: it is placed anew in each episode."""
        load_robosuite()
        from robosuite.models.arenas import TableArena
        from robosuite.models.objects import DoorObject

        arena = TableArena(table_full_size=(0.8, 0.3, 0.05), table_offset=TABLE)
        arena.set_camera(
            camera_name="agentview",
            pos=[0.5986131746834771, -4.392035683362857e-09, 1.5903500240372423],
            quat=[0.6380177736282349, 0.3048497438430786, 0.30484986305236816, 0.6380177736282349],
        )
        door = DoorObject(name="Door", friction=0.0, damping=0.1, lock=True)
        spec = compose(arena, [door], (-0.56, 0, 0), self.robot)
        spec.body("Door_main").mocap = True
        add_camera(spec, "showcase", (0.55, 0.75, 1.6), (-0.15, -0.2, 1.05))
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. The whole door within 1 cm, turned by up to 0.25 rad."""
        x, y = (TABLE[i] + spread(uniform[:, i], *ends) for i, ends in ((0, X), (1, Y)))
        return {"Door_main": upright(x, y, TABLE[2] + DOOR_HALF, spread(uniform[:, 2], *YAW))}

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's test."""
        return now.joint("Door_hinge") > OPEN
