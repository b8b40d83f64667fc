"""The two phases: gradient steps on recorded data, then episodes in the simulator with gradient steps between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from caliper.agents import Agent
from caliper.config import RunConfig
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.envs.base import VectorEnv
from caliper.evaluate import evaluate, write_evaluation
from caliper.log import RunLog
from caliper.types import Obs
from caliper.worlds import EVAL_SEEDS


@dataclass
class Counters:
    """How far a run has come."""

    cloned: int = 0  # cloning steps
    updates: int = 0  # gradient updates of the agent, both phases
    env_steps: int = 0  # online environment steps
    evaluated: int = -1  # env_steps, or updates while offline, of the last evaluation
    online: bool = False


class Phases:
    """Holds what a run needs and moves it forward; everything that changes is in `snapshot`."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        agent: Agent,
        env: VectorEnv,
        eval_env: VectorEnv,
        sampler: MixedSampler,
        open_episodes: OpenEpisodes,
        generator: torch.Generator,
        log: RunLog,
    ) -> None:
        """Takes the parts; `generator` draws the batches."""
        self.config, self.folder, self.log = config, folder, log
        self.agent, self.env, self.eval_env = agent, env, eval_env
        self.sampler, self.open_episodes, self.generator = sampler, open_episodes, generator
        self.counters = Counters()
        self._saved = time.monotonic()

    def run(self, save: Callable[[], Any], stop: Callable[[], bool]) -> None:
        """Both phases from wherever the counters are; saves now and then, at the switch, and when told to stop."""
        self._save, self._stop = save, stop
        if not self.counters.online:
            self._offline()
            if not stop():
                self.counters.online, self.counters.evaluated = True, -1
                self.agent.go_online()
                save()
        if self.counters.online and not stop():
            self._online()
        save()

    def _offline(self) -> None:
        cfg, count = self.config.offline, self.counters
        with tqdm(total=cfg.clone_updates, initial=count.cloned, desc="clone", unit="update") as bar:
            while count.cloned < cfg.clone_updates and not self._pause():
                info = self.agent.clone(self.sampler.sample(self.config.batch_size, self.generator))
                count.cloned += 1
                bar.update()
                if count.cloned % self.config.log.every == 0:
                    self.log.log("offline", 0, 0, {"clone_updates": count.cloned, **info})
        with tqdm(total=cfg.updates, initial=count.updates, desc="offline", unit="update") as bar:
            while True:
                last = count.updates >= cfg.updates
                if count.updates % cfg.eval_every == 0 or last:
                    self._evaluate("offline", count.updates, last, bar)
                if last or self._pause():
                    return
                self._update("offline")
                bar.update()

    def _online(self) -> None:
        cfg, count, n = self.config.online, self.counters, self.env.num_envs
        obs = self.env.observe()
        due = 0.0  # updates owed; a fraction of one survives the loop only within a step
        with tqdm(total=cfg.env_steps, initial=count.env_steps, desc="online", unit="step") as bar:
            while True:
                last = count.env_steps >= cfg.env_steps
                if count.env_steps // cfg.eval_every > max(count.evaluated, 0) // cfg.eval_every or last:
                    self._evaluate("online", count.env_steps, last, bar)
                if last or self._pause():
                    return
                obs = self._act(obs)
                count.env_steps += n
                bar.update(n)
                if count.env_steps > cfg.warmup_steps:
                    due += cfg.utd * n
                    while due >= 1:
                        self._update("online")
                        due -= 1

    def _act(self, obs: Obs) -> Obs:
        """One stochastic control step of all worlds; whole episodes go to the online buffer."""
        action = self.agent.act(obs, deterministic=False)
        step = self.env.step(action)
        self.open_episodes.push(obs, action, step, self.sampler.online)
        return step.obs

    def _update(self, phase: str) -> None:
        info = self.agent.update(self.sampler.sample(self.config.batch_size, self.generator))
        self.counters.updates += 1
        if self.counters.updates % self.config.log.every == 0:
            self.log.log(phase, self.counters.env_steps, self.counters.updates, info)

    def _evaluate(self, phase: str, at: int, last: bool, bar: Any) -> None:
        count, cfg = self.counters, self.config.evaluation
        if count.evaluated == at:  # a resumed run has done it
            return
        first = EVAL_SEEDS + cfg.seed
        seeds = list(range(first, first + (cfg.final_episodes if last else cfg.episodes)))
        result, calibration = evaluate(
            self.agent, self.eval_env, seeds, self.sampler.offline.reward, phase, count.env_steps, count.updates
        )
        write_evaluation(self.folder, result, calibration)
        metrics: dict[str, float | Tensor] = {"evaluation/success": result.success_once}
        if calibration:
            metrics["evaluation/q"] = float(calibration["q"].mean())
            metrics["evaluation/return"] = float(calibration["mc_return"].mean())
        self.log.log(phase, count.env_steps, count.updates, metrics)
        bar.set_postfix(success=f"{result.success_once:.2f}")
        count.evaluated = at

    def _pause(self) -> bool:
        """Whether to stop now; also saves when it is time."""
        if time.monotonic() - self._saved > 60 * self.config.log.checkpoint_minutes:
            self._save()
            self._saved = time.monotonic()
        return self._stop()

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, and everything else that the run would need to go on exactly."""
        state = {
            "counters": asdict(self.counters),
            "agent": self.agent.train_state(),
            "generator": self.generator.get_state(),
            "online": self.sampler.online.state_dict(),
            "open_episodes": self.open_episodes.state_dict(),
            "env": self.env.state_dict(),
        }
        return self.agent.state_dict(), state

    def restore(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes back what `snapshot` returned."""
        self.agent.load_state_dict(weights)
        self.agent.load_train_state(state["agent"])
        self.counters = Counters(**state["counters"])
        self.generator.set_state(state["generator"])
        self.sampler.online.load_state_dict(state["online"])
        self.open_episodes.load_state_dict(state["open_episodes"])
        self.env.load_state_dict(state["env"])
