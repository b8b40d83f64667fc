"""The vectorised environment: one task, one engine, one renderer."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from caliper.envs.appearance import AS_IT_IS, Appearance, AppearanceRanges, Appearances
from caliper.envs.base import VectorEnv
from caliper.envs.control import Control, action_dim
from caliper.envs.engines import make_engine
from caliper.envs.graphs import TorchGraph
from caliper.envs.health import Health, sound
from caliper.envs.proprio import bodies_part, proprio_dim, robot_part
from caliper.envs.render import make_renderer
from caliper.envs.render.base import Renderer
from caliper.envs.robots import robot_facts
from caliper.envs.scenes import Scene, build
from caliper.envs.starts import Starts
from caliper.envs.tasks import make_task
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec, Step

EPISODE_STRIDE = 1 << 20  # between the seeds of an env's consecutive episodes
BEHIND, MOVES = 0.8, 0.05  # half ranges of a gripper's motor, and the same per second
_ANTIALIAS_FROM = 128  # pixels; larger images are for people


@cache
def task_scene(task: str, robot: str = "panda") -> Scene:
    """The compiled scene of a task with a robot, built once per process."""
    return build(make_task(task, robot=robot).compose)


class SimEnv(VectorEnv):
    """A task on batched MuJoCo.

    `Obs.proprio` (n, 9 + f): grip position relative to the workspace's centre over 15 cm (3), the first two
    columns of the gripper's rotation (6), positions of the gripper's f joints over half their ranges. A
    privileged environment adds 12 entries for the object and for whatever else the task observes: position
    relative to the workspace's centre (3) and to the grip (3), over 15 cm, and the first two columns of the
    rotation (6).
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        sim: str = "batch",
        cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand"),
        size: int = 64,
        controller: str = "osc_pose",
        control_freq: int = 20,
        horizon: int = 200,
        device: str = "cpu",
        seed: int = 0,
        threads: int | None = None,
        privileged: bool = False,
        start: str | None = None,
        max_diverged: float = 0.01,
        robot: str = "panda",
    ) -> None:
        """Builds the envs and starts an episode in each.

        Args:
            task: name of the task.
            num_envs: number of envs.
            sim: engine, 'batch' (CPU) or 'warp' (CUDA, or Warp's CPU device).
            cameras: names of the policy's cameras, in order; none means no images.
            size: side of the policy's images, pixels.
            controller: how actions move the arm, see `caliper.envs.control`.
            control_freq: control steps per second; must divide the physics' 500.
            horizon: control steps per episode.
            device: 'cpu' or 'cuda'.
            seed: envs' own series of episodes start from it.
            threads: CPU threads for physics and images; None uses the cores this process may use.
            privileged: whether observations hold what a camera would have to show.
            start: how episodes start, one of the task's `starts`; None is the usual way.
            max_diverged: share of the episodes whose physics may blow up before `check` raises.
            robot: who acts, see `caliper.envs.scenes.ROBOTS`.

        Raises:
            CaliperError: an unknown name, or a frequency that does not divide the physics' rate.
        """
        self.task = make_task(task, start, robot)
        scene = task_scene(task, robot)
        substeps = 1 / scene.model.opt.timestep / control_freq
        if abs(substeps - round(substeps)) > 1e-6:
            raise CaliperError(
                f"control_freq {control_freq} does not divide the physics' 500 Hz; try 20 or 10"
            )
        self.num_envs, self.device, self.scene_hash = num_envs, torch.device(device), scene.hash
        self.action_dim, self.controller, self.control_freq = (
            action_dim(controller, robot),
            controller,
            control_freq,
        )
        self.horizon, self.state_dim = horizon, 1 + scene.model.nq + scene.model.nv
        self.spec = ObsSpec(cameras, size, proprio_dim(self.task, privileged, robot))
        self._substeps = round(substeps)
        self._threads = threads or len(os.sched_getaffinity(0))
        control = Control(controller, control_freq, robot)
        self.engine = make_engine(sim, scene.model, num_envs, control, self.device, self._threads)
        self._renderers: dict[tuple[tuple[str, ...], int], Renderer] = {}
        self._appearances = Appearances(scene.model, self.device)
        self._appearance: Appearance | None = None
        self._body = scene.model.body(self.task.object_body).id
        bodies = (self.task.object_body, *self.task.observed) if privileged else ()
        self._posed = torch.tensor([scene.model.body(b).id for b in bodies], dtype=torch.long, device=device)
        index = self.engine.controller.index
        self._site = index.grip_site
        self._starts = Starts(self.task, scene.model, robot_facts(robot), index, self.device)
        self._fingers = torch.as_tensor(index.finger_qpos, device=self.device)
        self._finger_half = torch.as_tensor(index.finger_half, device=self.device).to(self.engine.qpos)
        driven = scene.model.actuator_trnid[index.fingers, 0]
        places = (index.fingers, scene.model.jnt_qposadr[driven], scene.model.jnt_dofadr[driven])
        self._gripper = [torch.as_tensor(at, device=self.device) for at in places]
        half = np.ptp(scene.model.actuator_ctrlrange[index.fingers], axis=1) / 2
        self._gripper_half = torch.as_tensor(half, device=self.device)
        self._action = wp.to_torch(self.engine.controller.action)
        # Written in place from here on: recorded work knows the memory, not the names.
        env_ids = torch.arange(num_envs, device=self.device)
        self._next_seed = (seed + 1) * (1 << 40) + env_ids
        self.seeds, self.steps = self._next_seed.clone(), torch.zeros_like(env_ids)
        self._limit = torch.full_like(env_ids, horizon)  # control steps of the running episodes
        self._done = torch.zeros_like(env_ids, dtype=torch.bool)
        self._health = Health(self.engine.limits, max_diverged, self.device)
        self._judge = TorchGraph(self.device)
        self._begin = TorchGraph(self.device)
        self.reset()

    # ---- what experts and tasks look at

    @property
    def grip_pos(self) -> Tensor:
        """Position of the grip site, metres, (n, 3)."""
        return self.engine.site_xpos[:, self._site]

    @property
    def grip_mat(self) -> Tensor:
        """Rotation of the grip site, (n, 3, 3)."""
        return self.engine.site_xmat[:, self._site].view(-1, 3, 3)

    @property
    def object_pos(self) -> Tensor:
        """Position of the task's object, metres, (n, 3)."""
        return self.engine.xpos[:, self._body]

    @property
    def object_mat(self) -> Tensor:
        """Rotation of the task's object, (n, 3, 3)."""
        return self.engine.xmat[:, self._body].view(-1, 3, 3)

    @property
    def gripper_behind(self) -> Tensor:
        """Whether the gripper moves, far behind its command, bool (n,): a slow one does for a while."""
        motors, qpos, dof = self._gripper
        position, speed = self.engine.qpos[:, qpos], self.engine.qvel[:, dof]
        lag = (self.engine.ctrl[:, motors] - position).abs() / self._gripper_half
        moves = speed.abs() / self._gripper_half > MOVES
        return ((lag > BEHIND) & moves).any(dim=1)

    def solved(self) -> Tensor:
        """Whether the task is solved in the envs' states as they are, bool (n,)."""
        return self.task.success(self.object_pos, self.grip_pos)

    # ---- episodes

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        if mask is None:
            mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        seeds = self._next_seed if seeds is None else seeds
        self._start_episodes(mask.to(self.device), seeds.to(self.device))
        self.engine.refresh()
        return self.observe()

    def _start_episodes(self, mask: Tensor, seeds: Tensor) -> None:
        """Writes start states into the masked envs, without host synchronisation."""
        engine = self.engine
        self.seeds.copy_(torch.where(mask, seeds, self.seeds))
        self._next_seed.copy_(torch.where(mask, seeds + EPISODE_STRIDE, self._next_seed))
        self.steps.masked_fill_(mask, 0)
        self._limit.masked_fill_(mask, self.horizon)
        qpos, arm = self._starts.draw(self.seeds)
        _put(engine.qpos, qpos, mask)
        engine.controller.begin(mask, arm)
        for live in (engine.qvel, engine.ctrl, engine.warmstart):
            _put(live, torch.zeros_like(live), mask)

    def stagger(self, shortest: int = 1) -> None:
        """Cuts the running episodes at evenly spread lengths, so that the envs do not all end together.

        Args:
            shortest: control steps of the shortest; later episodes have the horizon again.
        """
        env_ids = torch.arange(self.num_envs, device=self.device)
        self._limit.copy_(self.horizon - env_ids * (self.horizon - shortest) // self.num_envs)

    def _begin_where_done(self) -> tuple[Tensor, ...]:
        self._start_episodes(self._done, self._next_seed)
        return ()

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`.

        Raises:
            CaliperError: an action of the wrong shape.
        """
        if action.shape != (self.num_envs, self.action_dim):
            want, got = (self.num_envs, self.action_dim), tuple(action.shape)
            raise CaliperError(f"action has shape {got}; {self.controller} in {want[0]} envs takes {want}")
        self._action.copy_(action)
        self.engine.advance(self._substeps)
        success, truncated, diverged, reward, self.final_state, proprio = self._judge(self._outcome)
        final_obs = obs = Obs(self._pixels(), proprio)
        # A CPU looks before it works; a GPU would have to be waited for, and does the work of a reset masked.
        if self.device.type != "cpu" or bool(self._done.any()):
            self._begin(self._begin_where_done)
            self.engine.refresh()
            obs = Obs(self._pixels(self._done), self._proprio())
        return Step(obs, reward, success, truncated, final_obs, success, diverged)

    def _outcome(self) -> tuple[Tensor, ...]:
        """What the last control step led to: success, time-out, blow-up, reward, state, proprioception."""
        self.steps += 1
        proprio = self._proprio()
        diverged = ~sound(self.engine.qpos, self.engine.qvel, proprio)
        success = self.solved() & ~diverged
        truncated = (self.steps >= self._limit) & ~success | diverged
        self._done.copy_(success | truncated)
        self._health.note(*self.engine.overflow(), diverged, self._done, self.seeds)
        return success, truncated, diverged, success.float(), self.get_state(), proprio

    def check(self) -> None:
        """See `VectorEnv`."""
        self._health.check(self.task.name)

    def rates(self) -> dict[str, float]:
        """See `VectorEnv`."""
        return self._health.rates()

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        return Obs(self._pixels(), self._proprio())

    def _proprio(self) -> Tensor:
        e = self.engine
        own = robot_part(self.grip_pos, self.grip_mat, e.qpos[:, self._fingers] / self._finger_half)
        if not len(self._posed):
            return own
        pos, mat = (x.index_select(1, self._posed) for x in (e.xpos, e.xmat))
        return torch.cat([own, bodies_part(pos, mat, self.grip_pos)], dim=1)

    def _pixels(self, changed: Tensor | None = None) -> Tensor:
        """The policy's images now; drawn anew only where `changed` since the last."""
        if not self.spec.cameras:
            shape = (self.num_envs, 0, 3, self.spec.size, self.spec.size)
            return torch.zeros(shape, dtype=torch.uint8, device=self.device)
        return self._renderer(self.spec.cameras, self.spec.size).render(changed)

    def _renderer(self, cameras: tuple[str, ...], size: int) -> Renderer:
        if (cameras, size) not in self._renderers:
            antialias = 2 if size >= _ANTIALIAS_FROM else 1
            self._renderers[cameras, size] = make_renderer(
                self.engine, cameras, size, self._threads, antialias
            )
            if self._appearance is not None:
                self._renderers[cameras, size].dress(self._appearance)
        return self._renderers[cameras, size]

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """See `VectorEnv`. From 128 pixels on, images are antialiased."""
        return self._renderer(cameras, size).render()

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """See `VectorEnv`."""
        if seeds is None:
            seeds, ranges = torch.zeros_like(self.seeds), AS_IT_IS
        self._appearance = self._appearances.draw(ranges, seeds.to(self.device))
        for renderer in self._renderers.values():
            renderer.dress(self._appearance)

    # ---- states

    def get_state(self) -> Tensor:
        """See `VectorEnv`."""
        time = (self.steps.double() / self.control_freq)[:, None]
        return torch.cat([time, self.engine.qpos.double(), self.engine.qvel.double()], dim=1)

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`.

        Raises:
            CaliperError: more states than envs, or states of another length.
        """
        m, nq = state.shape[0], self.engine.model.nq
        if m > self.num_envs or state.shape[1] != self.state_dim:
            raise CaliperError(
                f"states of shape {tuple(state.shape)} do not fit {self.num_envs} envs of state length "
                f"{self.state_dim}; the file belongs to another scene or the batch is too large"
            )
        self.engine.qpos[:m] = state[:, 1 : 1 + nq].to(self.engine.qpos)
        self.engine.qvel[:m] = state[:, 1 + nq :].to(self.engine.qvel)
        self.engine.pose()

    def _live(self) -> dict[str, Tensor]:
        e = self.engine
        live = {"qpos": e.qpos, "qvel": e.qvel, "ctrl": e.ctrl, "warmstart": e.warmstart}
        return {**live, **e.controller.memory}

    def state_dict(self) -> dict[str, Any]:
        """See `VectorEnv`."""
        counters = {"seeds": self.seeds, "steps": self.steps, "next_seed": self._next_seed}
        counters["limit"] = self._limit
        return {k: v.clone() for k, v in {**self._live(), **counters, "health": self._health.state()}.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        for name, live in self._live().items():
            live.copy_(state[name])
        for name, live in (("seeds", self.seeds), ("steps", self.steps), ("next_seed", self._next_seed)):
            live.copy_(state[name])
        self._limit.copy_(state["limit"])
        self._health.load(state["health"])
        self.engine.refresh()


def _put(live: Tensor, value: Tensor, mask: Tensor) -> None:
    """Writes rows of `value` into the engine's memory where `mask` is set, in place."""
    live.copy_(torch.where(mask[:, None], value.to(live.dtype), live))
