"""Physics engines behind one interface."""

from __future__ import annotations

import mujoco
import torch

from caliper.envs.engines.base import Engine
from caliper.envs.engines.batch import BatchEngine
from caliper.envs.robot.control import Control
from caliper.errors import CaliperError, one_of

SIMS = ("batch", "warp")


def make_engine(
    sim: str, model: mujoco.MjModel, n: int, control: Control, device: torch.device, threads: int
) -> Engine:
    """An engine with n envs of a scene.

    Args:
        sim: 'batch' or 'warp'.
        model: the scene.
        n: number of envs.
        control: of the robot.
        device: where it runs.
        threads: of the physics on a CPU; `warp` takes one.

    Raises:
        CaliperError: no such engine, or not on that device.
    """
    if sim == "batch":
        if device.type != "cpu":
            raise CaliperError(f"sim 'batch' runs on the CPU, not on '{device}'; use sim=warp there")
        return BatchEngine(model, n, control, threads)
    if sim == "warp":
        from caliper.envs.engines.warp import WarpEngine  # MuJoCo Warp takes seconds to import

        return WarpEngine(model, n, control, device)
    raise CaliperError(f"sim '{sim}' is unknown; {one_of(SIMS, sim)}")
