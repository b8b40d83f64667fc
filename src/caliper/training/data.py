"""The recorded episodes of a run: found or collected, checked, and put into its buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch

from caliper.config.build import (
    action_length,
    dataset_meta,
    no_expert,
    obs_spec,
    reward_config,
    run_scene,
    visual_augmentation,
)
from caliper.config.compose import collect_command
from caliper.config.devices import engine_device
from caliper.config.schema import RunConfig
from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.data.dataset import Dataset, joined
from caliper.data.formats.minari import Recordings, read_minari
from caliper.data.formats.recordings import read_filters
from caliper.data.formats.robomimic import read_dataset
from caliper.data.relabel import relabelled
from caliper.data.ring import Ring
from caliper.data.stored_frames import StoredFrames
from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import VisualAugmentation
from caliper.errors import CaliperError, no_file
from caliper.importing.importer import ready
from caliper.rollout.collect import collect
from caliper.rollout.replay import rendered, replay, replay_stored, state_fault
from caliper.rollout.stored import stored, stored_folder
from caliper.types import Obs
from caliper.utils.progress import bar, watched
from caliper.utils.ranks import ALONE, Ranks

Data = tuple[Dataset | Recordings, Dataset | None]  # the run's own, and the prior


def find_data(config: RunConfig) -> Dataset | Recordings:
    """The run's dataset; collects it first if its file is absent, saying with which command.

    Raises:
        CaliperError: `data.path` names no file, or a file is damaged, does not fit the task, cannot be
            imported, or lacks the key of `data.filter`.
    """
    return find_dataset(config) if config.task.env_id is None else _find_recordings(config)


def find_dataset(config: RunConfig) -> Dataset:
    """See `find_data`; of Caliper's own tasks."""
    if config.task.env is not None and config.data.path is None:
        return _without_data(config)
    paths = [Path(path) for path in config.dataset_paths()]
    begun = config.data.content is not None
    if config.data.path is None and not begun and not paths[0].exists():
        print(f"no dataset at {paths[0]}; collecting it, as does: {collect_command(config)}", flush=True)
        collect(config, paths[0])
    for path in paths:
        if fault := no_file(path):
            fix = "leave its path out to collect one" if config.task.env is None else "name one that does"
            if begun:
                fix = "it is what this run began with; if it was moved, say where with data.path=..."
                if config.task.env is None:
                    fix += f", or collect it again with: {collect_command(config)}"
            raise CaliperError(f"the dataset {path} {fault}; {fix}")
    dataset = joined([_read(ready(path), config) for path in paths])
    _require_content(config, dataset)
    return dataset


def find_all(config: RunConfig, ranks: Ranks) -> Data:
    """The run's dataset, and its prior data if there are any; the first rank makes what is not there."""
    with ranks.first_ahead():
        return find_data(config), None if config.prior is None else find_dataset(config.prior)


def shared_out(data: Data, ranks: Ranks) -> Data:
    """The episodes that are this rank's.

    Raises:
        CaliperError: the dataset has fewer than there are ranks.
    """
    if ranks.count == 1:
        return data
    own, prior = data
    if 0 < len(own.episodes) < ranks.count:
        raise CaliperError(
            f"{own.path} has {len(own.episodes)} episodes, and each of {ranks.count} ranks needs some; start "
            "fewer ranks"
        )
    if isinstance(own, Recordings):
        return replace(own, episodes=ranks.share(own.episodes)), None
    mine = own.select(ranks.share(range(len(own.episodes))))
    return mine, None if prior is None else prior.select(ranks.share(range(len(prior.episodes))))


def with_data(config: RunConfig, dataset: Dataset | Recordings, prior: Dataset | None) -> RunConfig:
    """The same run from any folder, and with no other data: whole paths, and what the files hold."""
    if not dataset.num_frames:
        return config
    paths = [str(Path(path).resolve()) for path in config.dataset_paths()]
    path = paths if isinstance(config.data.path, list) else paths[0]
    frames = config.data.frames and str(Path(config.data.frames).resolve())
    data = replace(config.data, path=path, content=dataset.content, frames=frames)
    if config.prior is not None and prior is not None:
        place = str(Path(config.prior.dataset_path()).resolve())
        data = replace(data, prior=replace(data.prior, path=place, content=prior.content))
    return replace(config, data=data)


def _without_data(config: RunConfig) -> Dataset:
    """No episodes, for an agent that needs none.

    Raises:
        CaliperError: it needs some; says where they may come from.
    """
    if config.offline.bc_updates or config.offline.updates or config.online.mixing or config.prior:
        raise CaliperError(no_expert(config))
    return Dataset(dataset_meta(config), ())


