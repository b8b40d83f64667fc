"""The scene of an exported policy, from what its card says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from caliper.config.build import action_length, obs_spec
from caliper.config.cameras import as_list
from caliper.config.compose import compose
from caliper.config.schema import RunConfig
from caliper.config.validate import check_task
from caliper.envs.observation.lowdim import LENGTHS
from caliper.envs.robot.control import CONTROLLERS
from caliper.envs.scene.scenes import ROBOTS
from caliper.envs.sim import task_scene
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from caliper.policies.policy import Policy


def scene_config(policy: Policy, folder: Path, words: list[str]) -> RunConfig:
    """The configuration whose envs show a policy what it was trained on.

    Frames are not stacked: the policy keeps earlier ones by itself. The card is somebody's file, so every
    name in it must be one that is known here before it becomes a word of a command.

    Args:
        policy: the policy.
        folder: where it is from, for messages.
        words: further ones of a run, such as "sim=warp".

    Raises:
        CaliperError: the task, robot or controller is not one of Caliper's own, or the scene gives other
            observations than the policy takes.
    """
    card = policy.card
    told = [card.get("task"), card.get("robot"), card.get("controller")]
    ours: tuple[Collection[str], ...] = (TASKS, ROBOTS, CONTROLLERS)
    for name, known in zip(told, ours, strict=True):
        if not isinstance(name, str) or name not in known:
            raise CaliperError(f"{folder} is of {name!s:.60}, which has no scene here that could be shown")
    task, robot, controller = map(str, told)
    config = compose([*_words(card, task, robot, controller, folder), *words])
    check_task(config)
    gives, takes = obs_spec(config), policy.spec
    facts = [(s.cameras, s.sizes, s.proprio, s.depth, s.instances) for s in (gives, takes)]
    if facts[0] != facts[1] or action_length(config) != policy.action_dim:
        raise CaliperError(
            f"{folder} takes other observations or actions than {task} gives here; view the run it is from, "
            "or export it again"
        )
    return config


def _words(card: Mapping[str, Any], task: str, robot: str, controller: str, folder: Path) -> list[str]:
    seen = card["observation"]
    model = task_scene(task, robot).model
    names = {model.camera(i).name for i in range(model.ncam)}
    sizes = {camera["name"]: [camera["height"], camera["width"]] for camera in seen["cameras"]}
    if odd := sorted(sizes.keys() - names):
        raise CaliperError(f"{folder} sees by the camera {odd[0]:.60}, which {task} has not here")
    words = [f"task={task}", f"task.robot={robot}", f"task.controller={controller}"]
    for key in ("control_freq", "horizon"):
        if type(card.get(key)) is not int:
            raise CaliperError(f"the card of {folder} has no whole number {key}; export it again")
        words.append(f"task.{key}={card[key]}")
    keys = seen["proprio"].get("keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in LENGTHS for key in keys):
        raise CaliperError(f"the card of {folder} has proprio.keys that are unknown here; export it again")
    words.append(f"task.proprio=[{','.join(keys)}]")
    if not sizes:
        return [*words, "obs=state"]
    depth, segmentation = str(seen["depth"]).lower(), str(bool(seen["instances"])).lower()
    words += [f"task.cameras=[{','.join(as_list(sizes))}]"]
    return [*words, f"task.depth={depth}", f"task.segmentation={segmentation}"]
