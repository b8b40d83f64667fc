"""Greedy evaluation on fixed seeds, with an interval, and what the critic believed along the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent
from caliper.agents.base import Decision
from caliper.agents.probe import PROBED, probe
from caliper.analysis.stats import wilson
from caliper.data.returns import RewardConfig
from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AppearanceRanges
from caliper.rollout.episodes import ActionQueue, Trajectory, run_episodes
from caliper.types import Obs
from caliper.utils.files import replacing
from caliper.utils.foreign import file_digest, write_json
from caliper.utils.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Result:
    """An evaluation, as it is written to evaluation.json.

    Attributes:
        success_once: share of episodes that succeeded; an episode ends with its success.
        interval: 95 % Wilson interval of `success_once`.
        score: mean over the episodes of the largest raw reward of a step: `success_once` where rewards are
            sparse; in Franka Kitchen, how many of the tasks were complete at once.
        appearance: how the scene looked, one of `evaluation.appearance`.
        others: the same episodes where it looked otherwise, by that appearance's name: their success_once,
            episodes, interval, episode_success, lengths and seeds.
    """

    phase: str
    env_steps: int
    updates: int
    success_once: float
    episodes: int
    interval: tuple[float, float]
    episode_success: list[bool]
    lengths: list[int]
    seeds: list[int]
    score: float
    appearance: str = "as_is"
    others: dict[str, dict[str, Any]] = field(default_factory=dict)


def evaluate(
    agent: Agent,
    env: VectorEnv,
    seeds: list[int],
    reward: RewardConfig,
    phase: str,
    env_steps: int = 0,
    updates: int = 0,
    check_stop: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> tuple[Result, dict[str, np.ndarray]]:
    """Plays the greedy policy from each seed; on several ranks each plays its share, and gets all results.

    Args:
        agent: the policy, left as it was.
        env: the envs, left in some later state.
        seeds: one per episode.
        reward: the scale of the returns.
        phase: of the run, copied into the result, as are
        env_steps: environment steps of the run so far, and
        updates: its gradient updates.
        check_stop: called before each step; what it raises ends the evaluation, on all ranks.
        ranks: of the run.

    Returns:
        The result and, for each step of all episodes (m,), the smallest Q of the action chosen there (`q`;
        within a chunk, of the one that would be chosen), what `probe` tells of others, the return that
        followed (`mc_return`, in training rewards), the steps left (`time_to_go`) and the `episode`. Empty
        for an agent without a critic.
    """
    queue = ActionQueue(env.num_envs, agent.config.chunk, env.action_dim, env.device)
    decision: Decision

    def started(_: list[int]) -> None:
        queue.clear()

    def act(obs: Obs) -> Tensor:
        nonlocal decision
        check_stop()
        decision = agent.decide(obs, deterministic=True)
        return queue.next(decision.action)

    def record(obs: Obs, _: Tensor) -> Tensor:
        if not agent.has_critic:
            return torch.zeros(len(obs), 0)
        seen = probe(agent, obs, decision)
        return torch.stack([seen[name] for name in PROBED], 1)

    def play() -> list[_Episode]:
        played = run_episodes(env, ranks.share(seeds), act, record, f"evaluate {phase}", started)
        return [_Episode.of(trajectory, reward, agent.has_critic) for trajectory in played]

    was_training = agent.training
    agent.eval()
    try:
        episodes = ranks.gathered(play)
    finally:
        agent.train(was_training)
    success = [e.success for e in episodes]
    result = Result(
        phase=phase,
        env_steps=env_steps,
        updates=updates,
        success_once=float(np.mean(success)),
        episodes=len(episodes),
        interval=wilson(sum(success), len(success)),
        episode_success=success,
        lengths=[e.length for e in episodes],
        seeds=seeds,
        score=float(np.mean([e.score for e in episodes])),
    )
    return result, _calibration(episodes) if agent.has_critic else {}


OF_OTHERS = ("success_once", "episodes", "interval", "episode_success", "lengths", "seeds")


def evaluate_appearances(
    env: VectorEnv,
    appearances: Mapping[str, AppearanceRanges],
    play: Callable[[], tuple[Result, dict[str, np.ndarray]]],
) -> tuple[Result, dict[str, np.ndarray]]:
    """An evaluation under each of several appearances, on the same episodes.

    Args:
        env: the envs, left under the first appearance.
        appearances: by name; the first gives the result, the others go into its `others`.
        play: evaluates on the envs as they look.

    Returns:
        As `evaluate`.
    """
    first, *rest = appearances
    env.vary(appearances[first])
    result, calibration = play()
    others = {}
    for name in rest:
        env.vary(appearances[name])
        found = asdict(play()[0])
        others[name] = {key: found[key] for key in OF_OTHERS}
    env.vary(appearances[first])
    return replace(result, appearance=first, others=others), calibration


@dataclass(frozen=True, slots=True)
class _Episode:
    """What an evaluation keeps of an episode, small enough to be sent to other ranks.

    Attributes:
        score: its largest raw reward.
        steps: of a critic's agent: what `evaluate` returns of each step, (t,) by name, but for the episode.
    """

    success: bool
    length: int
    score: float
    steps: dict[str, np.ndarray]

    @staticmethod
    def of(episode: Trajectory, reward: RewardConfig, has_critic: bool) -> _Episode:
        """Of a finished one, whose records are what `probe` told."""
        t = len(episode)
        steps: dict[str, np.ndarray] = {}
        if has_critic:
            raw, terminal = torch.tensor(episode.rewards), torch.zeros(t)
            terminal[-1] = float(episode.success)
            probed = torch.stack(episode.records).float().unbind(1)
            steps = {name: column.numpy() for name, column in zip(PROBED, probed, strict=True)}
            steps["mc_return"] = reward.returns(reward.apply(raw), terminal).numpy()
            steps["time_to_go"] = np.arange(t, 0, -1)
        return _Episode(episode.success, t, max(episode.rewards), steps)


def _calibration(episodes: list[_Episode]) -> dict[str, np.ndarray]:
    parts = [{**e.steps, "episode": np.full(e.length, number)} for number, e in enumerate(episodes)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_evaluation(run: Path, result: Result, calibration: dict[str, np.ndarray]) -> Path:
    """Writes evaluations/<phase>_<env steps>_<updates>/ into a run folder; returns it."""
    folder = run / "evaluations" / f"{result.phase}_{result.env_steps:08d}_{result.updates:08d}"
    told = asdict(result)
    if calibration:
        arrays = folder / "calibration.npz"
        with replacing(arrays) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **calibration)  # type: ignore[arg-type]  # numpy's stub forgets keywords
        told["calibration_sha256"] = file_digest(arrays)  # a zip file vouches for contents, not for names
    write_json(folder / "evaluation.json", told)
    return folder
