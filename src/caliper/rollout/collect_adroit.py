"""`caliper collect task=adroit_...`: demonstrations, a clone of them, and what the clone does.

As the literature made its data (Nair et al. 2020, arXiv:2006.09359): 25 demonstrations, and 500 episodes of a
policy cloned from them. For the door the demonstrations are the human ones; for another task they are noisy
episodes of a trained policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caliper.agents import Agent, build_agent
from caliper.config.build import action_length, collect_seeds, make_envs, obs_spec
from caliper.config.schema import RunConfig
from caliper.data.formats.adroit import TrainedPolicy, read_adroit
from caliper.data.formats.minari import Recording
from caliper.data.formats.minari_writer import write_observations
from caliper.errors import CaliperError
from caliper.rollout.episodes import run_episodes
from caliper.types import Batch, Obs
from caliper.utils.files import new_folder
from caliper.utils.progress import bar

DEMONSTRATIONS = 25  # of a policy
# Of the numbers tried for the door's clone those which opened it most often.
UPDATES, BATCH, BLUR = 2500, 256, 0.1  # BLUR: noise on its standardised inputs while it learns
CLONE = {"name": "bc", "actor_hidden": [256, 256], "bc_lr": 1e-3}
NOISE = 0.05  # standard deviation of the noise on the clone's actions


def collect_adroit(config: RunConfig, path: Path) -> Path:
    """Writes demonstrations and the clone's episodes as a Minari dataset.

    Raises:
        CaliperError: no demonstrations are named, their file will not do, or the dataset cannot be written.
    """
    task, source = config.task, config.data.demonstrations
    if source is None:
        raise CaliperError(
            f"task={task.name} is cloned from demonstrations, and data.demonstrations names none: a file of "
            "the door's human ones, or of a trained policy, as .npz; or name a Minari dataset: data.path=..."
        )
    found = read_adroit(source, task.env_id or "", obs_spec(config).proprio, action_length(config))
    seeds = collect_seeds(config)
    with new_folder(path, "the dataset") as folder:
        rng = np.random.default_rng(config.data.seed)
        if isinstance(found, TrainedPolicy):
            policy = found

            def show(obs: Obs) -> Tensor:
                x = obs.proprio.double().numpy()
                return torch.from_numpy(policy.act(x, rng.standard_normal((len(x), action_length(config)))))

            first = [seeds[-1] + 1 + i for i in range(DEMONSTRATIONS)]
            demos = list(_played(config, first, show, "demonstrate"))
        else:
            demos = found
        clone, standardised = _clone(demos, config)
        noise = torch.Generator().manual_seed(config.data.seed)

        def act(obs: Obs) -> Tensor:
            action = clone.act(standardised(obs), deterministic=True)
            return action + NOISE * torch.randn(action.shape, generator=noise)

        episodes = [*demos, *_played(config, seeds, act, "collect")]
        of = f"{len(demos)} demonstrations ({Path(source).name}) and {len(seeds)} episodes of a clone of them"
        write_observations(folder, task.env_id or "", task.name, episodes, of)
    return path


def _clone(demos: list[Recording], config: RunConfig) -> tuple[Agent, Callable[[Obs], Obs]]:
    """A policy that acts as the demonstrations do, and what standardises observations for it."""
    obs = torch.from_numpy(np.concatenate([demo.obs[:-1] for demo in demos]))  # (b, p)
    actions = torch.from_numpy(np.concatenate([demo.actions for demo in demos]))  # (b, a)
    mean, spread = obs.mean(0), obs.std(0) + 1e-3

    def standardised(obs: Obs) -> Obs:
        return Obs(obs.pixels, (obs.proprio - mean) / spread)

    pixels, rest = torch.zeros(BATCH, 0, 3, 1, 1, dtype=torch.uint8), torch.zeros(BATCH)
    agent = build_agent(
        CLONE, {"name": "state"}, obs_spec(config).single, actions.shape[1], "cpu", config.data.seed
    )
    rng = torch.Generator().manual_seed(config.data.seed)
    with bar(UPDATES, "clone", "update", leave=False) as shown:
        for _ in range(UPDATES):
            pick = torch.randint(len(obs), (BATCH,), generator=rng)
            seen = standardised(Obs(pixels, obs[pick]))
            seen = Obs(pixels, seen.proprio + BLUR * torch.randn(seen.proprio.shape, generator=rng))
            agent.update(Batch(seen, actions[pick], rest, seen, rest, rest))
            shown.update()
    return agent, standardised


def _played(
    config: RunConfig, seeds: list[int], act: Callable[[Obs], Tensor], label: str
) -> Iterator[Recording]:
    """An episode from each seed, until it succeeds or the horizon."""
    env = make_envs(config, min(config.data.num_envs, len(seeds)), horizon=config.recorded_horizon)

    def record(obs: Obs, action: Tensor) -> Tensor:
        return torch.cat([obs.proprio, action.clamp(-1, 1).float()], 1)

    for episode in run_episodes(env, seeds, act, record, label):
        rows = torch.stack(episode.records).numpy()  # (t, p + a)
        width = env.spec.proprio
        last = np.zeros(len(rows), bool)
        last[-1] = episode.success
        yield Recording(
            np.concatenate([rows[:, :width], episode.final_proprio.numpy()[None]]),
            rows[:, width:],
            np.array(episode.rewards, np.float32),
            last,
        )
