"""How many kernels a control step queues, so that an upgrade of MuJoCo Warp that doubles them is seen.

Launches are counted, not made. On a GPU a graph's kernel costs two microseconds and more, whatever it does.
"""

from collections import Counter

import pytest
import torch
import warp as wp
from warp._src import context

from caliper.envs.sim import SimEnv

# Of MuJoCo Warp 4.0: launches and fills of a physics step, the controller's launch among them, and launches
# of an iteration of the solver. Beside them there is the controller's goal, once per control step.
PER_PHYSICS_STEP, FILLS, PER_ITERATION, PER_CONTROL_STEP = 100, 17, 10, 1


class Counted:
    """What is launched, allocated and filled, outside the solver's loop and in it."""

    def __init__(self, monkeypatch):
        self.outside, self.inside, self.now = Counter(), Counter(), "outside"
        monkeypatch.setattr(wp, "launch", self.count("launch"))
        monkeypatch.setattr(wp, "launch_tiled", self.count("launch"))
        monkeypatch.setattr(wp, "capture_while", self.loop)
        monkeypatch.setattr(wp.Launch, "launch", self.count("launch"))
        for name in ("zero_", "fill_", "assign"):
            fill = getattr(wp.array, name)
            monkeypatch.setattr(wp.array, name, self.count("fill", fill))
        allocate = context.CpuDefaultAllocator.allocate
        monkeypatch.setattr(context.CpuDefaultAllocator, "allocate", self.count("allocation", allocate))

    def count(self, what, do=lambda *args, **kwargs: None):
        def counted(*args, **kwargs):
            getattr(self, self.now)[what] += 1
            return do(*args, **kwargs)

        return counted

    def loop(self, condition, while_body, **kwargs):
        self.outside["loop"] += 1
        self.now = "inside"
        while_body(**kwargs)
        self.now = "outside"


@pytest.fixture
def engine():
    return SimEnv("pick_place_can", 2, sim="warp", cameras=(), threads=1).engine


def test_a_control_step_keeps_its_budget(engine, monkeypatch):
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        engine._run(25)
    assert counted.outside["loop"] == 25  # one solver per physics step, and nothing else loops
    launches = counted.outside["launch"] - PER_CONTROL_STEP
    assert launches <= 25 * PER_PHYSICS_STEP, f"{launches / 25:.1f} launches per physics step"
    assert counted.outside["fill"] <= 25 * FILLS
    assert 0 < counted.inside["launch"] <= 25 * PER_ITERATION
    assert (
        counted.inside["allocation"] == counted.inside["fill"] == 0
    )  # memory taken in the loop would be taken at every iteration


def test_the_count_counts(engine, monkeypatch):
    """Twice the physics steps are twice the launches, and a controller applied once more is one more."""
    seen = []
    for substeps, again in ((1, 0), (2, 0), (2, 1)):
        with monkeypatch.context() as patch:
            counted = Counted(patch)
            engine._run(substeps)
            for _ in range(again):
                engine.controller.apply()
        seen.append(counted.outside["launch"] - PER_CONTROL_STEP)
    assert seen[1] == 2 * seen[0] > 0 and seen[2] == seen[1] + 1
    engine.refresh()
    assert torch.isfinite(engine.qpos).all()  # nothing was run meanwhile
