"""Any environment of robosuite: its physics, controllers and success test; images from Caliper's renderer.

For what has no file among `caliper.envs.tasks`. Each env is stepped by robosuite's own class, one after the
other: slower, and the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.base import refuse_actions, refuse_states
from caliper.envs.drawn import Drawn
from caliper.envs.engines.puppets import Puppets, put
from caliper.envs.health import Health
from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import STANDARD
from caliper.envs.one_by_one import OneByOneEnv
from caliper.envs.scene.patched import controller_config, patched_robosuite
from caliper.envs.scene.scenes import ROBOTS, Scene, build, mend_contacts
from caliper.errors import CaliperError, one_of
from caliper.machine import cores
from caliper.types import Obs, ObsSpec, Step

# An absolute pose is one of the arm's own frame, which robosuite reads otherwise for two arms.
CONTROLLERS = ("osc_pose", "osc_position", "joint_position", "joint_velocity")
OBJECTS = "object-state"  # robosuite's name of all that it tells of the objects
# Accelerations hang on what a state leaves out; the other is all of a robot's numbers in one.
NOT_OF_A_STATE = ("_joint_acc", "_proprio-state")
MODEL_SEED = 0  # sizes that robosuite draws when it builds a scene are drawn from it, once
PHYSICS_HZ = 500


@dataclass(frozen=True)
class Blueprint:
    """What is the same in all envs of one kind.

    Attributes:
        scene: harmonised, for the renderer.
        fixtures: names of the bodies that stand in the world without a joint, which an episode may move.
        observables: the length of each of robosuite's low-dimensional observations, by its name.
        action_dim: length of an action.
    """

    scene: Scene
    fixtures: tuple[str, ...]
    observables: Mapping[str, int]
    action_dim: int

    @property
    def state_dim(self) -> int:
        """Length of a state: time, positions, velocities, position and quaternion of each fixture."""
        return int(1 + self.scene.model.nq + self.scene.model.nv + 7 * len(self.fixtures))

    def told(self, proprio: Sequence[str], privileged: bool) -> tuple[str, ...]:
        """Names of the observations that make up `Obs.proprio`.

        Args:
            proprio: 'standard', all of robosuite's numbers of the robots but accelerations; or their names.
            privileged: whether the objects are told too.

        Raises:
            CaliperError: no such observation of a robot.
        """
        own = [n for n in self.observables if n.startswith("robot") and not n.endswith(NOT_OF_A_STATE)]
        found: list[str] = []
        for name in proprio:
            if name == STANDARD:
                found += own
            elif name in own:
                found.append(name)
            else:
                raise CaliperError(f"task.proprio: there is no '{name}'; {one_of([STANDARD, *own], name)}")
        return (*found, *([OBJECTS] if privileged and OBJECTS in self.observables else []))

    def length(self, names: Sequence[str]) -> int:
        """How many numbers these observations are."""
        return sum(self.observables[name] for name in names)


class RobosuiteEnv(OneByOneEnv, Drawn):
    """n envs of one robosuite environment.

    `Obs.proprio` is what robosuite observes of the robots, unscaled; a privileged environment adds what it
    observes of the objects. The raw reward is 1 on the step that first meets robosuite's success test.
    Sizes that robosuite draws anew at each hard reset are drawn once, for one scene serves all images.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        robots: Sequence[str] = ("panda",),
        cameras: tuple[str, ...] = ("agentview",),
        size: int | tuple[tuple[int, int], ...] = 64,
        controller: str = "osc_pose",
        control_freq: int = 20,
        horizon: int = 200,
        seed: int = 0,
        threads: int | None = None,
        privileged: bool = False,
        max_diverged: float = 0.01,
        depth: bool = False,
        segmentation: bool = False,
        proprio: Sequence[str] = (STANDARD,),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Builds the envs and starts an episode in each.

        Args:
            name: of robosuite's environment, such as TwoArmLift.
            num_envs: number of envs.
            robots: who acts, of `caliper.envs.scene.scenes.ROBOTS`.
            cameras: names of the policy's cameras, in order; none means no images.
            size: side of the policy's images, pixels; or height and width of each camera's.
            controller: how actions move each arm, one of `CONTROLLERS`.
            control_freq: control steps per second; must divide the physics' 500.
            horizon: control steps per episode.
            seed: envs' own series of episodes start from it.
            threads: CPU threads for images; None uses the cores this process may use.
            privileged: whether observations tell of the objects.
            max_diverged: share of the episodes whose physics may blow up before `check` raises.
            depth: whether each camera gives depth too.
            segmentation: whether each camera gives a segmentation by instance too.
            proprio: what is told of the robots, see `Blueprint.told`.
            kwargs: further ones of the environment's constructor, such as env_configuration.

        Raises:
            CaliperError: robosuite has no such environment, or it cannot be made so.
        """
        plan = blueprint(name, robots, controller, control_freq, kwargs or {})
        model = plan.scene.model
        self.name = name
        self._names = plan.told(proprio, privileged)
        self.spec = ObsSpec(
            cameras, size, plan.length(self._names), depth, len(instances(model)[0]) * segmentation
        )
        self.num_envs, self.device, self.action_dim = num_envs, torch.device("cpu"), plan.action_dim
        self.state_dim, self.scene_hash = plan.state_dim, plan.scene.hash
        self._threads = threads or cores()
        self._envs = [_make(name, robots, controller, control_freq, kwargs or {}) for _ in range(num_envs)]
        self._fixtures = [self._envs[0].sim.model.body_name2id(body) for body in plan.fixtures]
        self._puppets = Puppets(model, plan.fixtures, num_envs)
        self._states = np.zeros((num_envs, self.state_dim))
        self._told = np.zeros((num_envs, self.spec.proprio), np.float32)
        self._blown = np.zeros(num_envs, bool)
        self._health = Health((), max_diverged, self.device)
        self.seeds = torch.zeros(num_envs, dtype=torch.int64)
        self._look_at(self._puppets)
        self._prepare(num_envs, plan.action_dim, horizon, seed)

    # ---- episodes

    def _start(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> None:
        super()._start(mask, seeds)
        self._dress_episodes(torch.tensor(mask))

    def _begin(self, i: int, seed: int) -> None:
        env = self._envs[i]
        # The samplers of the start hold this very generator.
        env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        env.reset()
        self._look(i)

    def _advance(self, i: int, move: NDArray[np.float32]) -> tuple[float, bool]:
        """See `OneByOneEnv`."""
        try:
            self._envs[i].step(move.astype(np.float64))
            self._look(i)
        except np.linalg.LinAlgError:  # robosuite's controllers cannot invert what blew up
            self._blown[i] = True
        success = bool(not self._blown[i] and self._envs[i]._check_success())
        return float(success), success

    def _look(self, i: int) -> None:
        """Notes the state of env i, and what robosuite observes in it, not what it saw a substep before."""
        env = self._envs[i]
        model, data = env.sim.model._model, env.sim.data._data
        parts = [[data.time], data.qpos, data.qvel]
        parts += [np.r_[model.body_pos[body], model.body_quat[body]] for body in self._fixtures]
        self._states[i] = np.concatenate(parts)
        self._blown[i] = not np.isfinite(self._states[i]).all()
        self._puppets.put(i, self._states[i])
        if self._blown[i]:
            return
        warmstart = data.qacc_warmstart.copy()
        env.sim.forward()
        data.qacc_warmstart[:] = warmstart  # the next step goes on as if nobody had looked
        seen = env._get_observations(force_update=True)
        self._told[i] = np.concatenate([np.ravel(seen[name]) for name in self._names] or [np.zeros(0)])

    def _diverged(self) -> NDArray[np.bool_]:
        return self._blown.copy()

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`.

        Raises:
            CaliperError: an action of the wrong shape.
        """
        refuse_actions(self, action, self.name)
        seeds = self.seeds.clone()
        step = super().step(action)
        none = torch.zeros_like(step.success)
        done = step.terminated | step.truncated
        self._health.note(none, none.new_zeros(self.num_envs, 0), step.diverged, done, seeds)
        return step

    def check(self) -> None:
        """See `VectorEnv`."""
        self._health.check(self.name)

    def rates(self) -> dict[str, float]:
        """See `VectorEnv`."""
        return self._health.rates()

    def _seen_now(self, changed: Tensor | None) -> Obs:
        """See `OneByOneEnv`."""
        return self._seen(torch.tensor(self._told), changed)

    # ---- states

    def get_state(self) -> Tensor:
        """See `VectorEnv`."""
        return torch.tensor(self._states)

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`.

        Raises:
            CaliperError: more states than envs, or states of another length.
        """
        refuse_states(self, state)
        for i, row in enumerate(state.cpu().double().numpy()):
            put(self._envs[i].sim.model._model, self._envs[i].sim.data._data, row, self._fixtures)
            self._look(i)

    def state_dict(self) -> dict[str, Any]:
        """See `OneByOneEnv`."""
        return {**super().state_dict(), "health": self._health.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `OneByOneEnv`."""
        super().load_state_dict(state)
        self._health.load(state["health"])


def environments() -> dict[str, int]:
    """Names of robosuite's environments, and how many robots act in each."""
    robosuite = patched_robosuite()
    from robosuite.environments.base import REGISTERED_ENVS
    from robosuite.environments.manipulation.two_arm_env import TwoArmEnv

    found = {name: 1 + issubclass(made, TwoArmEnv) for name, made in REGISTERED_ENVS.items()}
    return {name: found[name] for name in robosuite.ALL_ENVIRONMENTS}


def blueprint(
    name: str, robots: Sequence[str], controller: str, control_freq: int, kwargs: Mapping[str, Any]
) -> Blueprint:
    """What is the same in all envs of one kind, made once per process.

    Raises:
        CaliperError: see `RobosuiteEnv`.
    """
    if name not in (known := environments()):
        raise CaliperError(f"task.env={name} is no environment of robosuite; {one_of(known, name)}")
    if len(robots) != known[name]:
        fitting = ",".join([*robots, *["panda"] * 2][: known[name]])
        raise CaliperError(
            f"task.env={name} takes {known[name]} robot{'s' * (known[name] > 1)}, and task.robots names "
            f"{len(robots)}; say task.robots=[{fitting}]"
        )
    for robot in robots:
        if robot not in ROBOTS:
            raise CaliperError(f"task.robots: there is no '{robot}'; {one_of(ROBOTS, robot)}")
    if controller not in CONTROLLERS:
        raise CaliperError(f"task.controller={controller}: with task.env, choose {', '.join(CONTROLLERS)}")
    if PHYSICS_HZ % control_freq:
        raise CaliperError(
            f"task.control_freq={control_freq} does not divide the physics' {PHYSICS_HZ} Hz; try 20 or 10"
        )
    return _blueprint(name, tuple(robots), controller, control_freq, json.dumps(dict(kwargs), sort_keys=True))


@cache
def _blueprint(
    name: str, robots: tuple[str, ...], controller: str, control_freq: int, kwargs: str
) -> Blueprint:
    env = _make(name, robots, controller, control_freq, json.loads(kwargs))
    scene = build(lambda: mujoco.MjSpec.from_string(env.edit_model_xml(env.model.get_xml())))
    model, theirs = scene.model, env.sim.model._model
    assert (model.nq, model.nv) == (theirs.nq, theirs.nv)  # harmonising takes away what is only seen
    still = (model.body_parentid == 0) & (model.body_jntnum == 0)
    fixtures = tuple(model.body(i).name for i in range(1, model.nbody) if still[i])
    seen = env._get_observations(force_update=True)
    observables = {key: int(np.size(value)) for key, value in seen.items()}
    return Blueprint(scene, fixtures, observables, int(env.action_dim))


def _make(
    name: str, robots: Sequence[str], controller: str, control_freq: int, kwargs: Mapping[str, Any]
) -> Any:
    """One of robosuite's environments, without a display, whose episodes end only when Caliper says so."""
    own = {
        "robots": [ROBOTS[robot] for robot in robots],
        "controller_configs": [controller_config(controller, robot) for robot in robots],
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "use_camera_obs": False,
        "renderer": "mujoco",
        "control_freq": control_freq,
        "horizon": 1 << 30,
        "ignore_done": True,
        "hard_reset": False,
        "seed": MODEL_SEED,
    }
    if taken := sorted(set(own) & set(kwargs)):
        raise CaliperError(f"task.kwargs.{taken[0]} is Caliper's to say; leave it out")
    try:
        env = patched_robosuite().make(name, **kwargs, **own)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CaliperError(
            f"task.env={name} cannot be made with task.robots={list(robots)} and task.kwargs={dict(kwargs)} "
            f"({reason})"
        ) from error
    mend_contacts(env)
    # Left alone, MuJoCo puts an env whose numbers blew up back to its start, amid an episode.
    env.sim.model._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return env
