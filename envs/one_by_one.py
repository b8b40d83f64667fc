"""Envs of another library, stepped one after the other on the CPU: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.envs.sim import EPISODE_STRIDE
from caliper.types import Obs, Step


class OneByOneEnv(VectorEnv):
    """n envs that are begun and advanced one at a time.

    A running episode is kept as its seed and its actions, which give every hidden state of any environment.
    """

    seeds: Tensor  # of the running episodes, (n,)

    def _prepare(self, num_envs: int, action_dim: int, horizon: int, seed: int) -> None:
        """Makes the memory of the running episodes, and starts them; what else an env has must be there."""
        self.num_envs, self.horizon, self.action_dim = num_envs, horizon, action_dim
        self.device = torch.device("cpu")
        self._actions = np.zeros((num_envs, horizon, action_dim), np.float32)
        self._next_seed = (seed + 1) * (1 << 40) + np.arange(num_envs)
        self.seeds, self.steps = torch.tensor(self._next_seed), np.zeros(num_envs, np.int64)
        self.reset()

    @abstractmethod
    def _begin(self, i: int, seed: int) -> None:
        """Starts an episode in env i."""

    @abstractmethod
    def _advance(self, i: int, move: NDArray[np.float32]) -> tuple[float, bool]:
        """Lets env i act; its raw reward and whether it succeeded."""

    @abstractmethod
    def _seen_now(self, changed: Tensor | None) -> Obs:
        """The observation of all envs, which have moved where `changed`, bool (n,), or everywhere."""

    def _diverged(self) -> NDArray[np.bool_]:
        """Where the last step ended in an unsound state, (n,); by default `check` ends the run there."""
        return np.zeros(self.num_envs, bool)

    # ---- episodes

    def reset(self, mask: Tensor | None = None, seeds: Tensor | None = None) -> Obs:
        """See `VectorEnv`."""
        chosen = np.ones(self.num_envs, bool) if mask is None else mask.cpu().numpy()
        self._start(chosen, self._next_seed if seeds is None else seeds.cpu().numpy())
        self.final_state = self.get_state()
        return self.observe()

    def _start(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> None:
        for i in np.flatnonzero(mask):
            self.seeds[i], self._next_seed[i] = int(seeds[i]), seeds[i] + EPISODE_STRIDE
            self._begin(int(i), int(self.seeds[i]))
            self.steps[i] = 0

    def step(self, action: Tensor) -> Step:
        """See `VectorEnv`."""
        # In NumPy: on so few numbers torch's operations cost more.
        moves = action.detach().float().cpu().numpy().clip(-1, 1)  # (n, a)
        self._actions[np.arange(self.num_envs), self.steps] = moves
        outcomes = [self._advance(i, moves[i]) for i in range(self.num_envs)]
        rewards, solved = zip(*outcomes, strict=True)
        self.steps += 1
        blown = self._diverged()
        succeeded = np.array(solved) & ~blown
        ended = (self.steps >= self.horizon) & ~succeeded | blown
        final_obs, self.final_state = self.observe(), self.get_state()
        done = succeeded | ended
        obs = final_obs
        if done.any():
            self._start(done, self._next_seed)
            obs = self._seen_now(torch.from_numpy(done))
        reward = torch.from_numpy(np.array(rewards, np.float32))
        success, truncated, diverged = map(torch.from_numpy, (succeeded, ended, blown))
        return Step(obs, reward, success, truncated, final_obs, success, diverged)

    def observe(self) -> Obs:
        """See `VectorEnv`."""
        return self._seen_now(None)

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """The running episodes as seeds and actions."""
        live = {"seeds": self.seeds, "steps": self.steps, "next_seed": self._next_seed}
        taken = self._actions[:, : self.steps.max()]
        return {name: torch.as_tensor(value).clone() for name, value in {**live, "actions": taken}.items()}

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
