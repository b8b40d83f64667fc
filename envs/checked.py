"""Envs as people use them by hand: what the trainer never does wrong is looked for here, at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.errors import CaliperError
from caliper.types import Obs, Step


class CheckedEnv(VectorEnv):
    """The same envs, which refuse a step before a reset and actions that are no finite numbers.

    Each step waits for the device, and raises what `VectorEnv.check` raises.
    """

    def __init__(self, env: VectorEnv) -> None:
        """Wraps `env`, which the caller should not step by itself."""
        self.env, self.device = env, env.device
        self.num_envs, self.spec, self.action_dim = env.num_envs, env.spec, env.action_dim
        self.horizon, self.state_dim, self.scene_hash = env.horizon, env.state_dim, env.scene_hash
        self._begun = False

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        self._begun = self._begun or mask is None
        return self.env.reset(mask, seeds)

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`.

        Raises:
            CaliperError: there was no reset, or an action is NaN, infinite or of another shape.
        """
        if not self._begun:
            raise CaliperError("step() was called before reset(): call reset() once, for all envs")
        action = torch.as_tensor(action, device=self.device)
        finite = torch.isfinite(action)
        if not finite.all():
            where = ", ".join(map(str, (~finite).nonzero()[0].tolist()))
            raise CaliperError(
                f"the action holds {float(action[~finite][0]):g} at [{where}]; give finite numbers in [-1, 1]"
            )
        step = self.env.step(action)
        self.env.check()
        self.final_state = self.env.final_state
        return step

    def check(self) -> None:
        """See `VectorEnv`."""
        self.env.check()

    def rates(self) -> dict[str, float]:
        """See `VectorEnv`."""
        return self.env.rates()

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        return self.env.observe()

    def frame(self) -> Obs:
        """See `VectorEnv`."""
        return self.env.frame()

    def get_state(self) -> Tensor:
        """See `VectorEnv`."""
        return self.env.get_state()

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`."""
        self._begun = False  # a state that is looked at has no episode
        self.env.set_state(state)

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """See `VectorEnv`."""
        return self.env.render(cameras, size)

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """See `VectorEnv`."""
        self.env.set_appearance(seeds, ranges)

    def vary(self, ranges: AppearanceRanges) -> None:
        """See `VectorEnv`."""
        self.env.vary(ranges)

    def state_dict(self) -> dict[str, Any]:
        """See `VectorEnv`."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        self._begun = True
        self.env.load_state_dict(state)
