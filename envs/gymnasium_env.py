"""The benchmarks of gymnasium-robotics (AntMaze, Franka Kitchen, Adroit) as envs of state observations.

The opposite of `caliper.envs.gym`, which shows Caliper's own envs to Gymnasium.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.base import refuse_states
from caliper.envs.engines.puppets import Puppets
from caliper.envs.one_by_one import OneByOneEnv
from caliper.envs.render import make_renderer
from caliper.envs.render.base import Renderer
from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.envs.scene.gymnasium_scene import Fixtures, drawn_model
from caliper.errors import CaliperError
from caliper.machine import cores
from caliper.types import Obs, ObsSpec

FAMILIES = "AntMaze_*, FrankaKitchen-v1 and AdroitHand*-v1"


class GymnasiumEnv(OneByOneEnv):
    """n envs of one Gymnasium environment, stepped one after the other on the CPU.

    `Obs.pixels` has no view; `Obs.proprio` is the observation as `flatten` lays it out, unscaled.

    Success ends an episode. Without `dense` it is what the environment's info says, and the raw reward is 1
    on that step and 0 else: AntMaze's own reward, and Adroit's binary one plus 1. With `dense` the raw reward
    is the environment's, and success its termination: the kitchen's number of tasks that are complete.

    Attributes:
        envs: the n environments, unwrapped.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        kwargs: Mapping[str, Any] | None = None,
        dense: bool = False,
        horizon: int = 200,
        seed: int = 0,
    ) -> None:
        """Builds the envs and starts an episode in each.

        Args:
            env_id: name of the environment in Gymnasium's registry.
            num_envs: number of envs.
            kwargs: what the environment's constructor takes, such as `maze_map`.
            dense: whether its own reward is the raw one.
            horizon: control steps per episode; the registry's own limit does not count.
            seed: envs' own series of episodes start from it.

        Raises:
            CaliperError: gymnasium-robotics is not installed, or has no such environment.
        """
        self.env_id, self._dense = env_id, dense
        self.envs = [_make(env_id, kwargs or {}) for _ in range(num_envs)]
        space, model = self.envs[0].action_space, self.envs[0].model
        self._middle, self._reach = (space.high + space.low) / 2, (space.high - space.low) / 2  # (a,)
        proprio, actions = dimensions(env_id, kwargs or {})
        self.spec = ObsSpec((), 1, proprio)
        self._fixtures = Fixtures.of(model)
        self.state_dim = 1 + model.nq + model.nv + 7 * len(self._fixtures.names)
        self.scene_hash = env_id
        self._shown: Tensor | None = None  # states that are looked at instead of the running episodes'
        self._puppets: Puppets | None = None
        self._renderers: dict[tuple[tuple[str, ...], int], Renderer] = {}
        self._obs = np.zeros((num_envs, proprio), np.float32)
        self._no_pixels = torch.zeros((num_envs, 0, 3, 1, 1), dtype=torch.uint8)
        self._prepare(num_envs, actions, horizon, seed)

    def _begin(self, i: int, seed: int) -> None:
        self._shown = None
        obs, _ = self.envs[i].reset(seed=seed)
        self._obs[i] = flatten(obs)

    def _advance(self, i: int, move: NDArray[np.float32]) -> tuple[float, bool]:
        """See `OneByOneEnv`."""
        obs, reward, terminated, _, info = self.envs[i].step(self._middle + move * self._reach)
        self._obs[i] = flatten(obs)
        if self._dense:
            return float(reward), bool(terminated)
        if "success" not in info:
            raise CaliperError(
                f"{self.env_id} does not say whether it is solved; use its own reward: task.dense=true"
            )
        return float(info["success"]), bool(info["success"])

    def check(self) -> None:
        """Looks whether every observation is a number.

        Raises:
            CaliperError: one is not: the physics of its env blew up.
        """
        if not np.isfinite(self._obs).all():
            raise CaliperError(f"the physics of {self.env_id} blew up; resume from the last checkpoint")

    def _seen_now(self, changed: Tensor | None) -> Obs:
        """See `OneByOneEnv`."""
        return Obs(self._no_pixels, torch.from_numpy(self._obs.copy()))

    # ---- states

    def get_state(self) -> Tensor:
        """See `VectorEnv`; of what an environment remembers beside its model nothing is in it."""
        rows = [
            np.concatenate([[w.data.time], w.data.qpos, w.data.qvel, self._fixtures.poses(w.model)])
            for w in self.envs
        ]
        return torch.as_tensor(np.stack(rows))

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`; for `render` alone, the environments stay where they are.

        Raises:
            CaliperError: more states than envs, or states of another length.
        """
        refuse_states(self, state)
        self._shown = state.cpu()

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """See `VectorEnv`; drawn by Caliper, for Gymnasium's renderers need OpenGL."""
        if self._puppets is None:
            model = drawn_model(self.envs[0], self.env_id, getattr(self.envs[0], "scene_xml", None))
            self._puppets = Puppets(model, self._fixtures.names, self.num_envs)
        if (cameras, size) not in self._renderers:
            threads = cores()
            self._renderers[cameras, size] = make_renderer(self._puppets, cameras, size, threads, 2)
        for i, row in enumerate(self.get_state() if self._shown is None else self._shown):
            self._puppets.put(i, row.numpy())
        return self._renderers[cameras, size].render()

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """Does nothing: there are no images."""


def flatten(obs: Any) -> NDArray[np.float32]:
    """An observation as one vector.

    Of a dict the arrays, in the order of their names (AntMaze: where the ant is, its goal, the rest); what is
    nested deeper is left out (the kitchen's goals: constants, and entries of its observation).
    """
    if isinstance(obs, dict):
        obs = np.concatenate([obs[name] for name in sorted(obs) if not isinstance(obs[name], dict)])
    return np.asarray(obs, np.float32)


def dimensions(env_id: str, kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """Lengths of a flat observation and of an action.

    Raises:
        CaliperError: see `GymnasiumEnv`.
    """
    proprio, actions, _ = _facts(env_id, json.dumps(dict(kwargs), sort_keys=True))
    return proprio, actions


def camera_names(env_id: str, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The cameras that can film it.

    Raises:
        CaliperError: see `GymnasiumEnv`.
    """
    return _facts(env_id, json.dumps(dict(kwargs), sort_keys=True))[2]


@cache
def _facts(env_id: str, kwargs: str) -> tuple[int, int, tuple[str, ...]]:
    env = _make(env_id, json.loads(kwargs))
    cameras = ("showcase", *(env.model.camera(i).name for i in range(env.model.ncam)))
    return len(flatten(env.reset(seed=0)[0])), env.action_space.shape[0], cameras


def _make(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """One env, without the wrappers that Gymnasium adds."""
    gymnasium = _library()
    if env_id not in gymnasium.registry:  # also keeps out names that Gymnasium would import a module for
        raise CaliperError(f"task.env_id={env_id} is not in Gymnasium's registry; try one of {FAMILIES}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # recorded data belongs to versions that Gymnasium calls outdated
        try:
            env = gymnasium.make(env_id, disable_env_checker=True, **kwargs).unwrapped
        except (TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CaliperError(
                f"task.env_id={env_id} cannot be made with task.kwargs={dict(kwargs)} ({reason})"
            ) from error
    if left := getattr(env, "tmp_xml_file_path", None):  # AntMaze leaves its scene in the temporary folder
        env.scene_xml = Path(left).read_text(encoding="utf-8")
        Path(left).unlink(missing_ok=True)
    return env


@cache
def _library() -> Any:
    """Gymnasium, with the robotics environments registered and fixed."""
    try:
        with redirect_stderr(io.StringIO()):  # a notice on dense Adroit rewards, which are not used here
            import_module("gymnasium_robotics")
    except ImportError as error:
        raise CaliperError(
            f"this task needs gymnasium-robotics ({error}); install: pip install 'caliper-rl[robotics]'"
        ) from error
    # gymnasium-robotics 1.4.2 finds no kind of joint in MuJoCo 4, whose enums no longer equal NumPy's
    # integers when they stand on the left of ==; without this the kitchen cannot be made.
    utils: Any = import_module("gymnasium_robotics.utils.mujoco_utils")
    utils.get_joint_qpos = lambda model, data, name: data.joint(name).qpos.copy()
    utils.get_joint_qvel = lambda model, data, name: data.joint(name).qvel.copy()
    return import_module("gymnasium")
