"""Envs that show features of a frozen network instead of images, each frame encoded once, as it comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from caliper.envs.base import EnvWrapper, VectorEnv
from caliper.types import Obs, Step


class Featured(EnvWrapper):
    """The same envs with features (n, v, f, 1, 1) instead of images; rendering for people stays as it is.

    Args:
        env: the envs, whose observations hold one frame.
        see: images of n observations to features (n, v, f).
        length: f.
    """

    def __init__(self, env: VectorEnv, see: Callable[[Obs], Tensor], length: int) -> None:
        super().__init__(env)
        self._see, self.spec = see, replace(env.spec, features=length)

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.reset(mask, seeds))

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`. What a reset shows is encoded besides, and whether there was one is waited for."""
        own = self.env.step(action)
        self.final_state = self.env.final_state
        final_obs = obs = self._seen(own.final_obs)
        if own.obs is not own.final_obs:
            ended = (own.terminated | own.truncated).nonzero().flatten()
            if len(ended):
                begun = self._seen(own.obs[ended]).tensors
                obs = Obs.of(
                    {name: old.index_copy(0, ended, begun[name]) for name, old in final_obs.tensors.items()}
                )
        return replace(own, obs=obs, final_obs=final_obs)

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.observe())

    def frame(self) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.frame())

    @torch.no_grad()
    def _seen(self, obs: Obs) -> Obs:
        none = torch.empty(len(obs), 0, 3, 1, 1, dtype=torch.uint8, device=self.device)
        return Obs(none, obs.proprio, {"features": self._see(obs)[..., None, None]})
