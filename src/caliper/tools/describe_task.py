"""`caliper tasks NAME`: what a task is, what its policy sees, and what its actions mean."""

from __future__ import annotations

from importlib.metadata import version

from caliper.config.build import action_length, obs_spec, robosuite_plan, run_scene
from caliper.config.compose import compose
from caliper.config.schema import RunConfig
from caliper.config.validate import check_task
from caliper.envs.observation.instances import instances
from caliper.envs.robot.action_meaning import action_table
from caliper.envs.tasks import TASKS
from caliper.types import ObsSpec


def describe_task(words: list[str]) -> str:
    """Describes a task in lines of text.

    Args:
        words: of the command line: the task's name, and other settings of it, such as task.control_freq=20.

    Raises:
        CaliperError: no such task, or a setting that will not do.
    """
    config = compose([f"task={words[0]}", *words[1:]])
    check_task(config)
    if config.task.env is not None:
        rows = _robosuite(config)
    else:
        rows = _gymnasium(config) if config.task.env_id is not None else _own(config)
    lines = [words[0]]
    for name, value in rows:
        first, *more = value.splitlines()
        lines += [f"  {name:<14}{first}", *(f"  {'':<14}{line}" for line in more)]
    return "\n".join(lines)


def _own(config: RunConfig) -> list[tuple[str, str]]:
    cfg, task, scene = config.task, TASKS[config.task.name], run_scene(config)
    model, spec = scene.model, obs_spec(config)
    cameras = [model.camera(i).name for i in range(model.ncam)]
    return [
        ("task", (task.__doc__ or "").splitlines()[0]),
        ("scene", f"{scene.hash}, MuJoCo {version('mujoco')}"),
        ("robot", cfg.robot),
        ("object", task.object_body),
        *([("starts", ", ".join(task.starts))] if task.starts else []),
        *([("stages", ", ".join(task.stages))] if task.stages else []),
        ("reward", "1 on the step that solves it, 0 before; the episode ends there"),
        ("horizon", f"{cfg.horizon} control steps"),
        ("state", f"{scene.state_dim} numbers: time, {model.nq} positions, {model.nv} velocities"
          + (f", {model.nmocap} x position and quaternion of a fixture" if model.nmocap else "")),
        ("policy sees", _seen(spec)),
        ("instances", ", ".join(instances(model)[0])),
        ("cameras", ", ".join(cameras)),
        ("controller", f"{cfg.controller}, {cfg.control_freq} Hz; physics {1 / model.opt.timestep:g} Hz"),
        ("action", action_table(cfg.controller, cfg.control_freq, cfg.robot)),
    ]  # fmt: skip


def _seen(spec: ObsSpec) -> str:
    """What an observation holds."""
    names: dict[tuple[int, int], list[str]] = {}
    for camera, size in zip(spec.cameras, spec.sizes, strict=True):
        names.setdefault(size, []).append(camera)
    images = [f"{', '.join(cameras)} at {h}x{w} pixels" for (h, w), cameras in names.items()] or ["no camera"]
    kinds = ["depth"] * spec.depth + ["instances"] * (spec.instances > 0)
    shown = " and ".join(images) + (f" with {' and '.join(kinds)}" if kinds else "")
    return f"{shown}, and {spec.proprio} numbers" + (f", {spec.stack} frames" if spec.stack > 1 else "")


def _robosuite(config: RunConfig) -> list[tuple[str, str]]:
    cfg, plan = config.task, robosuite_plan(config)
    model = plan.scene.model
    return [
        ("environment", f"{cfg.env} of robosuite with {', '.join(cfg.actors)}, stepped by robosuite"),
        ("scene", f"{plan.scene.hash}, MuJoCo {version('mujoco')}"),
        ("horizon", f"{cfg.horizon} control steps"),
        ("state", f"{plan.state_dim} numbers"),
        ("policy sees", _seen(obs_spec(config))),
        ("observations", ", ".join(f"{name} ({n})" for name, n in plan.observables.items())),
        ("instances", ", ".join(instances(model)[0])),
        ("cameras", ", ".join(model.camera(i).name for i in range(model.ncam))),
        (
            "action",
            f"{plan.action_dim} numbers in [-1, 1]: {cfg.controller} and gripper, robot by robot",
        ),
    ]


def _gymnasium(config: RunConfig) -> list[tuple[str, str]]:
    return [
        ("environment", f"{config.task.env_id} of Gymnasium"),
        ("horizon", f"{config.task.horizon} control steps"),
        ("policy sees", f"{obs_spec(config).proprio} numbers"),
        ("action", f"{action_length(config)} numbers in [-1, 1], whose meaning is the environment's"),
    ]
