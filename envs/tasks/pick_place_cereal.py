"""PickPlaceCereal: move a box from one bin to its quarter of the other (robosuite's own scene and test)."""

import math

from caliper.envs.tasks.base import ExpertParameters
from caliper.envs.tasks.bins import BIN2, BinTask, quarter


class PickPlaceCereal(BinTask):
    """Solved when the box is in its quarter of the second bin and the gripper is away."""

    name = "pick_place_cereal"
    object_body = "Cereal_main"
    recorded_as = ("PickPlaceCereal",)
    kind, radius, bottom = "Cereal", 0.04, 0.1
    target = quarter(-1, 1)
    plan = ExpertParameters(
        hover=0.12,
        grasp=(0, 0, 0.03),
        carry_z=1.13,
        target=(target[0], target[1] - 0.02),
        release_z=BIN2[2] + 0.13,
        target_tol=0.03,
        symmetry=math.pi,
    )
