"""A run: dataset, offline phase, online phase, evaluation, report, in one folder that can be resumed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from caliper.analysis.run_report import write_report
from caliper.config.build import (
    action_length,
    dataset_meta,
    make_agent,
    make_worlds,
    obs_spec,
    reward_config,
    run_folder,
    set_threads,
    visual_augmentation,
)
from caliper.config.compose import collect_command, to_yaml
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer
from caliper.data.dataset import Dataset
from caliper.data.minari import Recordings, read_minari
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.relabel import relabelled
from caliper.data.robomimic import read_dataset
from caliper.envs.base import VectorEnv
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.rollout.episodes import ActionQueue
from caliper.rollout.film import film
from caliper.rollout.replay import replay, state_fault
from caliper.training.checkpoint import load_checkpoint
from caliper.training.interrupt import Stop
from caliper.training.logger import Logger
from caliper.training.trainer import Trainer
from caliper.utils.files import locked, replacing
from caliper.utils.foreign import sealed_yaml, write_json
from caliper.utils.progress import watched
from caliper.utils.provenance import provenance

BATCH_SEED = 1_000_003  # added to the run's seed: batches and the agent's noise come from different streams
Checkpoint = tuple[dict[str, Any], dict[str, Any]]


def train(config: RunConfig) -> Path:
    """Starts a run and sees it through; returns its folder.

    Raises:
        CaliperError: the configuration, the dataset or the folder will not do, or the disk fails.
        InterruptedRunError: the user pressed Ctrl-C; everything is saved.
    """
    folder = run_folder(config)
    _refuse_used(folder)
    check(config)
    _write_config(config, folder)
    write_json(folder / "git.json", provenance(Path(__file__)))
    return _run(config, folder, None)


def resume(folder: Path, config: RunConfig) -> Path:
    """Continues a run from its newest checkpoint with the numbers that an unbroken run would give.

    Args:
        folder: the run folder.
        config: its configuration; what changed in it (longer phases, say) is kept in the folder.

    Raises:
        CaliperError: as `train`; or there is no checkpoint, or none of this configuration.
    """
    checkpoint = load_checkpoint(folder)
    check(config)
    _write_config(config, folder)
    return _run(config, folder, checkpoint)


def _run(config: RunConfig, folder: Path, checkpoint: Checkpoint | None) -> Path:
    print(f"run folder: {folder}", flush=True)
    set_threads(config)
    dataset = find_data(config)
    prior = None if config.prior is None else find_dataset(config.prior)
    _keep_content(config, folder, dataset, prior)
    env, eval_env = (make_worlds(config, n) for n in (config.online.num_envs, config.evaluation.num_envs))
    offline = load_data(config, dataset, eval_env, prior)
    spec, actions, device = env.spec, env.action_dim, env.device
    agent = make_agent(config, device)
    chunk = agent.config.chunk
    online = ReplayBuffer(config.online.capacity, spec, actions, offline.reward, device, chunk)
    with (
        locked(folder),
        Logger(folder, {"mode": config.log.wandb}, asdict(config)) as log,
        Stop(folder) as stop,
    ):
        trainer = Trainer(
            config,
            folder,
            agent,
            env,
            eval_env,
            MixedSampler(offline, online, config.online.mixing),
            OpenEpisodes(env.num_envs, env.horizon, spec, actions, device),
            ActionQueue(env.num_envs, chunk, actions, device),
            torch.Generator(device).manual_seed(config.seed + BATCH_SEED),
            log,
            stop.check,
        )
        if checkpoint is None:
            trainer.save()  # from now on the folder is not taken for an empty one, and the run can be resumed
        else:
            trainer.restore(*checkpoint)
        trainer.run()
    if config.video.episodes and config.task.env_id:
        print(f"video: none, {config.task.env_id} cannot be filmed: Gymnasium's renderers need OpenGL")
    elif config.video.episodes:
        print(f"video: {film(agent, config, folder)}")
    print(f"report: {write_report(folder)}")
    print(f"run folder: {folder}", flush=True)
    return folder


def find_data(config: RunConfig) -> Dataset | Recordings:
    """The run's dataset; collects it first if its file is absent, saying with which command.

    Raises:
        CaliperError: `data.path` names no file, or the file is damaged or does not fit the task.
    """
    return find_dataset(config) if config.task.env_id is None else _find_recordings(config)


def find_dataset(config: RunConfig) -> Dataset:
    """See `find_data`; of Caliper's own tasks."""
    path = Path(config.dataset_path())
    if not path.exists():
        if config.data.content is not None:
            raise CaliperError(
                f"the dataset {path} of this run is not there any more; if it was moved, say where with "
                f"data.path=..., or collect it again with: {collect_command(config)}"
            )
        if config.data.path is not None:
            raise CaliperError(f"the dataset {path} does not exist; leave its path out to collect one")
        print(f"no dataset at {path}; collecting it, as does: {collect_command(config)}", flush=True)
        collect(config, path)
    dataset = read_dataset(path, config.data.rewards)
    dataset.check(dataset_meta(config))
    if fault := state_fault(dataset, task_scene(config.task.name).model):
        raise CaliperError(f"{path} can't be used: {fault}; collect it again")
    _require_content(config, dataset)
    return dataset


