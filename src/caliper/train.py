"""A run: dataset, offline phase, online phase, evaluation, report, in one folder that can be resumed exactly."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import OmegaConf

from caliper.agents import build_agent
from caliper.checkpoint import load_checkpoint, save_checkpoint
from caliper.collect import collect
from caliper.config import RunConfig
from caliper.data.buffer import ReplayBuffer
from caliper.data.mixing import MixedSampler
from caliper.data.open_episodes import OpenEpisodes
from caliper.data.replay import replay
from caliper.data.returns import RewardConfig
from caliper.data.robomimic import read_dataset
from caliper.log import RunLog
from caliper.phases import Counters, Phases
from caliper.report import write_report
from caliper.runs import provenance
from caliper.types import CaliperError
from caliper.files import replacing
from caliper.film import film
from caliper.worlds import dataset_meta, make_env, run_folder, set_threads


class Interrupted(CaliperError):
    """Ctrl-C: everything is saved; the message says how to go on."""


class Stop:
    """Turns the first Ctrl-C into a request to stop at the next step; the second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        self.requested = True

    def restore(self) -> None:
        """Gives the signal back."""
        signal.signal(signal.SIGINT, self._before)


def train(config: RunConfig) -> Path:
    """Starts a run and sees it through; returns its folder."""
    folder = run_folder(config)
    if (folder / "config.yaml").exists():
        raise CaliperError(
            f"{folder} already holds a run; continue it with: caliper resume {folder}, or choose another run_dir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "config.yaml") as partial:
            OmegaConf.save(OmegaConf.structured(config), partial)
    except OSError as error:
        raise CaliperError(f"cannot write to {folder}: {error.strerror}; choose another run_dir") from error
    with replacing(folder / "git.json") as partial:
        partial.write_text(json.dumps(provenance(Path(__file__)), indent=1) + "\n", encoding="utf-8")
    return _run(config, folder, None)


def resume(folder: Path, config: RunConfig) -> Path:
    """Continues a run from its newest checkpoint with the numbers an unbroken run would give."""
    return _run(config, folder, load_checkpoint(folder))


def _run(config: RunConfig, folder: Path, checkpoint: tuple[dict[str, Any], dict[str, Any]] | None) -> Path:
    print(f"run folder: {folder}", flush=True)
    set_threads(config)
    offline = load_data(config)
    env = make_env(config, config.online.num_envs)
    device = env.device
    agent = build_agent(config.agent, config.encoder, env.spec, env.action_dim, device, config.seed)
    online = ReplayBuffer(config.online.capacity, env.spec, env.action_dim, offline.reward, device)
    phases = Phases(
        config,
        folder,
        agent=agent,
        env=env,
        eval_env=make_env(config, config.evaluation.num_envs),
        sampler=MixedSampler(offline, online, config.online.mixing),
        open_episodes=OpenEpisodes(env.num_envs, env.horizon, env.spec, env.action_dim, device),
        generator=torch.Generator(device).manual_seed(config.seed),
        log=RunLog(folder, {"mode": config.log.wandb}, OmegaConf.to_container(OmegaConf.structured(config))),  # type: ignore[arg-type]
    )
    if checkpoint is not None:
        phases.restore(*checkpoint)
        phases.log.truncate(phases.counters.updates, phases.counters.env_steps)
    stop = Stop()
    try:
        phases.run(lambda: save_checkpoint(folder, *phases.snapshot()), lambda: stop.requested)
    finally:
        stop.restore()
        phases.log.close()
    if stop.requested:
        raise Interrupted(f"stopped and saved; go on with: caliper resume {shlex.quote(str(folder))}")
    if config.video.episodes:
        film(agent, config, folder)
    write_report(folder)
    print(f"run folder: {folder}\nreport: {folder / 'report.html'}", flush=True)
    return folder


def load_data(config: RunConfig) -> ReplayBuffer:
    """The dataset as pixels; collects it first if its file is absent, saying with which command."""
    path = Path(config.dataset_path())
    expected = dataset_meta(config)
    if not path.exists():
        if config.data.path is not None:
            raise CaliperError(f"the dataset {path} does not exist; leave data.path out to collect one")
        task, data = config.task, config.data
        print(
            f"no dataset at {path}; collecting it as by: caliper collect task={task.name} "
            f"data.episodes={data.episodes} data.seed={data.seed}"
        )
        collect(config, path)
    dataset = read_dataset(path)
    dataset.check(expected)
    env = make_env(config, min(32, dataset.num_frames))
    spec, frames = env.spec, dataset.num_frames
    size = ReplayBuffer.estimate(frames, spec, env.action_dim) / 2**20
    print(f"dataset: {path}: {len(dataset.episodes)} episodes, {dataset.num_transitions} transitions, {size:.0f} MiB")
    scale = config.reward
    reward = RewardConfig(scale.scale, scale.bias, scale.sparse, config.discount)
    buffer = ReplayBuffer(frames, spec, env.action_dim, reward, env.device)
    replay(env, dataset, buffer)
    return buffer


__all__ = ["Counters", "Interrupted", "load_data", "resume", "train"]
