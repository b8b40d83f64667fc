"""The two phases: updates on recorded data, then episodes in the simulator with updates between."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent
from caliper.agents.base import restore
from caliper.agents.probe import critic_features
from caliper.config.build import appearances, eval_seeds
from caliper.config.schema import RunConfig
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.envs.base import VectorEnv
from caliper.errors import CaliperError
from caliper.rollout.episodes import ActionQueue
from caliper.rollout.evaluation import evaluate, evaluate_appearances, write_evaluation
from caliper.training.checkpoint import save_checkpoint
from caliper.training.finite import Trouble, far_outside, stopped, unsound_weights
from caliper.training.interrupt import Interrupt, InterruptedRunError
from caliper.training.logger import Logger
from caliper.training.update import LEARNERS, EagerLearner
from caliper.types import Obs
from caliper.utils.history import remember
from caliper.utils.manifest import saved_metrics
from caliper.utils.metrics import LOST
from caliper.utils.progress import bar
from caliper.utils.ranks import ALONE, Ranks

USUAL_WARM_UP = 500  # environment steps
FEATURE_PROBES = 128  # observations on which the drift of the critic's encoder is measured


@dataclass
class Counters:
    """How far a run has come."""

    bc_updates: int = 0
    updates: int = 0  # gradient updates of the agent, both phases
    env_steps: int = 0  # online environment steps, of all envs together
    due: float = 0.0  # online updates owed to the steps taken; a fraction of one waits for the next step
    evaluated: int = -1  # env_steps, or updates while offline, of the last evaluation
    online: bool = False
    warned: bool = False  # that the critic's values lie far outside of what is possible

    def __str__(self) -> str:
        if self.bc_updates and not self.updates:
            return f"bc update {self.bc_updates}"
        return f"update {self.updates}"


@dataclass
class Trainer:
    """Holds what a run needs and moves it forward; everything that changes is in `save` and `restore`.

    Attributes:
        config: of the run; of this rank's share of it, if there are several.
        folder: the run folder.
        agent: what is trained.
        env: the envs of the online phase.
        eval_env: those of the evaluations.
        sampler: gives the batches.
        open_episodes: the online episodes in progress.
        queue: the actions that the envs are executing.
        generator: draws the batches.
        log: takes the metrics.
        interrupt: asked wherever the run can stop.
        ranks: of the run.
        learner: makes the updates.
    """

    config: RunConfig
    folder: Path
    agent: Agent
    env: VectorEnv
    eval_env: VectorEnv
    sampler: MixedSampler
    open_episodes: OpenEpisodes
    queue: ActionQueue
    generator: torch.Generator
    log: Logger
    interrupt: Interrupt
    ranks: Ranks = ALONE
    counters: Counters = field(default_factory=Counters)
    learner: EagerLearner = field(init=False)
    _saved: float = field(default_factory=time.monotonic)
    _whole: str = "update 0"  # what the latest checkpoint is of

    def __post_init__(self) -> None:
        make = LEARNERS[self.config.learner]
        self.learner = make(self.agent, self.sampler, self.config.batch_size, self.generator)

    def run(self) -> None:
        """Both phases from wherever the counters are.

        Saves at the switch, at the end, and every `log.checkpoint_minutes` between.

        Raises:
            InterruptedRunError: the user has asked to stop; everything is saved.
            NotFiniteError: something became infinite, or no number; the last checkpoint is kept.
        """
        self.learner.watch.start(self.counters.updates, self.counters.bc_updates)
        try:
            if not self.counters.online:
                self._bc()
                self._offline()
                self.counters.online, self.counters.evaluated = True, -1
                self.agent.go_online()
                self.save()
            self._online()
        except InterruptedRunError:
            self.save()
            raise
        self.save()

    def _bc(self) -> None:
        total, count = self.config.offline.bc_updates, self.counters
        if not total:
            return
        with bar(total, "bc", "update", count.bc_updates) as shown:
            while count.bc_updates < total:
                self._pause()
                info = self.learner.bc_update()
                count.bc_updates += 1
                shown.update()
                if count.bc_updates % self.config.log.every == 0:
                    self._require_finite()
                    self.log.log("offline", 0, 0, {"bc_updates": count.bc_updates, **self.ranks.mean(info)})

    def _offline(self) -> None:
        cfg, count = self.config.offline, self.counters
        with bar(cfg.updates, "offline", "update", count.updates) as shown:
            while True:
                last = count.updates >= cfg.updates
                if count.updates % cfg.eval_every == 0 or last:
                    self._evaluate("offline", count.updates, last, shown)
                if last:
                    return
                self._pause()
                self._update("offline")
                shown.update()

    def _online(self) -> None:
        cfg, count = self.config.online, self.counters
        n = self.env.num_envs * self.ranks.count
        warm_up = self._warm_up(n)
        if cfg.env_steps and warm_up >= cfg.env_steps and self.ranks.first:
            print(
                f"online.env_steps={cfg.env_steps} end before the first online update, which waits for "
                f"{warm_up} (online.warmup_steps)",
                flush=True,
            )
        obs = self.env.observe()
        with bar(cfg.env_steps, "online", "step", count.env_steps) as shown:
            while True:
                while count.due >= 1:
                    self._pause()
                    self._update("online")
                    count.due -= 1
                last = count.env_steps >= cfg.env_steps
                if last or count.env_steps // cfg.eval_every > max(count.evaluated, 0) // cfg.eval_every:
                    self._evaluate("online", count.env_steps, last, shown)
                if last:
                    return
                self._pause()
                obs = self._act(obs)
                count.env_steps += n
                shown.update(n)
                # Without recorded data there is nothing to learn from before the first episode ends.
                if count.env_steps > warm_up and self._data_everywhere():
                    count.due += cfg.utd * n

    def _warm_up(self, n: int) -> int:
        """Environment steps of all n envs before the first update.

        Less than a round of episodes holds only those that ended early, with success; where the envs are
        staggered, others have ended too.
        """
        cfg = self.config.online
        if cfg.warmup_steps is not None:
            return cfg.warmup_steps
        return USUAL_WARM_UP if cfg.stagger else max(USUAL_WARM_UP, n * self.env.horizon)

    def _data_everywhere(self) -> bool:
        if len(self.sampler.offline):
            return True
        return not self.ranks.any(not len(self.sampler.online))

    def _act(self, obs: Obs) -> Obs:
        """One stochastic control step of all envs; whole episodes go to the online buffer."""
        action = self.queue.next(self.agent.act(obs, deterministic=False))
        step = self.env.step(action)
        self.queue.drop(step.terminated | step.truncated)
        outcomes = self.open_episodes.push(obs, action, step, self.sampler.online)
        self._require_finite()  # here, where `push` has just waited for the device
        self.env.check()
        solved, ended = self.ranks.total(sum(outcomes), len(outcomes))
        if ended:
            at = self.counters.env_steps + len(action) * self.ranks.count
            self.log.log("online", at, self.counters.updates, {"collect/success": solved / ended})
        return step.obs

    def _update(self, phase: str) -> None:
        info = self.learner.update()
        self.counters.updates += 1
        if self.counters.updates % self.config.log.every == 0:
            self._require_finite()
            metrics: dict[str, float | Tensor] = {**self.ranks.mean(info), **self.env.rates()}
            self.log.log(phase, self.counters.env_steps, self.counters.updates, metrics)

    def _evaluate(self, phase: str, at: int, last: bool, shown: Any) -> None:
        count, cfg = self.counters, self.config.evaluation
        if count.evaluated == at:  # a resumed run has done it
            return
        self._require_finite()
        play = partial(
            evaluate,
            self.agent,
            self.eval_env,
            eval_seeds(self.config, cfg.final_episodes if last else cfg.episodes),
            self.sampler.offline.reward,
            phase,
            count.env_steps,
            count.updates,
            self.interrupt.check,  # at any step of it, for nothing that is saved changes meanwhile
            self.ranks,
        )
        named = list(appearances(self.config).items())
        result, calibration = evaluate_appearances(self.eval_env, dict(named if last else named[:1]), play)
        if calibration:
            self._look_at_values(calibration["q"])
            if len(self.sampler.offline):
                calibration["features"] = self._features()
        if self.ranks.first:
            write_evaluation(self.folder, result, calibration)
        metrics: dict[str, float | Tensor] = {"evaluation/success": result.success_once}
        if calibration:
            metrics["evaluation/q"] = float(calibration["q"].mean())
            metrics["evaluation/return"] = float(calibration["mc_return"].mean())
        self.log.log(phase, count.env_steps, count.updates, metrics)
        shown.set_postfix(success=f"{result.success_once:.2f}", refresh=False)
        count.evaluated = at

    def _look_at_values(self, q: np.ndarray) -> None:
        """Stops the run where the critic's values (m,) are none; warns, once, where they can't be right."""
        count = self.counters
        if not np.isfinite(q).all():
            self._stop(Trouble(("evaluation/q",), count.updates, bc=False))
        low, high = bounds = self.sampler.offline.return_bounds()
        if far_outside(q, bounds) and not count.warned:
            count.warned = True
            text = (
                f"at update {count.updates} the critic's values average {q.mean():.4g} in the evaluation, "
                f"far outside the possible returns ({low:.4g} to {high:.4g}): the training diverges; stop it "
                "and resume with a smaller agent.critic_lr"
            )
            if self.ranks.first:
                print(f"caliper: {text}", file=sys.stderr)
                remember(self.folder, "warned", text)

    def _require_finite(self) -> None:
        """Stops the run if an update gave something infinite, or no number. Waits for the device."""
        self.ranks.lowest(self.learner.watch.first)
        if trouble := self.learner.watch.trouble():
            self._stop(trouble)

    def _stop(self, trouble: Trouble) -> None:
        error = stopped(trouble, self.config, self.folder, self._whole)
        if self.ranks.first:
            remember(self.folder, "stopped", str(error))
        raise error

    def _features(self) -> np.ndarray:
        """The critic's features of the same recorded observations at every evaluation."""
        probe = self.sampler.offline.sample(FEATURE_PROBES, torch.Generator(self.agent.device).manual_seed(0))
        return critic_features(self.agent, probe.obs).cpu().numpy()

    def _pause(self) -> None:
        """A point from which the run could go on exactly: saves when it is time, stops when asked to."""
        late = time.monotonic() - self._saved > 60 * self.config.log.checkpoint_minutes
        late, asked = self.ranks.soon(late and self.ranks.first, self.interrupt.requested)
        if late:
            self.save()
        self.interrupt.requested |= asked
        self.interrupt.check()

    def save(self) -> Path:
        """Writes a checkpoint: weights, and everything else that the run needs to go on exactly.

        Raises:
            NotFiniteError: the weights are not finite, or something was not; nothing is written.
        """
        self._require_finite()
        if names := unsound_weights(self.agent):
            in_bc = not self.counters.updates
            at = self.counters.bc_updates if in_bc else self.counters.updates
            self._stop(Trouble(tuple(names), at, in_bc))
        state = {
            "counters": asdict(self.counters),
            "rows": self.log.rows,
            "agent": self.agent.train_state(),
            "generator": self.generator.get_state(),
            "online": self.sampler.online.state_dict(),
            "open_episodes": self.open_episodes.state_dict(),
            "queue": self.queue.state_dict(),
            "env": self.env.state_dict(),
        }
        self.log.sync()  # the rows that the checkpoint counts
        path = save_checkpoint(self.folder, self.agent.state_dict(), state, self.log.mark(), self.ranks)
        self._saved, self._whole = time.monotonic(), str(self.counters)
        return path

    def restore(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Goes back to a checkpoint, and drops the metrics logged after it.

        Raises:
            CaliperError: the checkpoint is of a run with another configuration.
        """
        try:
            self.agent.load_state_dict(weights)
            self.agent.load_train_state(state["agent"])
            self.counters = Counters(**state["counters"])
            self._whole = str(self.counters)
            restore(self.generator, state["generator"])
            self.sampler.online.load_state_dict(state["online"])
            self.open_episodes.load_state_dict(state["open_episodes"])
            self.queue.load_state_dict(state["queue"])
            self.env.load_state_dict(state["env"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
            raise CaliperError(
                f"the checkpoint of {self.folder} is of another configuration or version; resume "
                "without changing agent, encoder, task, sim or online.num_envs"
            ) from error
        _, sha256 = saved_metrics(self.folder) or (0, None)  # the clocks in it are not the run's state
        lost = self.ranks.told_by_first(self.log.truncate(state["rows"], sha256))
        if lost is not None:
            self._tell_lost(lost)

    def _tell_lost(self, rows: int) -> None:
        """Says, prints and marks in the table that its rows up to the checkpoint are not what they were."""
        what = f"{rows} rows of it are lost" if rows else "some of it has been changed"
        if self.ranks.first:
            print(
                f"caliper: {self.log.path} is not what it was at the checkpoint: {what}. The run goes on "
                "exactly, but its curves have a gap, which the report marks",
                file=sys.stderr,
            )
        count = self.counters
        self.log.log("online" if count.online else "offline", count.env_steps, count.updates, {LOST: rows})
        self.save()  # so that the table and its checkpoint agree again
