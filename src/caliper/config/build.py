"""From a run's configuration to its envs, datasets and seeds."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caliper.agents import Agent, build_agent
from caliper.config.cameras import camera_sizes
from caliper.config.devices import engine_device, learner_device
from caliper.config.schema import RunConfig
from caliper.data.dataset import SCHEMA_VERSION, DatasetMeta
from caliper.data.returns import RewardConfig
from caliper.encoders.pretrained import as_saved, frozen_backbone, keeps_features, length_of, see
from caliper.envs.base import VectorEnv
from caliper.envs.bridge import bridged
from caliper.envs.engines.room import room
from caliper.envs.gymnasium_env import GymnasiumEnv, dimensions
from caliper.envs.observation.features import Featured
from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import robot_dim
from caliper.envs.observation.proprio import bodies_dim
from caliper.envs.observation.stack import stacked
from caliper.envs.robosuite_env import Blueprint, RobosuiteEnv, blueprint
from caliper.envs.robot.action_meaning import action_json
from caliper.envs.robot.control import CONTROLLERS, action_dim
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.appearance import NAMED_APPEARANCES, AppearanceRanges, VisualAugmentation
from caliper.envs.scene.scenes import ROBOTS, Scene
from caliper.envs.sim import SimEnv, task_scene
from caliper.envs.tasks import TASKS, make_task
from caliper.errors import CaliperError
from caliper.types import ObsSpec

# Three ranges of episode seeds that never meet: evaluation counts from the first, collection from the second,
# and the envs of the online phase from 2**40 on (`SimEnv`).
EVAL_SEEDS = 0
COLLECT_SEEDS = 1 << 30
COLLECT_STRIDE = 1 << 20  # between the first seeds of two datasets


def make_env(
    config: RunConfig,
    num_envs: int,
    pixels: bool = True,
    horizon: int | None = None,
    start: str | None = None,
) -> SimEnv:
    """The run's task in `num_envs` envs, by default with its horizon and start; without pixels, blind.

    Tensors are where the engine is, see `make_envs`.

    Raises:
        CaliperError: the task is an environment of Gymnasium or of robosuite.
    """
    task = config.task
    if task.env is not None:
        raise CaliperError(no_expert(config))
    if task.env_id is not None:
        raise CaliperError(f"task={task.name} is {task.env_id} of Gymnasium, whose envs are made otherwise")
    return SimEnv(
        task.name,
        num_envs,
        sim=config.sim.name,
        cameras=cameras(config) if pixels else (),
        size=image_sizes(config) if pixels else task.size,
        controller=task.controller,
        control_freq=task.control_freq,
        horizon=horizon or task.horizon,
        device=engine_device(config),
        seed=config.seed,
        threads=config.threads,
        privileged=task.obs == "state",
        start=start or task.start,
        max_diverged=config.sim.max_diverged,
        robot=task.robot,
        depth=task.depth and pixels and task.obs == "pixels",
        segmentation=task.segmentation and pixels and task.obs == "pixels",
        proprio=tuple(task.proprio),
        draw_size=task.draw_size,
    )


def cameras(config: RunConfig) -> tuple[str, ...]:
    """The policy's cameras; none where it sees the state."""
    named = camera_sizes(config.task.cameras, config.task.size)
    return tuple(named) if config.task.obs == "pixels" else ()


def image_sizes(config: RunConfig) -> int | tuple[tuple[int, int], ...]:
    """Side of the policy's images, or height and width of each camera's, pixels."""
    if config.task.obs != "pixels" or not config.task.cameras:
        return config.task.size
    return tuple(camera_sizes(config.task.cameras, config.task.size).values())


def make_envs(
    config: RunConfig, num_envs: int, stagger: bool = False, horizon: int | None = None
) -> VectorEnv:
    """The run's envs with tensors on the learner's device, of Caliper's own task or one of Gymnasium's.

    Args:
        config: of the run.
        num_envs: envs.
        stagger: see `SimEnv`.
        horizon: of an environment of Gymnasium, where it is another than the task's.
    """
    task = config.task
    env: VectorEnv
    if task.env is not None:
        env = _robosuite(config, num_envs)
    elif task.env_id is not None:
        steps = horizon or task.horizon
        env = GymnasiumEnv(task.env_id, num_envs, task.kwargs, task.dense, steps, config.seed)
    else:
        env = own = make_env(config, num_envs)
        if stagger:
            own.stagger(config.chunk)
    return stacked(featured(bridged(env, learner_device(config)), config), task.frame_stack)


def featured(env: VectorEnv, config: RunConfig) -> VectorEnv:
    """The envs with features instead of images where the run keeps those; else themselves."""
    if not (keeps_features(config.encoder) and env.spec.cameras):
        return env
    backbone, planes = frozen_backbone(config.encoder, env.device), env.spec.planes
    return Featured(env, lambda obs: see(backbone, obs, planes), backbone.dim)