def _read(path: Path, config: RunConfig) -> Dataset:
    dataset = read_dataset(path, config.data.rewards)
    dataset.check(dataset_meta(config))
    if fault := state_fault(dataset, run_scene(config).model):
        raise CaliperError(f"{path} can't be used: {fault}; collect it again")
    if (key := config.data.filter) is None:
        return dataset
    filters = read_filters(path)
    if key not in filters:
        there = f"choose one of: {', '.join(filters)}" if filters else "it has none"
        raise CaliperError(f"data.filter={key}: {path} has no such filter key; {there}")
    if not filters[key]:
        raise CaliperError(f"data.filter={key}: {path} lists no episode under that key")
    return dataset.select(filters[key])


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


def _find_recordings(config: RunConfig) -> Recordings:
    """The observations that a run in a Gymnasium environment learns from."""
    task, path = config.task, config.data.path
    if config.data.filter is not None:
        raise CaliperError(
            f"data.filter={config.data.filter}: a Minari dataset has no filter keys; leave it out"
        )
    if isinstance(path, list):
        raise CaliperError(f"data.path={path}: of Minari datasets a run takes one; name one folder")
    where = Path(path or config.dataset_path())
    if path is None and not where.exists():
        print(f"no dataset at {where}; collecting it, as does: {collect_command(config)}", flush=True)
        collect(config, where)
    recordings = read_minari(where, task.dense, task.successes_only)
    recordings.check(task.env_id or "", obs_spec(config).proprio, action_length(config))
    _require_content(config, recordings)
    return recordings


def load_data(
    config: RunConfig,
    dataset: Dataset | Recordings,
    prior: Dataset | None,
    env: VectorEnv,
    ranks: Ranks = ALONE,
) -> ReplayBuffer:
    """The dataset in a buffer of its own size; `env` draws recorded states and is left in the last.

    Prior data goes, relabelled, into the same buffer, whose transitions are all equally likely to be drawn.
    """
    augmentation = visual_augmentation(config)
    parts: dict[str, Dataset | Recordings] = {"dataset": dataset}
    parts |= {} if prior is None else {"prior data": relabelled(prior)}
    parts = {name: part for name, part in parts.items() if part.num_frames}
    for name, part in parts.items():
        count = part.num_frames * augmentation.copies
        size = ReplayBuffer.estimate(count, env.spec, env.action_dim, config.chunk) / 2**20
        print(
            f"{name}: {part.path}: {len(part.episodes)} episodes, {part.num_transitions} transitions, "
            + (f"{augmentation.copies} copies, " if augmentation.copies > 1 else "")
            + f"{size:.0f} MiB",
            flush=True,
        )
    capacity = max(2, sum(part.num_frames for part in parts.values()) * augmentation.copies)
    frames: Ring | None = None
    if config.data.storage == "disk" and parts:
        episodes = [part for part in parts.values() if isinstance(part, Dataset)]
        frames = _on_disk(config, episodes, env, augmentation, ranks)
    elif config.data.storage == "memory" and env.device.type != "cpu":
        frames = Ring(capacity, frame_layout(env.spec), torch.device("cpu"))
    reward = reward_config(config)
    buffer = ReplayBuffer(capacity, env.spec, env.action_dim, reward, env.device, config.chunk, frames)
    for part in parts.values():
        if isinstance(part, Recordings):
            part.fill(buffer)
        elif isinstance(frames, StoredFrames):
            replay_stored(part, buffer, augmentation.copies)
        else:
            replay(env, part, buffer, watched(), augmentation)
    return buffer


def _on_disk(
    config: RunConfig, parts: list[Dataset], env: VectorEnv, augmentation: VisualAugmentation, ranks: Ranks
) -> StoredFrames:
    """The frames of all parts, from a file named by all that they depend on; rendered if there is none."""
    spec, task = env.spec.single, config.task
    count = sum(part.num_frames for part in parts) * augmentation.copies
    looks = {**asdict(augmentation.ranges), "seed": augmentation.seed}
    facts = {
        "frames": count,
        "datasets": [part.content for part in parts],
        "images": {name: [plane.kind, *plane.shape] for name, plane in spec.planes.items()},
        "cameras": list(spec.cameras),
        "proprio": [spec.proprio, *task.proprio],
        "copies": augmentation.copies,
        "appearance": looks if augmentation.copies > 1 else {},
        "engine": [config.sim.name, engine_device(config)],
        "versions": {name: version(name) for name in ("caliper-rl", "mujoco", "mujoco-warp")},
    }
    if ranks.count > 1:
        facts["episodes of"] = str(ranks.place)
    if spec.features:
        encoder = {"sha256": None} | config.encoder
        named = encoder["sha256"] or encoder["weights"]
        facts["encoder"] = [encoder["arch"], named, encoder["size"], str(env.device)]
    root = config.data.frames or Path(config.dataset_paths()[0]).resolve().parent / "frames"

    def frames() -> Iterator[Obs]:
        with bar(count, "replay", "frame") as shown:
            for part in parts:
                for copy in range(augmentation.copies):
                    for _, obs in rendered(env, part, augmentation, copy):
                        yield obs
                        shown.update(len(obs))

    return stored(stored_folder(Path(root), facts), facts, frame_layout(spec), count, frames())
