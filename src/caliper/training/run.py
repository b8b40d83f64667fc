"""A run: dataset, offline phase, online phase, evaluation, report, in one folder that can be resumed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from caliper.agents import Agent
from caliper.analysis.run_report import write_report
from caliper.config.build import (
    make_agent,
    make_envs,
    of_checkpoint,
    run_folder,
    set_up_torch,
    warp_memory,
)
from caliper.config.estimate import refuse_too_large, settled
from caliper.config.schema import RunConfig
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.encoders import normalizers
from caliper.encoders.backbones import check_file
from caliper.encoders.pretrained import NAME as PRETRAINED
from caliper.encoders.weights import RANDOM
from caliper.envs.scene.appearance import AppearanceRanges
from caliper.errors import CaliperError
from caliper.rollout.episodes import ActionQueue
from caliper.rollout.film import film
from caliper.training.checkpoint import load_checkpoint
from caliper.training.data import Data, find_all, load_data, shared_out, with_data
from caliper.training.devices import Devices, choose_devices, keep
from caliper.training.finite import NotFiniteError
from caliper.training.folder import (
    keep_changes,
    owned,
    refuse_crowded,
    refuse_other_ranks,
    refuse_too_late,
    refuse_used,
    write_config,
)
from caliper.training.interrupt import Interrupt
from caliper.training.logger import Logger, SilentLogger
from caliper.training.share import share
from caliper.training.together import GradientAverage, LostRankError, run_ranks
from caliper.training.trainer import Trainer
from caliper.utils.foreign import tell_unsealed, write_json
from caliper.utils.provenance import provenance
from caliper.utils.ranks import Ranks, resume_command

BATCH_SEED = 1_000_003  # added to the run's seed: batches and the agent's noise come from different streams
Checkpoint = tuple[dict[str, Any], dict[str, Any]]


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
            refuse_used(folder)
            refuse_crowded(folder)
        part = share(config, ranks)
        check(part)
        devices = choose_devices(part)
        data = find_all(devices.applied(config), ranks)
        with owned(folder, ranks):
            if ranks.first:
                refuse_used(folder)  # another process may have begun one meanwhile
            encoder = _with_weights(config, folder, ranks.first)
            config, part = (replace(with_data(c, *data), encoder=encoder) for c in (config, part))
            if ranks.first:
                write_config(config, folder)
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
    with run_ranks() as ranks, owned(folder, ranks):
        refuse_other_ranks(folder, ranks)
        checkpoint = load_checkpoint(folder, ranks.place.rank)
        if ranks.first:
            tell_unsealed(folder / "config.yaml")
        refuse_too_late(config, folder, checkpoint[1]["counters"])
        part = share(config, ranks)
        check(of_checkpoint(part))
        devices = choose_devices(part)
        data = find_all(devices.applied(config), ranks)
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
    data = shared_out(data, ranks)
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
    if checkpoint is None:
        _fit_encoders(agent, offline)
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
                keep_changes(asked, folder)
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


def _fit_encoders(agent: Agent, recorded: ReplayBuffer) -> None:
    """Gives those that normalise the moments of the recorded frames; raises CaliperError without any."""
    encoders = normalizers(agent)
    if not encoders:
        return
    if not recorded.num_frames:
        raise CaliperError(
            "encoder.normalize=true takes mean and deviation from recorded frames, and there are none; set "
            "encoder.normalize=false, or name a dataset with data.path"
        )
    frames = recorded.proprio()
    for encoder in encoders:
        encoder.fit(frames)


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
