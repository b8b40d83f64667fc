"""The vectorised environment: one task, one engine, one renderer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from caliper.envs.base import refuse_actions, refuse_states
from caliper.envs.drawn import Drawn
from caliper.envs.engines import make_engine
from caliper.envs.graphs import TorchGraph
from caliper.envs.health import Health, sound
from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import STANDARD, RobotState
from caliper.envs.observation.proprio import bodies_dim, bodies_part
from caliper.envs.robot.control import Control, action_dim
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.scenes import Scene, build
from caliper.envs.scene.starts import Starts
from caliper.envs.situation import Situation
from caliper.envs.tasks import make_task
from caliper.errors import CaliperError
from caliper.machine import cores
from caliper.types import Obs, ObsSpec, Step

EPISODE_STRIDE = 1 << 20  # between the seeds of an env's consecutive episodes
BEHIND, MOVES = 0.8, 0.05  # half ranges of a gripper's motor, and the same per second


@cache
def task_scene(task: str, robot: str = "panda", draw_size: bool = False) -> Scene:
    """The compiled scene of a task with a robot, built once per process."""
    return build(make_task(task, robot=robot, draw_size=draw_size).scene)


class SimEnv(Drawn):
    """A task on batched MuJoCo.

    `Obs.proprio` (n, 9 + f): grip position relative to the workspace's centre over 15 cm (3), the first two
    columns of the gripper's rotation (6), positions of the gripper's f joints over half their ranges. A
    privileged environment adds 12 entries for the object and for whatever else the task observes: position
    relative to the workspace's centre (3) and to the grip (3), over 15 cm, and the first two columns of the
    rotation (6). With other keys than the standard one for `proprio`, these are the robot's part.

    Attributes:
        robot_parts: entries of the robot's part by their key, in order.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        sim: str = "batch",
        cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand"),
        size: int | tuple[tuple[int, int], ...] = 64,
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
        depth: bool = False,
        segmentation: bool = False,
        proprio: tuple[str, ...] = (STANDARD,),
        draw_size: bool = False,
    ) -> None:
        """Builds the envs and starts an episode in each.

        Args:
            task: name of the task.
            num_envs: number of envs.
            sim: engine, 'batch' (CPU) or 'warp' (CUDA, or Warp's CPU device).
            cameras: names of the policy's cameras, in order; none means no images.
            size: side of the policy's images, pixels; or height and width of each camera's.
            controller: how actions move the arm, see `caliper.envs.robot.control`.
            control_freq: control steps per second; must divide the physics' 500.
            horizon: control steps per episode.
            device: 'cpu' or 'cuda'.
            seed: envs' own series of episodes start from it.
            threads: CPU threads for physics and images; None uses the cores this process may use.
            privileged: whether observations hold what a camera would have to show.
            start: how episodes start, one of the task's `starts`; None is the usual way.
            max_diverged: share of the episodes whose physics may blow up before `check` raises.
            robot: who acts, see `caliper.envs.scene.scenes.ROBOTS`.
            depth: whether each camera gives depth too.
            segmentation: whether each camera gives a segmentation by instance too.
            proprio: what the robot's part of the proprioception is, see `caliper.envs.observation.lowdim`.
            draw_size: whether each episode draws the size of the task's object.

        Raises:
            CaliperError: an unknown name, or a frequency that does not divide the physics' rate.
        """
        self.task = make_task(task, start, robot, draw_size)
        scene = task_scene(task, robot, draw_size)
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
        self.horizon, self.state_dim = horizon, scene.state_dim
        self._substeps = round(substeps)
        self._threads = threads or cores()
        control = Control(controller, control_freq, robot)
        self.engine = make_engine(sim, scene.model, num_envs, control, self.device, self._threads)
        self.now = Situation(self.engine)
        bodies = (self.task.object_body, *self.task.observed) if privileged else ()
        self._posed = torch.tensor([scene.model.body(b).id for b in bodies], dtype=torch.long, device=device)
        self._robot = RobotState(proprio, self.engine, robot_facts(robot))
        self.robot_parts = self._robot.parts
        told = self._robot.dim + bodies_dim(self.task, privileged)
        self.spec = ObsSpec(cameras, size, told, depth, len(instances(scene.model)[0]) * segmentation)
        self._look_at(self.engine)
        index = self.engine.controller.index
        self._starts = Starts(self.task, scene.model, robot_facts(robot), index, self.device)
        driven = scene.model.actuator_trnid[index.fingers, 0]
        places = (index.fingers, scene.model.jnt_qposadr[driven], scene.model.jnt_dofadr[driven])
        self._gripper = [torch.as_tensor(at, device=self.device) for at in places]
        half = np.ptp(scene.model.actuator_ctrlrange[index.fingers], axis=1) / 2
        self._gripper_half = torch.as_tensor(half, device=self.device)
        self._quick_gripper = robot_facts(robot).quick
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
        return self.now.grip_pos

    @property
    def grip_mat(self) -> Tensor:
        """Rotation of the grip site, (n, 3, 3)."""
        return self.now.grip_mat

    @property
    def object_pos(self) -> Tensor:
        """Position of the task's object, metres, (n, 3)."""
        return self.now.pos(self.task.object_body)

    @property
    def object_mat(self) -> Tensor:
        """Rotation of the task's object, (n, 3, 3)."""
        return self.now.mat(self.task.object_body)

    @property
    def gripper_behind(self) -> Tensor:
        """Whether the gripper moves, far behind its command, bool (n,): a slow one does for a while."""
        if self._quick_gripper:
            return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        motors, qpos, dof = self._gripper
        position, speed = self.engine.qpos[:, qpos], self.engine.qvel[:, dof]
        lag = (self.engine.ctrl[:, motors] - position).abs() / self._gripper_half
        moves = speed.abs() / self._gripper_half > MOVES
        return ((lag > BEHIND) & moves).any(dim=1)

    def solved(self) -> Tensor:
        """Whether the task is solved in the envs' states as they are, bool (n,)."""
        return self.task.success(self.now)

    # ---- episodes

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        if mask is None:
            mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        seeds = self._next_seed if seeds is None else seeds
        self._start_episodes(mask.to(self.device), seeds.to(self.device))
        self.engine.refresh()
        self._dress_episodes()
        return self.observe()

    def _start_episodes(self, mask: Tensor, seeds: Tensor) -> None:
        """Writes start states into the masked envs, without host synchronisation."""
        engine = self.engine
        self.seeds.copy_(torch.where(mask, seeds, self.seeds))
        self._next_seed.copy_(torch.where(mask, seeds + EPISODE_STRIDE, self._next_seed))
        self.steps.masked_fill_(mask, 0)
        self._limit.masked_fill_(mask, self.horizon)
        qpos, arm, fixtures = self._starts.draw(self.seeds)
        _put(engine.qpos, qpos, mask)
        _put(engine.mocap_pos, fixtures[..., :3], mask)
        _put(engine.mocap_quat, fixtures[..., 3:], mask)
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
        refuse_actions(self, action, self.controller)
        self._action.copy_(action)
        self.engine.advance(self._substeps)
        success, truncated, diverged, reward, self.final_state, proprio = self._judge(self._outcome)
        final_obs = obs = self._seen(proprio)
        # A CPU looks before it works; a GPU would have to be waited for, and does the work of a reset masked.
        if self.device.type != "cpu" or bool(self._done.any()):
            self._begin(self._begin_where_done)
            self.engine.refresh()
            self._dress_episodes(self._done)
            obs = self._seen(self._proprio(), self._done)
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
        return self._seen(self._proprio())

    def _proprio(self) -> Tensor:
        e = self.engine
        own = self._robot.read()
        if not len(self._posed):
            return own
        pos, mat = (x.index_select(1, self._posed) for x in (e.xpos, e.xmat))
        return torch.cat([own, bodies_part(pos, mat, self.grip_pos)], dim=1)

    # ---- states

    def get_state(self) -> Tensor:
        """See `VectorEnv`."""
        time = (self.steps.double() / self.control_freq)[:, None]
        e = self.engine
        fixtures = torch.cat([e.mocap_pos, e.mocap_quat], dim=2).flatten(1)
        return torch.cat([time, *(part.double() for part in (e.qpos, e.qvel, fixtures))], dim=1)

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`.

        Raises:
            CaliperError: more states than envs, or states of another length.
        """
        refuse_states(self, state)
        m, nq, nv = state.shape[0], self.engine.model.nq, self.engine.model.nv
        self.engine.qpos[:m] = state[:, 1 : 1 + nq].to(self.engine.qpos)
        self.engine.qvel[:m] = state[:, 1 + nq : 1 + nq + nv].to(self.engine.qvel)
        fixtures = state[:, 1 + nq + nv :].reshape(m, -1, 7).to(self.engine.mocap_pos)
        self.engine.mocap_pos[:m], self.engine.mocap_quat[:m] = fixtures[..., :3], fixtures[..., 3:]
        self.engine.pose()

    def _live(self) -> dict[str, Tensor]:
        e = self.engine
        live = {"qpos": e.qpos, "qvel": e.qvel, "ctrl": e.ctrl, "warmstart": e.warmstart}
        if e.model.nmocap:
            live |= {"mocap_pos": e.mocap_pos, "mocap_quat": e.mocap_quat}
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
        self._dress_episodes()


def _put(live: Tensor, value: Tensor, mask: Tensor) -> None:
    """Writes rows of `value` into the engine's memory where `mask` is set, in place."""
    rows = mask.view(-1, *[1] * (live.ndim - 1))
    live.copy_(torch.where(rows, value.to(live.dtype), live))
