"""GPU engine: MuJoCo Warp, float32, on CUDA; on Warp's CPU device it runs the same code for tests.

A control step is some 3,000 kernels, so it is recorded once and replayed, on either device.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import mujoco
import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from caliper.envs.engines.base import POSES, Engine
from caliper.envs.engines.memory import env_bytes
from caliper.envs.engines.room import room
from caliper.envs.engines.sizes import FIELDS, Sizes, sized
from caliper.envs.graphs import WarpGraph, scope, warp_device
from caliper.envs.robot.control import Control
from caliper.errors import CaliperError

# A batch lasts as long as its slowest env. These limits stop one env-step in 2000 and one in 10,000.
# Simpler hulls for the narrow phase would save 2 % (benchmarks/results/hulls.json) and robosuite's contacts.
ITERATIONS, LINE_SEARCH = 8, 12
# What a full buffer takes away, and what only ends a search early: the latter happens in sound simulations.
LOST = int(
    mjw.OverflowType.NEFC
    | mjw.OverflowType.NJMAX_NNZ
    | mjw.OverflowType.BROADPHASE
    | mjw.OverflowType.NARROWPHASE
    | mjw.OverflowType.CCD
    | mjw.OverflowType.HFIELD
    | mjw.OverflowType.NVMAX
)
LIMITS = {
    "solver_iterations": mjw.OverflowType.ITERATIONS,
    "line_search_iterations": mjw.OverflowType.LS_ITERATIONS,
    "penetration_horizon": mjw.OverflowType.EPA_HORIZON,
}
_FIELDS = ("qpos", "qvel", "ctrl", "M", "qfrc_bias", "site_xpos", "site_xmat", "subtree_com", "cdof")


class WarpEngine(Engine):
    """Engine on any Warp device."""

    limits = tuple(LIMITS)

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        control: Control,
        device: torch.device,
        contacts: int | None = None,
        constraints: int | None = None,
        convex: int | None = None,
    ) -> None:
        """Args: the scene, number of envs, the control of the robot, device, room per env.

        Raises:
            CaliperError: the GPU has not the memory.
        """
        usual = room(model)
        contacts, constraints, convex = contacts or usual[0], constraints or usual[1], convex or usual[2]
        if device.type == "cuda":
            need = num_envs * sum(env_bytes(model, contacts, constraints, convex))
            if need > (free := torch.cuda.mem_get_info(device)[0]):
                raise CaliperError(
                    f"{num_envs} envs need {need / 2**30:.1f} GiB on {device}, where {free / 2**30:.1f} "
                    "are free; lower online.num_envs, evaluation.num_envs and data.num_envs"
                )
        self.model, self.num_envs, self.device = model, num_envs, device
        self.wp_device = warp_device(device)
        own = {field.name for field in dataclasses.fields(mjw.Model)}
        names = [name for name in FIELDS if name in own] if sized(model) else []
        with scope(self.wp_device):
            self.mjw_model = mjw.put_model(model, batch_sizes=dict.fromkeys(names, num_envs))
            self.mjw_model.opt.warn_overflow = 0  # counted by `overflow`, not printed
            self.mjw_model.opt.iterations, self.mjw_model.opt.ls_iterations = ITERATIONS, LINE_SEARCH
            self.mjw_data = mjw.make_data(
                model, nworld=num_envs, nconmax=contacts, njmax=constraints, nccdmax=convex
            )
        data = self.mjw_data
        for name in ("qpos", "qvel", "ctrl", "xpos", "xmat", "site_xpos", "site_xmat"):
            setattr(self, name, wp.to_torch(getattr(data, name)))
        for name in ("mocap_pos", "mocap_quat", "sensordata"):
            setattr(self, name, wp.to_torch(getattr(data, name)))
        self._poses = {name: wp.to_torch(getattr(data, name)) for name in POSES}
        fields = {name: wp.to_torch(getattr(self.mjw_model, name)) for name in names}
        self._sizes = Sizes(model, fields)
        self._poses |= {name: x for name, x in fields.items() if name == "geom_size"}
        self.warmstart = wp.to_torch(data.qacc_warmstart)
        self._overflow = wp.to_torch(data.overflow)
        self._limit_bits = torch.tensor([int(bit) for bit in LIMITS.values()], device=device)
        self._advance: dict[int, WarpGraph] = {}
        self._refresh, self._pose = WarpGraph(self.wp_device), WarpGraph(self.wp_device)
        arrays = {k: getattr(data, k) for k in _FIELDS}
        with scope(self.wp_device):
            self.controller = control.on(model, arrays, self.wp_device)

    def advance(self, substeps: int) -> None:
        """See `Engine`."""
        if substeps not in self._advance:
            self._advance[substeps] = WarpGraph(self.wp_device)
        self._advance[substeps](partial(self._run, substeps))

    def _run(self, substeps: int) -> None:
        self.controller.set_goal()
        for _ in range(substeps):
            self.controller.apply()
            mjw.step2(self.mjw_model, self.mjw_data)
            mjw.step1(self.mjw_model, self.mjw_data)

    def refresh(self) -> None:
        """See `Engine`."""
        self._sizes.fit(self.mocap_pos)
        self._refresh(partial(mjw.step1, self.mjw_model, self.mjw_data))

    def pose(self) -> None:
        """See `Engine`."""
        self._sizes.fit(self.mocap_pos)
        self._pose(partial(mjw.fwd_kinematics, self.mjw_model, self.mjw_data))

    def pose_arrays(self) -> dict[str, Tensor]:
        """See `Engine`."""
        return self._poses

    def recordings(self) -> list[WarpGraph]:
        """What is replayed once it was made twice; for who wants to know whether it is."""
        return [*self._advance.values(), self._refresh]

    def overflow(self) -> tuple[Tensor, Tensor]:
        """See `Engine`. MuJoCo Warp keeps one bit for each, and never clears it."""
        lost: Tensor = self._overflow & LOST != 0
        reached: Tensor = self._overflow[:, None] & self._limit_bits != 0
        self._overflow.zero_()
        return lost, reached
