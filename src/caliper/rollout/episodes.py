"""Acting in chunks, and whole episodes from given seeds, the same whatever the number of envs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caliper.envs.base import VectorEnv
from caliper.types import Obs
from caliper.utils.early import stop_if_told
from caliper.utils.progress import bar


class ActionQueue:
    """The chunk of actions that each of n envs is executing, open loop; of one action, a plain policy.

    Attributes:
        chunk: (n, h, a), the actions decided last.
        at: int64 (n,), which of them comes next; h where a decision is due.
    """

    def __init__(self, n: int, h: int, action_dim: int, device: torch.device | str) -> None:
        self.chunk = torch.zeros(n, h, action_dim, device=device)
        self.at = torch.full((n,), h, dtype=torch.int64, device=device)

    def next(self, decided: Tensor) -> Tensor:
        """The next action (n, a) of every env, given what the policy would decide now, (n, h a)."""
        n, h, _ = self.chunk.shape
        due = self.at == h
        self.chunk = torch.where(due[:, None, None], decided.view_as(self.chunk), self.chunk)
        self.at = torch.where(due, 0, self.at)
        action = self.chunk[torch.arange(n, device=self.at.device), self.at]
        self.at = self.at + 1
        return action

    def clear(self) -> None:
        """Forgets every chunk: new episodes have begun in all envs."""
        self.at.fill_(self.chunk.shape[1])

    def drop(self, ended: Tensor) -> None:
        """Forgets the rest of the chunk where `ended` (n,)."""
        self.at = torch.where(ended, self.chunk.shape[1], self.at)

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs to go on exactly."""
        return {"chunk": self.chunk.cpu(), "at": self.at.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from `state_dict`; the number of envs and the length of a chunk must be the same."""
        if state["chunk"].shape != self.chunk.shape:
            given, own = tuple(state["chunk"].shape), tuple(self.chunk.shape)
            raise ValueError(f"an action queue of shape {given}, not {own}")
        self.chunk, self.at = (state[name].to(self.at.device) for name in ("chunk", "at"))


@dataclass
class Trajectory:
    """One finished episode.

    Attributes:
        seed: of its start.
        success: whether it ended in success.
        diverged: whether the physics blew up, which ended it; `final_state` is then no state to learn from.
        final_state: float64 (s,), where its last action led.
        final_proprio: float32 (p,), what is observed there beside images.
        records: what `record` returned for each of its steps.
        rewards: the raw reward of each of its steps.
    """

    seed: int
    success: bool = False
    diverged: bool = False
    final_state: Tensor = field(default_factory=lambda: torch.empty(0))
    final_proprio: Tensor = field(default_factory=lambda: torch.empty(0))
    records: list[Tensor] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)


def run_episodes(
    env: VectorEnv,
    seeds: list[int],
    act: Callable[[Obs], Tensor],
    record: Callable[[Obs, Tensor], Tensor],
    label: str,
    started: Callable[[list[int]], None] = lambda seeds: None,
    finished: Callable[[], Tensor] | None = None,
) -> Iterator[Trajectory]:
    """Plays one episode per seed, in rounds of as many as there are envs.

    Rounds, because taking the first episodes to finish would prefer short ones. Envs that are done wait.

    Args:
        env: the envs.
        seeds: one per episode.
        act: observations (n) to actions (n, a).
        record: called before each step with observations and actions; its row (n, ...) i belongs to env i.
        label: of the progress bar.
        started: called with each round's seeds, one per env, after its reset.
        finished: where an episode ends before its time, bool (n,), asked after each step.

    Yields:
        The episodes in the order of their seeds.
    """
    n = env.num_envs
    with bar(len(seeds), label, "episode", leave=False) as shown:
        for first in range(0, len(seeds), n):
            stop_if_told()
            chunk = seeds[first : first + n]
            padded = chunk + [chunk[-1]] * (n - len(chunk))  # spare envs repeat the last seed
            obs = env.reset(seeds=torch.tensor(padded, device=env.device))
            started(padded)
            trajectories = [Trajectory(seed) for seed in chunk]
            running = list(range(len(chunk)))
            while running:
                action = act(obs)
                rows = record(obs, action).cpu()
                step = env.step(action)
                ended = step.terminated | step.truncated
                done = (ended if finished is None else ended | finished()).tolist()
                success, reward, diverged = (x.tolist() for x in (step.success, step.reward, step.diverged))
                env.check()
                for i in running:
                    trajectories[i].records.append(rows[i])
                    trajectories[i].rewards.append(reward[i])
                    if done[i]:
                        trajectories[i].success, trajectories[i].diverged = success[i], diverged[i]
                        trajectories[i].final_state = env.final_state[i].cpu()
                        trajectories[i].final_proprio = step.final_obs.proprio[i].cpu()
                        shown.update()
                running = [i for i in running if not done[i]]
                obs = step.obs
            yield from trajectories
