"""The envs as a Gymnasium `VectorEnv`, NumPy in and out, for libraries that speak Gymnasium."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.errors import CaliperError
from caliper.types import Obs, Plane

try:
    gymnasium, vector = import_module("gymnasium"), import_module("gymnasium.vector")
except ImportError as error:
    raise CaliperError(
        f"caliper.envs.gym needs gymnasium ({error}); install: pip install 'gymnasium>=1.1'"
    ) from error


_Base: Any = vector.VectorEnv


class GymVectorEnv(_Base):  # type: ignore[misc]  # gymnasium is optional, hence untyped here
    """Adapter with same-step autoreset.

    Observations are dicts: `pixels` uint8 (n, v, 3, h, w), `proprio` float32 (n, p), and further images as in
    `caliper.types.Obs`. Where an episode ends, `infos["final_obs"]` holds what its last action led to;
    `infos["success"]` is the task's own test.
    """

    def __init__(self, env: VectorEnv) -> None:
        """Wraps `env`, which stays usable by itself."""
        spec, spaces = env.spec, gymnasium.spaces
        k = spec.stack
        self.env, self.num_envs = env, env.num_envs
        self.metadata = {"autoreset_mode": vector.AutoresetMode.SAME_STEP}
        self.single_observation_space = spaces.Dict(
            proprio=spaces.Box(-np.inf, np.inf, (k * spec.proprio,), np.float32),
            **{name: _box(spaces, plane, k) for name, plane in spec.planes.items()},
        )
        self.single_action_space = spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32)
        batch = vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, env.num_envs)
        self.action_space = batch(self.single_action_space, env.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts episodes.

        Args:
            seed: env i gets seed + i; None continues each env's own series.
            options: `reset_mask`, bool (n,), resets only some envs.

        Returns:
            Observations of all envs, and no further information.
        """
        super().reset(seed=seed)
        mask = None if options is None else options.get("reset_mask")
        seeds = None if seed is None else seed + torch.arange(self.num_envs, device=self.env.device)
        return _numpy(self.env.reset(None if mask is None else self._tensor(mask), seeds)), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Applies actions (n, a).

        Returns:
            Observations, rewards (n,), terminated (n,), truncated (n,) and infos.
        """
        step = self.env.step(self._tensor(actions))
        self.env.check()
        terminated, truncated, success = (
            flag.cpu().numpy() for flag in (step.terminated, step.truncated, step.success)
        )
        everywhere, done = np.ones(self.num_envs, bool), terminated | truncated
        infos: dict[str, Any] = {"success": success, "_success": everywhere}
        if done.any():
            last = _numpy(step.final_obs)
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final[i] = {name: values[i] for name, values in last.items()}
            ended = {"success": success & done, "_success": done.copy()}
            infos |= {"final_obs": final, "_final_obs": done, "final_info": ended, "_final_info": done.copy()}
        return _numpy(step.obs), step.reward.double().cpu().numpy(), terminated, truncated, infos

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values), device=self.env.device)


def _numpy(obs: Obs) -> dict[str, np.ndarray]:
    """A copy that no later step writes to."""
    return {name: tensor.cpu().numpy().copy() for name, tensor in obs.tensors.items()}


def _box(spaces: Any, plane: Plane, k: int) -> Any:
    """The space of a plane's images, stacked k times."""
    v, c, h, w = plane.shape
    if plane.kind == "depth":
        return spaces.Box(0, np.inf, (v, k * c, h, w), np.float16)
    return spaces.Box(0, 255, (v, k * c, h, w), np.uint8)
