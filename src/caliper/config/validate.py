"""Refuses a configuration that cannot work, in one sentence, before any work is done on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.util import find_spec

from caliper.agents import AGENTS
from caliper.config.build import (
    COLLECT_SEEDS,
    COLLECT_STRIDE,
    appearances,
    make_agent,
    obs_spec,
    reward_config,
    run_scene,
)
from caliper.config.cameras import camera_sizes
from caliper.config.devices import check_engine_device, check_learner_device
from caliper.config.estimate import check_storage, refuse_too_large, refuse_too_many_envs
from caliper.config.schema import RunConfig
from caliper.encoders import ENCODERS
from caliper.encoders.pretrained import frozen_backbone, keeps_features
from caliper.envs.gymnasium_env import camera_names
from caliper.envs.robot.control import action_dim
from caliper.envs.tasks import TASKS
from caliper.envs.tasks.base import choose
from caliper.errors import CaliperError, one_of
from caliper.limits import check_limits, check_types

# Kinds of data that can be collected, by what the environment's name begins with.
KINDS = {"FrankaKitchen": ("complete", "partial", "mixed"), "AntMaze": ("fixed", "diverse")}


def check(config: RunConfig) -> None:
    """Everything that can be told of a run from its configuration.

    Raises:
        CaliperError: naming the key, its value and the fix.
    """
    check_task(config)
    if config.online.capacity < config.task.horizon + 1:
        raise CaliperError(
            f"online.capacity={config.online.capacity} frames hold no episode of task.horizon="
            f"{config.task.horizon} steps; make room for hundreds of episodes, at least for one"
        )
    if config.method == "cog" and config.prior is None:
        raise CaliperError(
            "agent=cog stitches prior data to the task's, and there is none; take preset=cog, or name a "
            "file with data.prior.path"
        )
    if (config.data.copies > 1) != any(asdict(config.data.appearance).values()):
        raise CaliperError(
            f"data.copies={config.data.copies} and data.appearance belong together: copies without "
            "ranges are all equal, and the first copy stays as it is; try data.copies=2 "
            "data.appearance.light=0.2"
        )
    if config.task.obs == "state" and (config.task.depth or config.task.segmentation):
        raise CaliperError("task.depth and task.segmentation are images, which task.obs=state leaves out")
    own = config.parts.encoder is not None
    if config.task.obs == "state" and config.encoder.get("name") != "state" and not own:
        raise CaliperError(
            f"task.obs=state leaves no images for encoder={config.encoder.get('name')}; say obs=state, "
            "which chooses both"
        )
    _check_appearances(config)
    if config.log.tensorboard and find_spec("tensorboard") is None:
        raise CaliperError(
            "log.tensorboard=true needs the package tensorboard; install: "
            "pip install 'caliper-rl[tensorboard]', or leave it out"
        )
    check_learner_device(config)
    agent = config.agent.get("name")
    if agent in AGENTS and config.offline.bc_updates and not AGENTS[agent][0].has_actor:
        raise CaliperError(
            f"offline.bc_updates={config.offline.bc_updates}, but the agent {agent} has no actor "
            "to clone; set offline.bc_updates=0"
        )
    if config.agent.get("gripper_switch") and (config.task.env_id is not None or len(config.task.actors) > 1):
        raise CaliperError(
            "agent.gripper_switch=true is for actions whose last entry is the one gripper's, which this task "
            "does not have"
        )
    if config.chunk > config.task.horizon:
        raise CaliperError(
            f"agent.chunk={config.chunk} is longer than an episode; it must be at most task.horizon="
            f"{config.task.horizon}"
        )
    if keeps_features(config.encoder):
        frozen_backbone(config.encoder, "cpu")  # which the agent, that gets features, does not make
    reward_config(config)
    check_storage(config)
    refuse_too_large(config)
    make_agent(config, "cpu")


def _check_appearances(config: RunConfig) -> None:
    """Appearances need images, and light."""
    named = appearances(config)
    for key, ranges in (("data", config.data.appearance), ("online", config.online.appearance)):
        if ranges.light + ranges.dim >= 1:
            raise CaliperError(
                f"{key}.appearance.light={ranges.light} and dim={ranges.dim} would leave no light; their sum "
                "must stay below 1"
            )
    varied = any(asdict(config.online.appearance).values()) or list(named) != ["as_is"]
    if varied and (config.task.obs == "state" or config.task.env_id is not None):
        raise CaliperError(
            "online.appearance and evaluation.appearance change images, and this policy sees none; leave "
            "them as they are"
        )


def check_task(config: RunConfig) -> None:
    """The part of `check` that collecting data needs: values, engine, scene and seeds, not the policy.

    Raises:
        CaliperError: naming the key, its value and the fix.
    """
    _check_limits(config)
    _check_parts(config)
    refuse_too_many_envs(config)
    check_engine_device(config)
    _check_unused(config)
    if config.task.env is not None:
        _check_robosuite(config)
    elif config.task.env_id is None:
        action_dim(config.task.controller, config.task.robot)
        _check_cameras(config)
        _check_ways(config)
    else:
        _check_gymnasium(config)
    names = config.data.path if isinstance(config.data.path, list) else [config.data.path or ""]
    if not names or not all(isinstance(name, str) for name in names):
        raise CaliperError(
            f"data.path={config.data.path} must be a file, or several as data.path=[a.hdf5,b.hdf5]"
        )
    _check_mixture("data.mixture", config.data.mixture)
    if config.data.prior.mixture is not None:
        _check_mixture("data.prior.mixture", config.data.prior.mixture)
    _check_seeds(config)


def _check_parts(config: RunConfig) -> None:
    """Types of the agent's and the encoder's keys, which the schema does not know."""
    if (agent := config.agent.get("name")) in AGENTS:
        check_types("agent", config.agent, AGENTS[agent][1])
    if (encoder := config.encoder.get("name")) in ENCODERS:
        check_types("encoder", config.encoder, ENCODERS[encoder])


def _check_unused(config: RunConfig) -> None:
    """Refuses keys that a task of this kind never looks at: a run would claim what it has not done."""
    task = config.task
    unused: tuple[str, ...]
    if task.env_id is not None:
        what, unused = task.env_id, ("robots", "start", "draw_size")
    elif task.env is not None:
        what, unused = f"{task.env} of robosuite", ("successes_only", "draw_size")
    else:
        what, unused = f"task '{task.name}'", ("kwargs", "robots", "dense", "successes_only")
    if given := [key for key in unused if getattr(task, key)]:
        raise CaliperError(f"task.{given[0]}={getattr(task, given[0])} has no effect on {what}; leave it out")
    kinds = next((kinds for name, kinds in KINDS.items() if (task.env_id or "").startswith(name)), ())
    if (kind := config.data.kind) is not None and kind not in kinds:
        fix = f"try {' or '.join(kinds)}" if kinds else "leave it out"
        raise CaliperError(f"data.kind={kind} is no kind of data of task '{task.name}'; {fix}")


def _check_limits(config: RunConfig) -> None:
    """Holds every number to the limits that its section says, and to being finite."""
    parts = {"": config, "data.appearance": config.data.appearance, "data.prior": config.data.prior}
    parts |= {"online.appearance": config.online.appearance}
    parts |= {f.name: part for f in fields(config) if is_dataclass(part := getattr(config, f.name))}
    for path, part in parts.items():
        check_limits(type(part), vars(part), path)


def _check_cameras(config: RunConfig) -> None:
    model = run_scene(config).model
    known = [model.camera(i).name for i in range(model.ncam)]
    named = camera_sizes(config.task.cameras, config.task.size)
    wanted = {"task.cameras": list(named), "video.camera": [config.video.camera]}
    for key, names in wanted.items():
        for name in names:
            if name not in known:
                raise CaliperError(f"{key}: there is no camera '{name}'; {one_of(known, name)}")
    substeps = 1 / model.opt.timestep / config.task.control_freq
    if abs(substeps - round(substeps)) > 1e-6:
        raise CaliperError(
            f"task.control_freq={config.task.control_freq} does not divide the physics' "
            f"{1 / model.opt.timestep:.0f} Hz; try 20 or 10"
        )


def _check_robosuite(config: RunConfig) -> None:
    task = config.task
    if task.env_id is not None:
        raise CaliperError(f"task.env={task.env} and task.env_id={task.env_id}: choose one library's")
    if task.dense or task.start is not None:
        raise CaliperError(f"task.dense and task.start are not for {task.env} of robosuite; leave them out")
    obs_spec(config)
    _check_cameras(config)


def _check_gymnasium(config: RunConfig) -> None:
    task = config.task
    if config.data.copies > 1:
        raise CaliperError(
            f"data.copies={config.data.copies} is for images, and {task.env_id} has none; leave it at 1"
        )
    if config.prior is not None:
        raise CaliperError(f"data.prior is for Caliper's own tasks, and {task.env_id} is none; leave it out")
    if config.data.operator != "script":
        raise CaliperError(
            f"data.operator is for Caliper's own tasks, and {task.env_id} is none; leave it out"
        )
    known = camera_names(task.env_id or "", task.kwargs)
    if config.video.episodes and config.video.camera not in known:
        raise CaliperError(
            f"video.camera: there is no camera '{config.video.camera}'; {one_of(known, config.video.camera)}"
        )


def _check_mixture(key: str, mixture: Sequence[Sequence[float]]) -> None:
    rows_fit = all(len(row) == 3 and min(row) >= 0 and max(row) <= 1000 for row in mixture)
    if not (rows_fit and sum(row[0] for row in mixture) > 0):
        raise CaliperError(
            f"{key}={mixture} must be rows of [weight, action noise, metres off the grasp point], "
            "none negative or above 1000 and not all weights zero, such as [[1.0,0.3,0.0]]"
        )


def _check_ways(config: RunConfig) -> None:
    """Holds starts and stages to those of the task."""
    task, data, prior = TASKS[config.task.name], config.data, config.data.prior
    starts = {"task.start": config.task.start, "data.start": data.start, "data.prior.start": prior.start}
    stages = {"data.stage": data.stage, "data.prior.stage": prior.stage}
    for what, ways, known in (("start", starts, task.starts), ("stage", stages, task.stages)):
        for key, value in ways.items():
            if value is not None and value not in known:
                raise CaliperError(
                    f"{key}={value}: task '{task.name}' has no such {what}; {choose(what, known)}"
                )


def _check_seeds(config: RunConfig) -> None:
    """Keeps the three ranges of episode seeds apart, and the seeds of appearances."""
    longest = max(config.evaluation.episodes, config.evaluation.final_episodes)
    ranges = {
        "data.episodes": (config.data.episodes, COLLECT_STRIDE),
        "data.copies": (config.data.copies, 1 << 12),
        "data.seed": (config.data.seed, COLLECT_STRIDE // 2),
        "data.prior.episodes": (config.data.prior.episodes, COLLECT_STRIDE),
        "data.prior.seed": (config.data.prior.seed, COLLECT_STRIDE // 2),
        "evaluation.seed": (config.evaluation.seed + longest, COLLECT_SEEDS),
        "seed": (config.seed, 1 << 20),
    }
    for key, (value, limit) in ranges.items():
        if value >= limit:
            raise CaliperError(f"{key} is too large ({value}); it must stay below {limit}")