def no_expert(config: RunConfig) -> str:
    """Why nothing can be collected in a robosuite environment, and where data may come from."""
    return (
        f"task={config.task.name} is {config.task.env} of robosuite, which has no scripted expert to collect "
        "from; name recorded data with data.path=FILE, or train an agent that needs none: agent=sac"
    )


def _robosuite(config: RunConfig, num_envs: int) -> RobosuiteEnv:
    task = config.task
    return RobosuiteEnv(
        task.env or "",
        num_envs,
        task.actors,
        cameras(config),
        image_sizes(config),
        task.controller,
        task.control_freq,
        task.horizon,
        config.seed,
        config.threads,
        privileged=task.obs == "state",
        max_diverged=config.sim.max_diverged,
        depth=task.depth and task.obs == "pixels",
        segmentation=task.segmentation and task.obs == "pixels",
        proprio=task.proprio,
        kwargs=task.kwargs,
    )


def robosuite_plan(config: RunConfig) -> Blueprint:
    """What is the same in all envs of the run's robosuite environment."""
    task = config.task
    return blueprint(task.env or "", task.actors, task.controller, task.control_freq, task.kwargs)


def run_scene(config: RunConfig) -> Scene:
    """The scene of the run's task, of Caliper's own or of robosuite's."""
    if config.task.env is not None:
        return robosuite_plan(config).scene
    return task_scene(config.task.name, config.task.robot, config.task.draw_size)


def warp_memory(config: RunConfig) -> str:
    """How much memory the physics of a run's envs will take on MuJoCo Warp, in one line."""
    from caliper.envs.engines.memory import env_bytes  # MuJoCo Warp takes seconds to import

    model = run_scene(config).model
    held, besides = env_bytes(model, *room(model))
    counts = config.online.num_envs, config.evaluation.num_envs
    total = sum(counts) * held + max(counts) * besides
    return (
        f"physics: {counts[0]} envs online and {counts[1]} to evaluate, {held / 2**10:.0f} KiB each and "
        f"{besides / 2**10:.0f} KiB more while they step: {total / 2**20:.0f} MiB on {engine_device(config)}"
    )


def obs_spec(config: RunConfig) -> ObsSpec:
    """What the run's policy sees, without making its envs."""
    task = config.task
    if task.env_id is not None:
        return ObsSpec((), 1, dimensions(task.env_id, task.kwargs)[0], stack=task.frame_stack)
    model, sees = run_scene(config).model, task.obs == "pixels"
    if task.env is not None:
        plan = robosuite_plan(config)
        proprio = plan.length(plan.told(task.proprio, not sees))
    else:
        proprio = robot_dim(task.proprio, robot_facts(task.robot))
        proprio += bodies_dim(make_task(task.name), not sees)
    names = len(instances(model)[0]) if task.segmentation and sees else 0
    depth = task.depth and sees
    return ObsSpec(cameras(config), image_sizes(config), proprio, depth, names, task.frame_stack)


def learner_spec(config: RunConfig) -> ObsSpec:
    """What the run's buffers and networks get: what the policy sees, or a frozen encoder's features of it."""
    spec = obs_spec(config)
    if not (keeps_features(config.encoder) and spec.cameras):
        return spec
    return replace(spec, features=length_of(config.encoder))


def of_checkpoint(config: RunConfig) -> RunConfig:
    """The same where a checkpoint's weights follow: without the encoder's file, unless they lack those."""
    return replace(config, encoder=dict(as_saved(config.encoder)))


def action_length(config: RunConfig) -> int:
    """Entries of an action, without making an env."""
    if config.task.env is not None:
        return robosuite_plan(config).action_dim
    if config.task.env_id is not None:
        return dimensions(config.task.env_id, config.task.kwargs)[1]
    return action_dim(config.task.controller, config.task.robot)


def make_agent(config: RunConfig, device: torch.device | str, spec: ObsSpec | None = None) -> Agent:
    """The run's agent with its first weights.

    Args:
        config: of the run.
        device: where it lives.
        spec: what it gets, if not what the run's buffers hold.

    Raises:
        CaliperError: an unknown agent, encoder or key, or images that the encoder cannot take.
    """
    actions = action_length(config)
    return build_agent(
        config.agent, config.encoder, spec or learner_spec(config), actions, device, config.seed
    )


def reward_config(config: RunConfig) -> RewardConfig:
    """How the run's raw rewards become training rewards and returns."""
    scale = config.reward
    return RewardConfig(scale.scale, scale.bias, scale.sparse, gamma=config.discount)


def visual_augmentation(config: RunConfig) -> VisualAugmentation:
    """How often the dataset enters the offline buffer, and how the copies look."""
    data = config.data
    return VisualAugmentation(data.copies, AppearanceRanges(**asdict(data.appearance)), data.seed)


