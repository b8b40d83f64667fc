"""PickPlaceCan: move a can from one bin to its quarter of the other (robosuite's own scene and test)."""

from caliper.envs.tasks.base import ExpertParameters
from caliper.envs.tasks.bins import BIN2, BinTask, quarter


class PickPlaceCan(BinTask):
    """Solved when the can stands in its quarter of the second bin and the gripper is away."""

    name = "pick_place_can"
    object_body = "Can_main"
    recorded_as = ("PickPlaceCan",)
    kind, radius, bottom = "Can", 0.025, 0.06
    target = quarter(1, 1)
    # The quarter's centre is at the limit of the arm's reach: aim 2 cm nearer, accept 3 cm.
    plan = ExpertParameters(
        hover=0.12,
        carry_z=1.08,
        target=(target[0] - 0.02, target[1] - 0.02),
        release_z=BIN2[2] + 0.10,
        target_tol=0.03,
    )
