"""`caliper collect task=kitchen`: an operator who does one task of the kitchen after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch

from caliper.config.build import collect_knobs, collect_seeds
from caliper.config.schema import RunConfig
from caliper.data.formats.minari import Recording
from caliper.data.formats.minari_writer import write_observations
from caliper.envs.gymnasium_env import GymnasiumEnv
from caliper.envs.scripts.kitchen import SCRIPTS, Operator, draw_tasks
from caliper.errors import CaliperError
from caliper.machine import cores
from caliper.utils.files import new_folder
from caliper.utils.progress import bar


def collect_kitchen(config: RunConfig, path: Path) -> Path:
    """Writes the operator's episodes as a Minari dataset; each draws its action noise from `data.mixture`.

    Raises:
        CaliperError: a task is wanted that has no script, or the dataset cannot be written.
    """
    task, data, seeds = config.task, config.data, collect_seeds(config)
    threads = min(config.threads or cores(), data.num_envs, len(seeds))
    envs = [
        GymnasiumEnv(task.env_id or "", 1, task.kwargs, task.dense, config.recorded_horizon)
        for _ in range(threads)
    ]
    wanted = list(envs[0].envs[0].goal)
    if unknown := [name for name in wanted if name not in SCRIPTS]:
        raise CaliperError(
            f"task.kwargs.tasks_to_complete has '{unknown[0]}', for which there is no script; choose from: "
            f"{', '.join(SCRIPTS)}, or name a Minari dataset's folder: data.path=..."
        )
    kind, (noise, _) = data.kind or "complete", collect_knobs(config)
    with new_folder(path, "the dataset") as folder:
        episodes = _played(envs, kind, wanted, seeds, noise.tolist())
        description = f"{len(seeds)} episodes of a scripted operator, {kind}"
        write_observations(folder, task.env_id or "", task.name, episodes, description)
    return path


def _played(
    envs: Sequence[GymnasiumEnv], kind: str, wanted: list[str], seeds: list[int], noise: list[float]
) -> Iterator[Recording]:
    """An episode from each seed, in their order; a thread per env, for the physics needs no interpreter."""
    idle: SimpleQueue[GymnasiumEnv] = SimpleQueue()
    for env in envs:
        idle.put(env)

    def play(seed: int, level: float) -> Recording:
        env = idle.get()
        try:
            return play_one(env, kind, wanted, seed, level)
        finally:
            idle.put(env)

    pool = ThreadPoolExecutor(len(envs))
    try:
        with bar(len(seeds), "collect", "episode", leave=False) as shown:
            for recording in pool.map(play, seeds, noise):
                yield recording
                shown.update()
    finally:
        pool.shutdown(cancel_futures=True)


def play_one(env: GymnasiumEnv, kind: str, wanted: list[str], seed: int, noise: float) -> Recording:
    """The operator's episode from a seed: until the environment ends it, or there is nothing left to do.

    Args:
        env: one env.
        kind: see `draw_tasks`, as is `wanted`.
        wanted: tasks that the environment counts.
        seed: draws the tasks, and the noise on observations and actions.
        noise: standard deviation of that on the actions.
    """
    rng = np.random.default_rng(seed)
    obs = [env.reset(seeds=torch.tensor([seed])).proprio[0].numpy()]
    operator = Operator(env.envs[0], draw_tasks(kind, wanted, rng))
    actions, rewards, ended = [], [], False
    while not ended and (action := operator.act()) is not None:
        noisy = np.clip(action + noise * rng.standard_normal(len(action)), -1, 1).astype(np.float32)
        step = env.step(torch.from_numpy(noisy)[None])
        env.check()
        obs.append(step.final_obs.proprio[0].numpy())
        actions.append(noisy)
        rewards.append(step.reward.item())
        ended = bool(step.terminated | step.truncated)
    terminals = np.zeros(len(actions), bool)
    terminals[-1] = bool(step.terminated)
    return Recording(np.stack(obs), np.stack(actions), np.array(rewards, np.float32), terminals)
