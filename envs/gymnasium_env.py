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

from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.envs.sim import EPISODE_STRIDE
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec, Step

FAMILIES = "AntMaze_*, FrankaKitchen-v1 and AdroitHand*-v1"


class GymnasiumEnv(VectorEnv):
    """n envs of one Gymnasium environment, stepped one after the other on the CPU.

    `Obs.pixels` has no view; `Obs.proprio` is the observation as `flatten` lays it out, unscaled.

    Success ends an episode. Without `dense` it is what the environment's info says, and the raw reward is 1
    on that step and 0 else: AntMaze's own reward, and Adroit's binary one plus 1. With `dense` the raw reward
    is the environment's, and success its termination: the kitchen's number of tasks that are complete.
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
        self.env_id, self.num_envs, self.horizon = env_id, num_envs, horizon
        self.device = torch.device("cpu")
        self._dense = dense
        self._envs = [_make(env_id, kwargs or {}) for _ in range(num_envs)]
        space, model = self._envs[0].action_space, self._envs[0].model
        self._middle, self._reach = (space.high + space.low) / 2, (space.high - space.low) / 2  # (a,)
        proprio, self.action_dim = dimensions(env_id, kwargs or {})
        self.spec = ObsSpec((), 1, proprio)
        self.state_dim, self.scene_hash = 1 + model.nq + model.nv, env_id
        self._obs = np.zeros((num_envs, proprio), np.float32)
        self._actions = np.zeros((num_envs, horizon, self.action_dim), np.float32)
        self._next_seed = (seed + 1) * (1 << 40) + np.arange(num_envs)
        self.seeds, self.steps = self._next_seed.copy(), np.zeros(num_envs, np.int64)
        self.reset()

    # ---- episodes

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        chosen = np.ones(self.num_envs, bool) if mask is None else mask.cpu().numpy()
        self._start(chosen, self._next_seed if seeds is None else seeds.cpu().numpy())
        self.final_state = self.get_state()
        return self.observe()

    def _start(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> None:
        for i in np.flatnonzero(mask):
            self.seeds[i], self._next_seed[i] = seeds[i], seeds[i] + EPISODE_STRIDE
            obs, _ = self._envs[i].reset(seed=int(self.seeds[i]))
            self._obs[i], self.steps[i] = flatten(obs), 0

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`."""
        moves = action.detach().clamp(-1, 1).float().cpu().numpy()  # (n, a)
        self._actions[np.arange(self.num_envs), self.steps] = moves
        outcomes = [self._advance(i, moves[i]) for i in range(self.num_envs)]
        reward, success = (torch.tensor(column) for column in zip(*outcomes, strict=True))
        self.steps += 1
        truncated = torch.as_tensor(self.steps >= self.horizon) & ~success
        final_obs, self.final_state = self.observe(), self.get_state()
        self._start((success | truncated).cpu().numpy(), self._next_seed)
        sound = torch.zeros_like(success)  # `check` ends the run where one is not
        return Step(self.observe(), reward.float(), success, truncated, final_obs, success, sound)

    def _advance(self, i: int, move: NDArray[np.float32]) -> tuple[float, bool]:
        """Lets env i act; its raw reward and whether it succeeded."""
        obs, reward, terminated, _, info = self._envs[i].step(self._middle + move * self._reach)
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

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        pixels = torch.zeros((self.num_envs, 0, 3, 1, 1), dtype=torch.uint8)
        return Obs(pixels, torch.tensor(self._obs))

    # ---- states

    def get_state(self) -> Tensor:
        """See `VectorEnv`; goals and what else an environment remembers is not in it."""
        rows = [np.concatenate([[w.data.time], w.data.qpos, w.data.qvel]) for w in self._envs]
        return torch.as_tensor(np.stack(rows))

    def set_state(self, state: Tensor) -> None:
        """Refused: recorded data of these environments holds observations.

        Raises:
            CaliperError: always.
        """
        raise CaliperError(f"states of {self.env_id} cannot be shown; its datasets hold observations")

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """Refused: Gymnasium's renderers need OpenGL, which Caliper does without.

        Raises:
            CaliperError: always.
        """
        raise CaliperError(f"{self.env_id} cannot be filmed: Gymnasium's renderers need OpenGL")

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """Does nothing: there are no images."""

    def state_dict(self) -> dict[str, Any]:
        """The running episodes as seeds and actions, which give every hidden state of any environment."""
        live = {"seeds": self.seeds, "steps": self.steps, "next_seed": self._next_seed}
        taken = self._actions[:, : self.steps.max()]
        return {name: torch.tensor(value) for name, value in {**live, "actions": taken}.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Plays the running episodes again, up to where they were.

        Raises:
            ValueError: the state is of another number of envs or another environment.
        """
        seeds, steps, following, actions = (
            state[name].numpy() for name in ("seeds", "steps", "next_seed", "actions")
        )
        if actions.shape[::2] != (self.num_envs, self.action_dim):
            raise ValueError(f"actions of shape {actions.shape} for {self.num_envs} envs")
        self._start(np.ones(self.num_envs, bool), seeds)
        self._next_seed[:], self.steps[:] = following, steps
        self._actions[:, : actions.shape[1]] = actions
        for i, count in enumerate(steps):
            for move in actions[i, :count]:
                self._advance(i, move)
        self.final_state = self.get_state()


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
    return _dimensions(env_id, json.dumps(dict(kwargs), sort_keys=True))


@cache
def _dimensions(env_id: str, kwargs: str) -> tuple[int, int]:
    env = _make(env_id, json.loads(kwargs))
    return len(flatten(env.reset(seed=0)[0])), env.action_space.shape[0]


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
