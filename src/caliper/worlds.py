"""From a run's configuration to its worlds and datasets."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from caliper.config import RunConfig
from caliper.data.dataset import SCHEMA_VERSION, DatasetMeta
from caliper.envs.controller import action_dim
from caliper.envs.sim import SimEnv, task_scene

EVAL_SEEDS = 0  # evaluation episodes are numbered from here, collected ones from below, training ones from 2**40
COLLECT_SEEDS = 1 << 30


def make_env(config: RunConfig, num_envs: int, pixels: bool = True, seed: int | None = None) -> SimEnv:
    """The run's task in `num_envs` worlds; without pixels nothing is drawn."""
    task = config.task
    return SimEnv(
        task.name,
        num_envs,
        sim=config.sim.name,
        cameras=tuple(task.cameras) if pixels else (),
        size=task.size,
        controller=task.controller,
        control_freq=task.control_freq,
        horizon=task.horizon,
        device=config.sim.device,
        seed=config.seed if seed is None else seed,
        threads=config.threads,
    )


def dataset_meta(config: RunConfig) -> DatasetMeta:
    """What a dataset must say of itself to fit the run, and what a new one will say."""
    task = config.task
    scene = task_scene(task.name)
    return DatasetMeta(
        task=task.name,
        scene_hash=scene.hash,
        mujoco_version=version("mujoco"),
        controller=task.controller,
        control_freq=task.control_freq,
        action_dim=action_dim(task.controller),
        state_dim=1 + scene.model.nq + scene.model.nv,
        horizon=task.horizon,
        collector="scripted expert",
        seed=config.data.seed,
    )


def installed_meta(meta: DatasetMeta) -> DatasetMeta:
    """What a dataset made now, of the same task and control, would say of itself."""
    scene = task_scene(meta.task)
    return replace(
        meta,
        schema_version=SCHEMA_VERSION,
        scene_hash=scene.hash,
        mujoco_version=version("mujoco"),
        action_dim=action_dim(meta.controller),
        state_dim=1 + scene.model.nq + scene.model.nv,
    )


def run_folder(config: RunConfig) -> Path:
    """The folder of a new run."""
    if config.run_dir:
        return Path(config.run_dir)
    words = [config.task.name, config.agent["name"], config.encoder["name"], f"seed{config.seed}"]
    return Path("runs") / "_".join([*words, time.strftime("%Y%m%d-%H%M%S")])


def set_threads(config: RunConfig) -> None:
    """Gives torch the threads that the run may use."""
    if config.threads:
        torch.set_num_threads(config.threads)
