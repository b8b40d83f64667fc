"""What can be done with a finished run: measure its policy again, film it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from caliper.agents import Agent, build_agent
from caliper.checkpoint import load_checkpoint
from caliper.config import RunConfig
from caliper.data.returns import RewardConfig
from caliper.envs.sim import SimEnv
from caliper.evaluate import evaluate
from caliper.film import film
from caliper.files import replacing
from caliper.worlds import EVAL_SEEDS, make_env, set_threads


def load_agent(folder: Path, config: RunConfig, env: SimEnv) -> tuple[Agent, dict[str, int]]:
    """The policy of a run's newest checkpoint, and the run's counters then.

    Raises:
        CaliperError: the run has no checkpoint, or a damaged one.
    """
    weights, state = load_checkpoint(folder)
    agent = build_agent(config.agent, config.encoder, env.spec, env.action_dim, env.device, config.seed)
    agent.load_state_dict(weights)
    return agent, state["counters"]


def evaluate_run(folder: Path, config: RunConfig) -> None:
    """Plays `evaluation.episodes` greedy episodes, prints the success and writes <run>/evaluation.json."""
    set_threads(config)
    cfg = config.evaluation
    env = make_env(config, min(cfg.num_envs, cfg.episodes))
    agent, counters = load_agent(folder, config, env)
    scale = config.reward
    reward = RewardConfig(scale.scale, scale.bias, scale.sparse, config.discount)
    phase = "online" if counters["online"] else "offline"
    seeds = list(range(EVAL_SEEDS + cfg.seed, EVAL_SEEDS + cfg.seed + cfg.episodes))
    result, _ = evaluate(agent, env, seeds, reward, phase, counters["env_steps"], counters["updates"])
    path = folder / "evaluation.json"
    with replacing(path) as partial:
        partial.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    low, high = result.interval
    print(
        f"{sum(result.episode_success)} of {result.episodes} episodes succeed: {result.success_once:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}); {path}"
    )


def render_run(folder: Path, config: RunConfig) -> Path:
    """Films the run's policy; see `caliper.film.film`."""
    set_threads(config)
    agent, _ = load_agent(folder, config, make_env(config, 1))
    video = config.video
    return film(agent, config, folder, name=f"{video.camera}_{video.episodes}x{video.size}")
