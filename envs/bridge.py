"""Envs on one device whose tensors live on another: MuJoCo on the CPU's cores, the learner on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AS_IT_IS, AppearanceRanges
from caliper.types import Obs, Step

ALIGNED = 64  # bytes; each tensor of a packet starts at a multiple


def bridged(env: VectorEnv, device: torch.device | str) -> VectorEnv:
    """The same envs with their tensors on a device; themselves if that is where they are."""
    return env if env.device == torch.device(device) else Bridge(env, device)


class Bridge(VectorEnv):
    """Envs whose tensors cross to another device, once a step.

    All that a step says goes as one packet. From a CPU to a GPU it leaves from pinned memory and nobody waits
    for it; the one wait of a step is for the actions, which a CPU's physics cannot do without.

    Args:
        env: the envs, which stay where they are.
        device: where tensors come from and go to.
    """

    def __init__(self, env: VectorEnv, device: torch.device | str) -> None:
        self.env, self.device = env, torch.device(device)
        self.num_envs, self.spec, self.action_dim = env.num_envs, env.spec, env.action_dim
        self.horizon, self.state_dim, self.scene_hash = env.horizon, env.state_dim, env.scene_hash

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.reset(self._back(mask), self._back(seeds)))

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`."""
        own = self.env.step(action.to(self.env.device))
        flags = (own.terminated, own.truncated, own.success, own.diverged)
        seen, final = own.obs.tensors, own.final_obs.tensors
        parts = (self.env.final_state, *seen.values(), *final.values(), own.reward, *flags)
        once = {id(part): part for part in parts}  # where nothing has ended, both observations are one
        sent = dict(zip(once, across(list(once.values()), self.device), strict=True))
        self.final_state, reward = sent[id(self.env.final_state)], sent[id(own.reward)]
        terminated, truncated, success, diverged = (sent[id(flag)] for flag in flags)
        final_obs = Obs.of({name: sent[id(tensor)] for name, tensor in final.items()})
        same = own.obs is own.final_obs
        obs = final_obs if same else Obs.of({name: sent[id(tensor)] for name, tensor in seen.items()})
        return Step(obs, reward, terminated, truncated, final_obs, success, diverged)

    def check(self) -> None:
        """See `VectorEnv`."""
        self.env.check()

    def rates(self) -> dict[str, float]:
        """See `VectorEnv`."""
        return self.env.rates()

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.observe())

    def frame(self) -> Obs:
        """See `VectorEnv`."""
        return self._seen(self.env.frame())

    def get_state(self) -> Tensor:
        """See `VectorEnv`."""
        return across([self.env.get_state()], self.device)[0]

    def set_state(self, state: Tensor) -> None:
        """See `VectorEnv`."""
        self.env.set_state(state.to(self.env.device))

    def render(self, cameras: tuple[str, ...], size: int) -> Tensor:
        """See `VectorEnv`."""
        return across([self.env.render(cameras, size)], self.device)[0]

    def set_appearance(self, seeds: Tensor | None, ranges: AppearanceRanges = AS_IT_IS) -> None:
        """See `VectorEnv`."""
        self.env.set_appearance(self._back(seeds), ranges)

    def vary(self, ranges: AppearanceRanges) -> None:
        """See `VectorEnv`."""
        self.env.vary(ranges)

    def state_dict(self) -> dict[str, Any]:
        """See `VectorEnv`."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `VectorEnv`."""
        self.env.load_state_dict(state)

    def _seen(self, obs: Obs) -> Obs:
        tensors = obs.tensors
        return Obs.of(dict(zip(tensors, across(list(tensors.values()), self.device), strict=True)))

    def _back(self, given: Tensor | None) -> Tensor | None:
        return None if given is None else given.to(self.env.device)


def across(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one device on another, by one copy.

    Args:
        tensors: of any types and shapes.
        device: where to.

    Returns:
        As many, each of its type and shape, which share their memory with nothing here. From a CPU to a GPU
        they are on their way: what is queued on the current stream there sees them arrived.
    """
    source = tensors[0].device
    pinned = source.type == "cpu" and device.type == "cuda"
    ends = list(accumulate(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors))
    starts = [0, *ends[:-1]]
    # Torch gives pinned memory out again only when the copies from it are done.
    packed = torch.empty(ends[-1], dtype=torch.uint8, device=source, pin_memory=pinned)
    for start, tensor in zip(starts, tensors, strict=True):
        _room(packed, start, tensor).copy_(tensor)
    arrived = torch.empty(ends[-1], dtype=torch.uint8, device=device)
    arrived.copy_(packed, non_blocking=pinned)
    return [_room(arrived, start, tensor) for start, tensor in zip(starts, tensors, strict=True)]


def _room(packet: Tensor, start: int, tensor: Tensor) -> Tensor:
    """The part of a packet, bytes, that belongs to a tensor, as one of its type and shape."""
    return packet[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
