"""What can be done with a finished run: measure its policy again, film it."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from caliper.agents import Agent
from caliper.config.build import (
    appearances,
    eval_seeds,
    make_agent,
    make_envs,
    of_checkpoint,
    reward_config,
    set_up_torch,
)
from caliper.config.devices import learner_device
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.errors import CaliperError
from caliper.rollout.evaluation import Result, evaluate, evaluate_appearances
from caliper.rollout.film import film
from caliper.training.checkpoint import load_checkpoint
from caliper.training.devices import choose_devices
from caliper.utils.foreign import tell_unsealed, write_json


def load_agent(folder: Path, config: RunConfig) -> tuple[Agent, dict[str, int]]:
    """The policy of a run's newest checkpoint, and the run's counters then.

    Raises:
        CaliperError: the run has no checkpoint, a damaged one, or one of another network.
    """
    weights, state = load_checkpoint(folder)
    tell_unsealed(folder / "config.yaml")
    agent = make_agent(config, learner_device(config))
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        raise CaliperError(
            f"the checkpoint of {folder} is of another network; leave agent, encoder, cameras, image size "
            "and controller as they were in training"
        ) from error
    return agent, state["counters"]


def evaluate_run(folder: Path, config: RunConfig) -> Result:
    """Plays `evaluation.episodes` greedy episodes, prints the success and writes <run>/evaluation.json."""
    config = of_checkpoint(config)
    check(config)
    config = choose_devices(config).applied(config)
    set_up_torch(config)
    agent, counters = load_agent(folder, config)
    cfg = config.evaluation
    env = make_envs(config, min(cfg.num_envs, cfg.episodes))
    play = partial(
        evaluate,
        agent,
        env,
        eval_seeds(config, cfg.episodes),
        reward_config(config),
        "online" if counters["online"] else "offline",
        counters["env_steps"],
        counters["updates"],
    )
    result, _ = evaluate_appearances(env, appearances(config), play)
    path = folder / "evaluation.json"
    write_json(path, {"task": asdict(config.task), "sim": config.sim.name, **asdict(result)})
    for name, found in {result.appearance: asdict(result), **result.others}.items():
        low, high = found["interval"]
        print(
            f"{sum(found['episode_success'])} of {found['episodes']} episodes succeed"
            + (f" with {name}" if result.others else "")
            + f": {found['success_once']:.0%} (95 % interval {low:.0%} to {high:.0%}); {path}"
        )
    return result


def render_run(folder: Path, config: RunConfig) -> Path:
    """Films the run's policy; see `caliper.rollout.film.film`."""
    config = of_checkpoint(config)
    check(config)
    video = config.video
    if not video.episodes:
        raise CaliperError("video.episodes=0 leaves nothing to film; ask for at least one episode")
    config = choose_devices(config).applied(config)
    set_up_torch(config)
    agent, _ = load_agent(folder, config)
    return film(agent, config, folder, name=f"{video.camera}_{video.episodes}x{video.size}")