def appearances(config: RunConfig) -> dict[str, AppearanceRanges]:
    """How the scene looks in evaluations, by the names of `evaluation.appearance`.

    Raises:
        CaliperError: an unknown name, none, or one twice.
    """
    known = {**NAMED_APPEARANCES, "online": AppearanceRanges(**asdict(config.online.appearance))}
    names = config.evaluation.appearance
    for name in names:
        if name not in known:
            raise CaliperError(
                f"evaluation.appearance: there is no '{name}'; choose from: {', '.join(known)}"
            )
    if not names or len(set(names)) < len(names):
        raise CaliperError(f"evaluation.appearance={names} must name at least one, and each once")
    return {name: known[name] for name in names}


def eval_seeds(config: RunConfig, count: int) -> list[int]:
    """Seeds of the first `count` evaluation episodes: the same in every evaluation."""
    first = EVAL_SEEDS + config.evaluation.seed
    return list(range(first, first + count))


def collect_seeds(config: RunConfig) -> list[int]:
    """Seeds of the dataset's episodes."""
    first = COLLECT_SEEDS + config.data.seed * COLLECT_STRIDE
    return list(range(first, first + config.data.episodes))


def collect_knobs(config: RunConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Action noise and metres off the grasp point of each of the dataset's episodes, from `data.mixture`."""
    data, mixture = config.data, np.array(config.data.mixture)
    share = mixture[:, 0] / mixture[:, 0].sum()
    rows = np.random.default_rng(data.seed).choice(len(mixture), size=data.episodes, p=share)
    return mixture[rows, 1], mixture[rows, 2]


def dataset_meta(config: RunConfig) -> DatasetMeta:
    """What a dataset must say of itself to fit the run, and what a new one will say."""
    task = config.task
    if task.env is not None:
        plan = robosuite_plan(config)
        return DatasetMeta(
            task=f"{task.name}/{task.env}",
            scene_hash=plan.scene.hash,
            mujoco_version=version("mujoco"),
            robot=",".join(task.actors),
            controller=task.controller,
            control_freq=task.control_freq,
            action_dim=plan.action_dim,
            state_dim=plan.state_dim,
            horizon=config.recorded_horizon,
            collector="",
            seed=config.data.seed,
        )
    scene = run_scene(config)
    who = "scripted person" if config.data.operator == "person" else "scripted expert"
    return DatasetMeta(
        task=task.name,
        scene_hash=scene.hash,
        mujoco_version=version("mujoco"),
        robot=task.robot,
        draw_size=task.draw_size,
        controller=task.controller,
        control_freq=task.control_freq,
        action_dim=action_dim(task.controller, task.robot),
        state_dim=scene.state_dim,
        horizon=config.recorded_horizon,
        collector=who + (f" until {config.data.stage}" if config.data.stage else ""),
        seed=config.data.seed,
        action=action_json(task.controller, task.control_freq, task.robot),
    )


def task_words(meta: DatasetMeta) -> list[str]:
    """The words of a run in which a dataset was recorded: first its task, then who acted, and how."""
    name, _, env = meta.task.partition("/")
    who = [f"task.robot={meta.robot}", *(["task.draw_size=true"] * meta.draw_size)]
    if env:
        who = [f"task.env={env}", f"task.robots=[{meta.robot}]"]
    control = [f"task.controller={meta.controller}", f"task.control_freq={meta.control_freq}"]
    return [f"task={name}", *who, *control]


def installed(meta: DatasetMeta) -> tuple[DatasetMeta, Any] | None:
    """What a dataset made now, of the same task and control, would say of itself; and its scene's MjModel.

    None where no such task, robot or controller is installed.
    """
    if meta.task not in TASKS or meta.robot not in ROBOTS or meta.controller not in CONTROLLERS:
        return None
    if meta.draw_size and TASKS[meta.task].sizes is None:
        return None
    scene = task_scene(meta.task, meta.robot, meta.draw_size)
    now = replace(
        meta,
        schema_version=SCHEMA_VERSION,
        scene_hash=scene.hash,
        mujoco_version=version("mujoco"),
        action_dim=action_dim(meta.controller, meta.robot),
        state_dim=scene.state_dim,
        action=action_json(meta.controller, meta.control_freq, meta.robot),
    )
    return now, scene.model


def run_folder(config: RunConfig) -> Path:
    """The folder of a new run."""
    if config.run_dir:
        return Path(config.run_dir)
    method = config.method or config.agent["name"]
    words = [config.task.name, method, config.encoder["name"], f"seed{config.seed}"]
    return Path("runs") / "_".join([*words, time.strftime("%Y%m%d-%H%M%S")])


def set_up_torch(config: RunConfig) -> None:
    """Gives torch the threads and the GPU that the run may use.

    There it multiplies as the run says, and measures which convolutions are fastest. A CPU takes numbers
    below 1e-38 for zero: the conservative term's gradients hold many, and it is far slower with them.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    device = torch.device(learner_device(config))
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.benchmark = device.type == "cuda"
    if device.index is not None:
        torch.cuda.set_device(device)  # what is recorded is recorded on torch's current one
