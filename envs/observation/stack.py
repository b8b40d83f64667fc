"""Envs whose observations hold the last k frames: what moves can be seen, and how fast."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from caliper.envs.base import EnvWrapper, VectorEnv
from caliper.types import Obs, Step


def stacked(env: VectorEnv, k: int) -> VectorEnv:
    """The same envs with observations of k frames; themselves for one."""
    return env if k == 1 else FrameStack(env, k)


class FrameStack(EnvWrapper):
    """Envs whose observations hold the last k frames, the oldest first.

    Frames never come from before an episode's start: its first frame stands for those that are missing.
    Images are stacked along their channels, (n, v, k c, h, w), and proprioception likewise, (n, k p).

    Args:
        env: the envs, whose observations hold one frame.
        k: frames of an observation.
    """

    def __init__(self, env: VectorEnv, k: int) -> None:
        super().__init__(env)
        self.k, self.spec = k, replace(env.spec, stack=k)
        self._obs: Obs | None = None  # the last k frames; None where there is no history

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        before = self._obs
        self._obs = self._repeated(self.env.reset(mask, seeds))
        if mask is not None and before is not None:
            self._obs = _where(mask.to(self.device), self._obs, before)
        return self._obs

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`."""
        before = self.observe()
        own = self.env.step(action)
        self.final_state = self.env.final_state
        final_obs = self._pushed(before, own.final_obs)
        self._obs = final_obs
        if own.obs is not own.final_obs:
            self._obs = _where(own.terminated | own.truncated, self._repeated(own.obs), final_obs)
        return replace(own, obs=self._obs, final_obs=final_obs)

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        if self._obs is None:
            self._obs = self._repeated(self.env.observe())
        return self._obs

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`. What was before is no history of the given states."""
        self.env.set_state(state)
        self._obs = None

    def state_dict(self) -> dict[str, Any]:
        """See `VectorEnv`."""
        frames = {name: tensor.cpu() for name, tensor in self.observe().tensors.items()}
        return {**self.env.state_dict(), "frames": frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        self.env.load_state_dict({name: part for name, part in state.items() if name != "frames"})
        self._obs = Obs.of(state["frames"]).to(self.device)

    def _repeated(self, frame: Obs) -> Obs:
        return frame.map(lambda new: torch.cat([new] * self.k, _axis(new)))

    def _pushed(self, before: Obs, frame: Obs) -> Obs:
        old = before.tensors

        def push(name: str, new: Tensor, axis: int) -> Tensor:
            c = new.shape[axis]
            return torch.cat([old[name].narrow(axis, c, (self.k - 1) * c), new], axis)

        return Obs.of({name: push(name, new, _axis(new)) for name, new in frame.tensors.items()})


def _axis(tensor: Tensor) -> int:
    """Where frames are stacked: an image's channels, a vector's numbers."""
    return 2 if tensor.dim() == 5 else 1


def _where(mask: Tensor, there: Obs, elsewhere: Obs) -> Obs:
    old = elsewhere.tensors
    return Obs.of(
        {
            name: torch.where(mask.view(-1, *[1] * (new.dim() - 1)), new, old[name])
            for name, new in there.tensors.items()
        }
    )
