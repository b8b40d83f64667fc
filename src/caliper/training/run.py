"""A run: dataset, offline phase, online phase, evaluation, report, in one folder that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from caliper.analysis.run_report import write_report
from caliper.config.build import (
    action_length,
    dataset_meta,
    make_agent,
    make_envs,
    no_expert,
    obs_spec,
    of_checkpoint,
    reward_config,
    run_folder,
    run_scene,
    set_up_torch,
    visual_augmentation,
    warp_memory,
)
from caliper.config.changes import changes
from caliper.config.compose import collect_command, load, to_yaml
from caliper.config.devices import engine_device
from caliper.config.estimate import refuse_too_large, settled
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer, frame_layout
from caliper.data.dataset import Dataset, joined
from caliper.data.formats.minari import Recordings, read_minari
from caliper.data.formats.recordings import read_filters
from caliper.data.formats.robomimic import read_dataset
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.relabel import relabelled
from caliper.data.ring import Ring
from caliper.data.stored_frames import StoredFrames
from caliper.encoders.backbones import check_file
from caliper.encoders.pretrained import NAME as PRETRAINED
from caliper.encoders.weights import RANDOM
from caliper.envs.base import VectorEnv
from caliper.envs.scene.appearance import AppearanceRanges, VisualAugmentation
from caliper.errors import CaliperError, no_file
from caliper.importing.importer import ready
from caliper.rollout.collect import collect
from caliper.rollout.episodes import ActionQueue
from caliper.rollout.film import film
from caliper.rollout.replay import rendered, replay, replay_stored, state_fault
from caliper.rollout.stored import stored, stored_folder
from caliper.training.checkpoint import load_checkpoint, saved_ranks
from caliper.training.devices import Devices, choose_devices, keep
from caliper.training.finite import NotFiniteError
from caliper.training.interrupt import Interrupt
from caliper.training.logger import Logger, SilentLogger
from caliper.training.share import share
from caliper.training.together import GradientAverage, LostRankError, run_ranks
from caliper.training.trainer import Trainer
from caliper.types import Obs
from caliper.utils.files import locked, refuse_links, replacing
from caliper.utils.foreign import sealed_yaml, write_json
from caliper.utils.history import remember
from caliper.utils.progress import bar, watched
from caliper.utils.provenance import provenance
from caliper.utils.ranks import ALONE, Place, Ranks, resume_command

BATCH_SEED = 1_000_003  # added to the run's seed: batches and the agent's noise come from different streams
Checkpoint = tuple[dict[str, Any], dict[str, Any]]
Data = tuple[Dataset | Recordings, Dataset | None]  # the run's own, and the prior


def train(config: RunConfig) -> Path:
    """Starts a run and sees it through; returns its folder. Of several ranks each calls it.

    Raises:
        CaliperError: the configuration, the dataset or the folder will not do, or the disk fails.
        InterruptedRunError: the user pressed Ctrl-C; everything is saved.
        NotFiniteError: something became infinite, or no number; the last checkpoint and a report are kept.
    """
    with run_ranks() as ranks:
        folder = ranks.told_by_first(run_folder(config))
        with ranks.first_ahead():  # it is the one that will write there
            _refuse_used(folder)
            _refuse_crowded(folder)
        part = share(config, ranks)
        check(part)
        devices = choose_devices(part)
        data = _find_all(devices.applied(config), ranks)
        with _owned(folder, ranks):
            if ranks.first:
                _refuse_used(folder)  # another process may have begun one meanwhile
            encoder = _with_weights(config, folder, ranks.first)
            config, part = (replace(_with_data(c, *data), encoder=encoder) for c in (config, part))
            if ranks.first:
                _write_config(config, folder)
                write_json(folder / "git.json", provenance())
            return _run(config, part, folder, data, None, devices, ranks)


def resume(folder: Path, config: RunConfig) -> Path:
    """Continues a run from its newest checkpoint with the numbers that an unbroken run would give.

    Of several ranks, as many as before, each calls it.

    Args:
        folder: the run folder.
        config: its configuration; what changed in it (longer phases, say) is kept in the folder once the
            checkpoint has been found to fit.

    Raises:
        CaliperError: as `train`; or there is no checkpoint, or none of this configuration.
    """
    with run_ranks() as ranks, _owned(folder, ranks):
        _refuse_other_ranks(folder, ranks)
        checkpoint = load_checkpoint(folder, ranks.place.rank)
        _refuse_too_late(config, folder, checkpoint[1]["counters"])
        part = share(config, ranks)
        check(of_checkpoint(part))
        devices = choose_devices(part)
        data = _find_all(devices.applied(config), ranks)
        return _run(config, part, folder, data, checkpoint, devices, ranks)


def _run(
    asked: RunConfig,
    part: RunConfig,
    folder: Path,
    data: Data,
    checkpoint: Checkpoint | None,
    devices: Devices,
    ranks: Ranks,
) -> Path:
    """The run that is `asked` for, or the `part` that this rank has in it."""
    config = devices.applied(part)
    print(f"run folder: {folder}\n{devices}", flush=True)
    if ranks.count > 1:
        print(
            f"{ranks.place}: {config.batch_size} transitions of a batch, {config.online.num_envs} envs, "
            f"{config.online.capacity} frames online, one of {ranks.count} recorded episodes",
            flush=True,
        )
    data = _shared(data, ranks)
    frames = sum(part.num_frames for part in data if part is not None)
    config = settled(config, frames)
    print(refuse_too_large(config, frames), flush=True)
    set_up_torch(config)
    if config.sim.name == "warp" and config.task.env_id is None:
        print(warp_memory(config), flush=True)
    env = make_envs(config, config.online.num_envs, config.online.stagger)
    env.vary(AppearanceRanges(**asdict(config.online.appearance)))
    eval_env = make_envs(config, config.evaluation.num_envs)
    offline = load_data(config, *data, eval_env, ranks)
    spec, actions, device = env.spec, env.action_dim, env.device
    agent = make_agent(config if checkpoint is None else of_checkpoint(config), device)
    if ranks.count > 1:
        ranks.as_first(agent.state_dict().values())
        GradientAverage(agent.optimizers.values(), ranks.count)
    if spec.features and (pad := config.agent.get("shift_pad")):
        print(
            f"features of each frame are kept: the random shift (agent.shift_pad={pad}) does not act; "
            "encoder.cached=false keeps the images and shifts them",
            flush=True,
        )
    chunk = agent.config.chunk
    online = ReplayBuffer(config.online.capacity, spec, actions, offline.reward, device, chunk)
    logger: Logger = SilentLogger()
    if ranks.first:
        logger = Logger(folder, {"mode": config.log.wandb}, asdict(asked), config.log.tensorboard)
    with logger as log, Interrupt(folder, ranks) as interrupt:
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
            interrupt,
            ranks,
        )
        if checkpoint is None:
            trainer.save()  # from now on the folder is not taken for an empty one, and the run can be resumed
        else:
            trainer.restore(*checkpoint)
            if ranks.first:
                _keep_changes(asked, folder)
        if ranks.first:
            keep(devices, folder)
        try:
            trainer.run()
        except NotFiniteError:
            with ranks.first_ahead():  # where one process ends, torchrun ends the others
                if ranks.first:
                    print(f"report: {write_report(folder)}", flush=True)
            raise
        except LostRankError as error:
            again = resume_command(folder, ranks.place)
            raise LostRankError(f"{error}; go on from the last checkpoint with: {again}") from error
        ranks.leave()
    if not ranks.first:
        return folder
    if config.video.episodes:
        print(f"video: {film(agent, config, folder)}")
    print(f"report: {write_report(folder)}")
    print(f"run folder: {folder}", flush=True)
    return folder


def _owned(folder: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """Keeps others out of the folder; the first rank does for all."""
    return locked(folder) if ranks.first else nullcontext()


def _find_all(config: RunConfig, ranks: Ranks) -> Data:
    """The run's dataset, and its prior data if there are any; the first rank makes what is not there."""
    with ranks.first_ahead():
        return find_data(config), None if config.prior is None else find_dataset(config.prior)