def _require_content(config: RunConfig, dataset: Dataset | Recordings) -> None:
    """A run goes on with the data it began with, wherever the file is now.

    Raises:
        CaliperError: the dataset is another; names both.
    """
    if config.data.content not in (None, dataset.content):
        raise CaliperError(
            f"{dataset.path} holds another dataset (SHA-256 {dataset.content[:16]}...) than this run began "
            f"with ({config.data.content}); say where that one is with data.path=..., or start a new run"
        )


def _keep_content(
    config: RunConfig, folder: Path, dataset: Dataset | Recordings, prior: Dataset | None
) -> None:
    """Writes into the run's configuration which data it began with."""
    before = config.data.content, config.data.prior.content
    config.data.content = dataset.content
    config.data.prior.content = prior.content if prior else None
    if before != (config.data.content, config.data.prior.content):
        _write_config(config, folder)


def _find_recordings(config: RunConfig) -> Recordings:
    """The observations that a run in a Gymnasium environment learns from."""
    task, path = config.task, config.data.path
    if path is None:
        raise CaliperError(
            f"task={task.name} has no expert to collect from; name a Minari dataset's folder: data.path=..."
        )
    recordings = read_minari(path, task.dense, task.successes_only)
    recordings.check(task.env_id or "", obs_spec(config).proprio, action_length(config))
    _require_content(config, recordings)
    return recordings


def load_data(
    config: RunConfig, dataset: Dataset | Recordings, env: VectorEnv, prior: Dataset | None = None
) -> ReplayBuffer:
    """The dataset in a buffer of its own size; `env` draws recorded states and is left in the last.

    Prior data goes, relabelled, into the same buffer, whose transitions are all equally likely to be drawn.
    """
    augmentation = visual_augmentation(config)
    parts: dict[str, Dataset | Recordings] = {"dataset": dataset}
    parts |= {} if prior is None else {"prior data": relabelled(prior)}
    for name, part in parts.items():
        frames = part.num_frames * augmentation.copies
        size = ReplayBuffer.estimate(frames, env.spec, env.action_dim, config.chunk) / 2**20
        print(
            f"{name}: {part.path}: {len(part.episodes)} episodes, {part.num_transitions} transitions, "
            + (f"{augmentation.copies} copies, " if augmentation.copies > 1 else "")
            + f"{size:.0f} MiB",
            flush=True,
        )
    frames = sum(part.num_frames for part in parts.values()) * augmentation.copies
    buffer = ReplayBuffer(frames, env.spec, env.action_dim, reward_config(config), env.device, config.chunk)
    for part in parts.values():
        if isinstance(part, Recordings):
            part.fill(buffer)
        else:
            replay(env, part, buffer, watched(), augmentation)
    return buffer


def _refuse_used(folder: Path) -> None:
    """A run that has begun has a checkpoint; a folder without one holds nothing to lose."""
    if (folder / "checkpoints" / "latest").exists():
        raise CaliperError(
            f"{folder} already holds a run; go on with: caliper resume {folder}, or choose another run_dir"
        )


def _write_config(config: RunConfig, folder: Path) -> None:
    with replacing(folder / "config.yaml") as partial:
        partial.write_text(sealed_yaml(to_yaml(config)), encoding="utf-8")
