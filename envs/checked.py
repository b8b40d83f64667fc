"""Envs as people use them by hand: what the trainer never does wrong is looked for here, at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caliper.envs.base import EnvWrapper, VectorEnv
from caliper.errors import CaliperError
from caliper.types import Obs, Step


class CheckedEnv(EnvWrapper):
    """The same envs, which refuse to be asked before a reset, and actions that are no finite numbers.

    Each step waits for the device, and raises what `VectorEnv.check` raises.
    """

    def __init__(self, env: VectorEnv) -> None:
        """Wraps `env`, which the caller should not step by itself."""
        super().__init__(env)
        self._begun = self._placed = False

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        self._begun = self._begun or mask is None
        return self.env.reset(mask, seeds)

    def observe(self) -> Obs:
        """See `VectorEnv`.

        Raises:
            CaliperError: there was no reset, nor a state to look at.
        """
        self._require_start("observe")
        return self.env.observe()

    def frame(self) -> Obs:
        """See `VectorEnv`, and `observe`."""
        self._require_start("frame")
        return self.env.frame()

    def _require_start(self, what: str) -> None:
        if not (self._begun or self._placed):
            raise CaliperError(f"{what}() was called before reset(): call reset() once, for all envs")

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`.

        Raises:
            CaliperError: there was no reset, or an action is NaN, infinite or of another shape.
        """
        if not self._begun:
            raise CaliperError("step() was called before reset(): call reset() once, for all envs")
        try:
            action = torch.as_tensor(action, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:  # torch's words for what holds no numbers
            raise CaliperError(
                f"the action is {type(action).__name__}; give a tensor of {self.num_envs} times "
                f"{self.action_dim} finite numbers in [-1, 1]"
            ) from error
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

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`."""
        self._begun, self._placed = False, True  # a state that is looked at has no episode
        self.env.set_state(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        self._begun = True
        self.env.load_state_dict(state)
