"""PickPlaceBread: move a loaf from one bin to its quarter of the other (robosuite's own scene and test)."""

import math

from caliper.envs.tasks.base import ExpertParameters
from caliper.envs.tasks.bins import BIN2, BinTask, quarter


class PickPlaceBread(BinTask):
    """Solved when the loaf lies in its quarter of the second bin and the gripper is away."""

    name = "pick_place_bread"
    object_body = "Bread_main"
    recorded_as = ("PickPlaceBread",)
    kind, radius, bottom = "Bread", 0.03, 0.045
    target = quarter(1, -1)
    plan = ExpertParameters(
        hover=0.12,
        carry_z=1.05,
        target=(target[0] - 0.02, target[1]),
        release_z=BIN2[2] + 0.08,
        target_tol=0.03,
        symmetry=math.pi / 2,
    )
