"""PickPlaceMilk: move a carton from one bin to its quarter of the other (robosuite's own scene and test)."""

import math

from caliper.envs.tasks.base import ExpertParameters
from caliper.envs.tasks.bins import BIN2, BinTask, quarter


class PickPlaceMilk(BinTask):
    """Solved when the carton is in its quarter of the second bin and the gripper is away."""

    name = "pick_place_milk"
    object_body = "Milk_main"
    recorded_as = ("PickPlaceMilk",)
    kind, radius, bottom = "Milk", 0.025, 0.085
    target = quarter(-1, -1)
    plan = ExpertParameters(
        hover=0.12,
        grasp=(0, 0, 0.03),
        carry_z=1.13,
        target=target,
        release_z=BIN2[2] + 0.13,
        target_tol=0.03,
        symmetry=math.pi / 2,
    )