def _shared(data: Data, ranks: Ranks) -> Data:
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


def _with_data(config: RunConfig, dataset: Dataset | Recordings, prior: Dataset | None) -> RunConfig:
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


def _with_weights(config: RunConfig, folder: Path, keep: bool) -> dict[str, Any]:
    """The encoder with its file by whole path and checksum; says where that is from, and is to `keep` it."""
    weights = config.encoder.get("weights", RANDOM)
    if config.encoder["name"] != PRETRAINED or weights == RANDOM:
        return config.encoder
    checked = check_file(Path(weights).resolve(), config.encoder["arch"])
    print(checked, flush=True)
    # "sha256" is where `write_json` puts the page's own.
    told = {"arch": checked.arch, "weights": checked.path, "weights_sha256": checked.sha256}
    if keep:
        write_json(folder / "pretrained.json", told | asdict(checked.origin))
    return config.encoder | {"weights": checked.path, "sha256": checked.sha256}


def _keep_changes(config: RunConfig, folder: Path) -> None:
    """Says what is different from now on, and keeps it as history: config.yaml is what holds now."""
    found = changes(load(folder / "config.yaml"), config)
    if not found:
        return
    text = "; ".join(map(str, found))
    print(f"changed: {text}", flush=True)
    remember(folder, "changed", text, changes=[asdict(c) for c in found])
    _write_config(config, folder)


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


