"""The contract of a vectorised environment: torch in, torch out, many envs, one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.errors import CaliperError
from caliper.types import Obs, ObsSpec, Step


class VectorEnv(ABC):
    """n envs of one task, stepped together, with same-step autoreset.

    Each episode is drawn from a seed of its own, so that what happens in it does not depend on `num_envs`.

    Attributes:
        num_envs: number of envs n.
        device: where all tensors live.
        spec: what an observation holds.
        action_dim: length of an action; entries in [-1, 1].
        horizon: control steps after which an episode is truncated.
        state_dim: length of a simulator state: time, qpos, qvel, and poses of fixtures, if there are any.
        scene_hash: identifies the compiled scene.
        final_state: float64 (n, s), the states the last actions led to, before any reset.
    """

    num_envs: int
    device: torch.device
    spec: ObsSpec
    action_dim: int
    horizon: int
    state_dim: int
    scene_hash: str
    final_state: Tensor

    @abstractmethod
    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """Starts new episodes.

        Args:
            mask: bool (n,), the envs to reset; None for all.
            seeds: int64 (n,), the episodes' seeds, read where `mask` is set; an env's further episodes
                follow from its seed. None continues each env's series.

        Returns:
            The observation of all envs.
        """

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Applies float (n, a) actions for one control step; envs whose episode ends are reset at once."""

    @abstractmethod
    def check(self) -> None:
        """Waits for the device and looks whether the physics of all steps so far can be trusted.

        Raises:
            CaliperError: an env lost contacts to a full buffer since the last call, or too large a share of
                the episodes blew up.
        """

    def rates(self) -> dict[str, float]:
        """How often the physics fell short since the last call, by name of the metric; as `check` saw it."""
        return {}

    @abstractmethod
    def observe(self) -> Obs:
        """The observation of all envs as they are now."""

    def frame(self) -> Obs:
        """The observation of all envs as they are now, of one frame whatever `spec` stacks."""
        return self.observe()

    @abstractmethod
    def get_state(self) -> Tensor:
        """Simulator states [time, qpos, qvel], float64 (n, s)."""

    @abstractmethod
    def set_state(self, state: Tensor) -> None:
        """Puts the first m envs into given states, float64 (m, s) with m at most n, to be looked at.

        Without physics: reset them, or load a `state_dict`, before the next step.
        """

    @abstractmethod
    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """Images from any camera of the scene, uint8 (n, v, 3, size, size)."""

    @abstractmethod
    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """Changes how the envs look from now on, and nothing else.

        Args:
            seeds: int64 (n,), what each env's appearance is drawn from, whatever the number of envs; None is
                as the scene says, which is how an environment starts.
            ranges: how far the appearances may stray.
        """

    def vary(self, ranges: AppearanceRanges) -> None:
        """From now on, until `set_appearance`, every episode looks in a way of its own, drawn from its seed.

        The same episode looks the same in any env, however many there are.

        Args:
            ranges: how far the appearances may stray; none at all is as the scene says.

        Raises:
            CaliperError: the environment has no images.
        """
        if ranges != AS_IT_IS:
            raise CaliperError("this environment has no images whose appearance could vary")

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue the running episodes exactly."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""


class EnvWrapper(VectorEnv):
    """The same envs; a sub-class says what it does otherwise than to pass it on.

    A sub-class whose envs are stepped keeps `final_state` itself.

    Attributes:
        env: what is wrapped.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.env, self.device = env, env.device
        self.num_envs, self.spec, self.action_dim = env.num_envs, env.spec, env.action_dim
        self.horizon, self.state_dim, self.scene_hash = env.horizon, env.state_dim, env.scene_hash

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
        self.env.load_state_dict(state)


def refuse_actions(env: VectorEnv, action: Tensor, takes: str) -> None:
    """Raises CaliperError unless actions are (n, a); `takes` names who wants them."""
    if action.shape != (env.num_envs, env.action_dim):
        want, got = (env.num_envs, env.action_dim), tuple(action.shape)
        raise CaliperError(f"action has shape {got}; {takes} in {want[0]} envs takes {want}")


def refuse_states(env: VectorEnv, state: Tensor) -> None:
    """Raises CaliperError for more states than envs, or states of another length."""
    if len(state) > env.num_envs or state.shape[1] != env.state_dim:
        raise CaliperError(
            f"states of shape {tuple(state.shape)} do not fit {env.num_envs} envs of state length "
            f"{env.state_dim}; the file belongs to another scene or the batch is too large"
        )
