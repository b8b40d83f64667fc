"""Episodes in progress, one per env, until each can enter the replay buffer whole."""

from __future__ import annotations

import torch
from torch import Tensor

from caliper.data.buffer import ReplayBuffer
from caliper.types import Obs, ObsSpec, Step


class OpenEpisodes:
    """Collects the steps of n envs side by side and hands over each episode when it ends.

    Args:
        n: envs.
        horizon: longest episode, in control steps.
        spec: what an observation holds.
        action_dim: length of an action.
        device: where the envs' tensors are.
    """

    def __init__(
        self, n: int, horizon: int, spec: ObsSpec, action_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.horizon = horizon
        self._stack = spec.stack
        shapes = {name: (plane.shape, plane.dtype) for name, plane in spec.planes.items()}
        self._frames = {  # (n, t, v, c, h, w) and (n, t, p), single frames
            name: torch.empty((n, horizon + 1, *shape), dtype=dtype, device=self.device)
            for name, (shape, dtype) in {**shapes, "proprio": ((spec.proprio,), torch.float32)}.items()
        }
        self._action = torch.empty((n, horizon, action_dim), device=self.device)  # (n, t, a)
        self._world = torch.arange(n, device=self.device)
        # On the host, so that an episode's returns and length wait for nothing.
        self._reward = torch.empty((n, horizon))  # (n, t)
        self._length = torch.zeros(n, dtype=torch.int64)  # steps so far

    def push(self, obs: Obs, action: Tensor, step: Step, sink: ReplayBuffer) -> list[bool]:
        """Records one control step of every env and inserts the episodes that it ended.

        The last frame of an ended episode is `step.final_obs`, where its last action led, never what the
        reset shows. An episode whose physics blew up is forgotten.

        Args:
            obs: observations the actions were taken at (n).
            action: (n, a).
            step: what came of them.
            sink: where finished episodes go.

        Returns:
            For each episode that went in, whether it ended in success.

        Raises:
            RuntimeError: an env ran past the horizon without an end.
        """
        if int(self._length.max()) >= self.horizon:
            raise RuntimeError(
                f"an env ran past its horizon of {self.horizon} steps without a terminated or truncated"
            )
        at = self._length.to(self.device, non_blocking=True)
        for name, seen in obs.newest(self._stack).tensors.items():
            self._frames[name][self._world, at] = seen
        self._action[self._world, at] = action
        flags = (step.terminated | step.truncated, step.terminated, step.diverged, step.reward)
        ended, terminated, diverged, reward = torch.stack([f.float() for f in flags]).cpu()  # the only wait
        self._reward.scatter_(1, self._length[:, None], reward[:, None])
        self._length += 1
        self._length[diverged.bool()] = 0
        finished: list[int] = (ended.bool() & ~diverged.bool()).nonzero().flatten().tolist()
        last = step.final_obs.newest(self._stack).tensors
        for i in finished:
            t = int(self._length[i])
            for name, seen in last.items():
                self._frames[name][i, t] = seen[i]
            frames = Obs.of({name: frames[i, : t + 1] for name, frames in self._frames.items()})
            sink.add_episode(frames, self._action[i, :t], self._reward[i, :t], bool(terminated[i]))
            self._length[i] = 0
        return [bool(terminated[i]) for i in finished]

    def state_dict(self) -> dict[str, Tensor]:
        """The steps recorded so far, as tensors on the CPU; only as many as the longest open episode has."""
        t = int(self._length.max())
        parts = {name: tensor[:, :t].to("cpu", copy=True) for name, tensor in self._recorded().items()}
        return {"length": self._length.clone()} | parts

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from where `state_dict` was taken; the number of envs and all shapes must be the same."""
        self._length.copy_(state["length"])
        for name, tensor in self._recorded().items():
            tensor[:, : state[name].shape[1]] = state[name].to(self.device)

    def _recorded(self) -> dict[str, Tensor]:
        return {**self._frames, "action": self._action, "reward": self._reward}