def _refuse_used(folder: Path) -> None:
    """A run that has begun has a checkpoint; a folder without one holds nothing to lose."""
    if (folder / "checkpoints" / "latest").exists():
        raise CaliperError(
            f"{folder} already holds a run; go on with: caliper resume {folder}, or choose another run_dir"
        )


# What a run puts into its folder.
OWN = {
    *("config.yaml", "git.json", "devices.json", "pretrained.json"),
    *("metrics.csv", "history.jsonl", "evaluation.json"),
    *("report.html", "checkpoints", "evaluations", "plots", "videos", "wandb", "tensorboard"),
}
LOGS = {".log", ".out", ".err", ".txt"}  # what a shell or a cluster may keep there of what the run prints


def _refuse_crowded(folder: Path) -> None:
    """Keeps a run out of a home, a project, or wherever else other things are."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise CaliperError(
                f"run_dir={folder} {no_file(folder) or 'is a file'}; choose a folder of its own"
            )
        return
    refuse_links(folder)
    others = sorted(
        p.name
        for p in folder.iterdir()
        if p.name.removesuffix(".partial") not in OWN | {".lock"} and p.suffix not in LOGS
    )
    if others:
        raise CaliperError(
            f"run_dir={folder} holds other things ({', '.join(others[:3])}{', ...' * (len(others) > 3)}), "
            "among which a run would be lost; choose a folder of its own"
        )


def _refuse_other_ranks(folder: Path, ranks: Ranks) -> None:
    """Holds a run to the number of ranks that it was begun with."""
    if (then := saved_ranks(folder)) != ranks.count:
        before = "by one process" if then == 1 else f"on {then} ranks"
        how = resume_command(folder, Place(count=then, local_count=then))
        raise CaliperError(
            f"{folder} was made {before}, and this is {ranks.count}: its envs, online buffer and recorded "
            f"episodes are divided otherwise, and other batches would be drawn; go on with: {how}"
        )


def _refuse_too_late(config: RunConfig, folder: Path, made: dict[str, Any]) -> None:
    """Refuses to make a phase shorter than it has been, and to change the length of one that is over."""
    saved = load(folder / "config.yaml")
    if made["online"] and config.offline.updates != saved.offline.updates:
        raise CaliperError(
            f"offline.updates={config.offline.updates} comes too late: the offline phase of {folder} ended "
            f"after {saved.offline.updates} updates; leave it out, or start a new run"
        )
    steps, least = config.online.env_steps, made["env_steps"]
    if steps < least and steps != saved.online.env_steps:
        raise CaliperError(
            f"online.env_steps={steps} comes too late: {folder} has made {least} steps; give at least so many"
        )
    updates, least = config.offline.updates, made["updates"]
    if not made["online"] and updates < least:
        raise CaliperError(
            f"offline.updates={updates} comes too late: {folder} has made {least}; give at least so many"
        )


def _write_config(config: RunConfig, folder: Path) -> None:
    with replacing(folder / "config.yaml") as partial:
        partial.write_text(sealed_yaml(to_yaml(config)), encoding="utf-8")
