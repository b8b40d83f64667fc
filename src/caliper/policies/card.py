"""What an exported policy says of itself: policy.json for programs, README.md for people."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from caliper.agents import Agent
from caliper.analysis.run_data import Evaluation, read_run
from caliper.config.build import action_length, obs_spec, robosuite_plan, run_scene
from caliper.config.schema import RunConfig
from caliper.encoders.pretrained import NAME as PRETRAINED
from caliper.encoders.weights import RANDOM
from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import LENGTHS, STANDARD
from caliper.envs.observation.proprio import GRIP_CENTRE, GRIP_SCALE, PROPRIO
from caliper.envs.robot.action_meaning import action_meaning, robosuite_meaning
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.scenes import ROBOTS
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.parts import KINDS, find
from caliper.policies.opening import FORMAT
from caliper.utils.foreign import ForeignFileError, read_json

PIXELS = (
    "uint8 (3, height, width), RGB, origin at the top left; the network itself divides by 255 and "
    "subtracts 0.5"
)
DEPTH = "float16 (1, height, width), metres along the camera's axis, 0 where nothing is"
SEGMENTATION = "uint8 (1, height, width), the number of the instance, from 1; 0 where there is none"
# What robosuite's numbers are; in the order of the robot's joints, or of the gripper's.
MEANINGS = {
    "robot0_joint_pos": "angles of the arm's joints, radians: {joints}",
    "robot0_joint_pos_cos": "cosines of the angles of the arm's joints: {joints}",
    "robot0_joint_pos_sin": "sines of the angles of the arm's joints: {joints}",
    "robot0_joint_vel": "speeds of the arm's joints, radians per second: {joints}",
    "robot0_eef_pos": "grip point in the world, metres",
    "robot0_eef_quat": "rotation of the hand's body in the world, x y z w, x not negative",
    "robot0_gripper_qpos": "positions of the gripper's joints, metres or radians: {fingers}",
    "robot0_gripper_qvel": "speeds of the gripper's joints, the same per second: {fingers}",
}
PACKAGES = ("caliper-rl", "torch", "mujoco", "numpy", "safetensors")
NUMBERS = ("phase", "env_steps", "updates", "success_once", "interval", "episodes")


def card(config: RunConfig, agent: Agent, folder: Path) -> dict[str, Any]:
    """The contents of policy.json, without what is known of the files.

    Args:
        config: of the run.
        agent: its policy.
        folder: of the run, for its evaluations.
    """
    task, run = config.task, read_run(folder)
    return {
        "format": FORMAT,
        "task": _task(config),
        "robot": ",".join(task.actors) if task.env_id is None else task.env_id,
        "task_code": task.code_sha256,  # of a task of one's own
        "controller": task.controller,
        "control_freq": task.control_freq,
        "horizon": task.horizon,
        "observation": _observation(config),
        "action": _action(config) | {"length": action_length(config), "chunk": agent.config.chunk},
        # Whatever the training computed in: an exported policy computes in float32.
        "agent": dict(config.agent) | {"precision": "float32"},
        "encoder": dict(config.encoder) | _with_its_weights(config),
        "pretrained": _published(folder),
        "parts": _parts(config),
        "data": {"path": _names(config), "content": config.data.content},
        "evaluations": [_numbers(evaluation) for evaluation in run.evaluations],
        "versions": {name: version(name) for name in PACKAGES},
        "commit": (run.git.get("caliper") or {}).get("commit"),
        "seed": config.seed,
    }


def _with_its_weights(config: RunConfig) -> dict[str, str | None]:
    """A policy's own file holds what came from another: the network is built without that one."""
    return {"weights": RANDOM, "sha256": None} if config.encoder["name"] == PRETRAINED else {}


def _published(folder: Path) -> dict[str, Any] | None:
    """Where the weights come from that the encoder began with, and under which licence."""
    path = folder / "pretrained.json"
    if not path.exists():
        return None
    try:
        told = read_json(path)
    except ForeignFileError as error:
        raise CaliperError(
            f"{path} {error}; restore it, for it says whose weights the policy began with"
        ) from error
    return {key: told.get(key) for key in ("arch", "weights_sha256", "source", "licence")}


def _parts(config: RunConfig) -> dict[str, Any]:
    """Encoder and agent from outside: name, SHA-256 of the code, and whether an installed package has it."""
    return {
        kind: {
            "name": getattr(config, kind)["name"],
            "sha256": getattr(config.parts, f"{kind}_sha256"),
            "installed": find(kind, word).entry is not None,
        }
        for kind in KINDS
        if (word := getattr(config.parts, kind)) is not None
    }


def readme(content: dict[str, Any], pictures: dict[str, str]) -> str:
    """The card as Markdown.

    Args:
        content: of policy.json.
        pictures: file by title, such as the film, beside the card.
    """
    seen, action = content["observation"], content["action"]
    rows = {
        "task": content["task"],
        "robot": _robot(content["robot"]),
        "controller": f"{content['controller']}, {content['control_freq']} actions per second",
        "episode": f"at most {content['horizon']} actions",
        "algorithm": f"{content['agent']['name']} with the encoder {content['encoder']['name']}",
        "success": _success(content["evaluations"]),
        "data": f"{', '.join(content['data']['path'])} (SHA-256 {content['data']['content']})",
        "made with": ", ".join(f"{name} {number}" for name, number in content["versions"].items()),
    }
    if began := content["pretrained"]:
        rows["encoder began with"] = (
            f"{began['arch']}, {began['source']}; licence: {began['licence']} (SHA-256 "
            f"{began['weights_sha256']})"
        )
    lines = ["# A policy trained with Caliper", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "## What it sees", ""]
    if seen["frames"] > 1:
        lines += [f"The newest {seen['frames']} frames; it keeps the earlier ones itself.", ""]
    lines += [f"Images: {seen['pixels']}." if seen["cameras"] else "No images."]
    if seen["depth"]:
        lines += ["", f"Depth: {DEPTH}."]
    if seen["instances"]:
        numbers = ", ".join(f"{i} {name}" for i, name in enumerate(seen["instances"], 1))
        lines += ["", f"Segmentation: {SEGMENTATION}. {numbers}."]
    if seen["cameras"]:
        lines += ["", "| camera | height x width | mounted on | position, m | quaternion, w x y z | view |"]
        lines += ["|---|---|---|---|---|---|"]
        for camera in seen["cameras"]:
            position, quaternion = (_vector(camera[key]) for key in ("position", "quaternion"))
            lines += [
                f"| {camera['name']} | {camera['height']}x{camera['width']} | {camera['body']} | {position} "
                f"| {quaternion} | {camera['fovy']:g} degrees, vertical |"
            ]
    lines += ["", f"Proprioception: float32 ({seen['proprio']['length']},)."]
    lines += [f"- {entry}" for entry in seen["proprio"]["entries"]]
    lines += ["", "## What its actions mean", ""]
    lines += [f"Float32 ({action['length']},) in [-1, 1]; it decides {action['chunk']} at a time."]
    for entry in action.get("entries", ()):
        lines += [f"- `{entry['name']}`: 1 = {entry['one']}; {entry['meaning']}"]
    if "frame" in action:
        lines += ["", f"Frame: {action['frame']}. Relative to: {action['relative_to']}."]
    lines += ["", "## How to use it", "", "```python", "import caliper", ""]
    lines += ['policy = caliper.load_policy(".")', "action = policy.act(images, proprio)", "```", ""]
    lines += ["| file | largest difference of an action from the run's policy |", "|---|---|"]
    for name, form in content["formats"].items():
        lines += [f"| {name} | {form['difference']:.2g} |"]
    for kind, part in content["parts"].items():
        where = "an installed package" if part["installed"] else f"`{kind}.py`"
        lines += ["", f"The {kind} `{part['name']}` is its author's own code, from {where}: to open"]
        lines[-1] += " `weights.safetensors` runs it, and needs `trusted=True` where it was never run before."
    lines += [
        "",
        f"Opening {'' if content['parts'] else '`weights.safetensors` or '}`policy.onnx` runs no "
        "code of this folder. `policy.pt2`, of "
        "`torch.export`, can: open it only if you trust whoever made it.",
    ]
    for title, name in pictures.items():
        lines += [
            "",
            f"## {title}",
            "",
            f"![{title}]({name})" if name.endswith("png") else f"[{name}]({name})",
        ]
    return "\n".join(lines) + "\n"


def _observation(config: RunConfig) -> dict[str, Any]:
    spec, task = obs_spec(config), config.task
    cameras: list[dict[str, Any]] = []
    told: tuple[str, ...] = ()
    if task.env_id is None:
        model = run_scene(config).model
        told = instances(model)[0] if spec.instances else ()
        for name, (height, width) in zip(spec.cameras, spec.sizes, strict=True):
            camera = model.camera(name)
            cameras += [
                {
                    "name": name,
                    "height": height,
                    "width": width,
                    "body": model.body(int(model.cam_bodyid[camera.id])).name,
                    "position": [round(float(x), 6) for x in camera.pos],
                    "quaternion": [round(float(x), 6) for x in camera.quat],
                    "fovy": float(model.cam_fovy[camera.id]),
                }
            ]
    return {
        "cameras": cameras,
        "pixels": PIXELS,
        "depth": spec.depth,
        "instances": list(told),
        "frames": spec.stack,
        "proprio": {
            "keys": list(task.proprio) if task.env_id is None else [],
            "length": spec.proprio,
            "entries": _entries(config, spec.proprio),
        },
    }


def _entries(config: RunConfig, length: int) -> list[str]:
    """What the numbers of the proprioception are, a line for each kind."""
    task = config.task
    if task.env_id is not None:
        return [f"{_to(0, length)}: what {task.env_id} observes"]
    at, lines = 0, []
    if task.env is not None:
        plan = robosuite_plan(config)
        for key in plan.told(task.proprio, task.obs == "state"):
            lines += [f"{_to(at, plan.observables[key])}: {key}, as robosuite observes it"]
            at += plan.observables[key]
        return lines
    robot = robot_facts(task.robot)
    for key in task.proprio:
        count = LENGTHS[key](robot)
        if key == STANDARD:
            lines += _standard(task.name, task.robot, at)
        else:
            names = {"joints": ", ".join(robot.joints), "fingers": ", ".join(robot.fingers)}
            lines += [f"{_to(at, count)}: {key}, {MEANINGS[key].format(**names)}"]
        at += count
    if length > at:
        lines += [f"{_to(at, length - at)}: poses of the bodies, see the task's page"]
    return lines


def _standard(task: str, robot: str, at: int) -> list[str]:
    model, fingers = task_scene(task, robot).model, robot_facts(robot).fingers
    halves = ", ".join(f"{name} by {float(np.ptp(model.joint(name).range)) / 2:g}" for name in fingers)
    centre = ", ".join(f"{x:g}" for x in GRIP_CENTRE)
    return [
        f"{_to(at, 3)}: grip point in the world, metres, minus ({centre}), divided by {GRIP_SCALE:g}",
        f"{_to(at + 3, PROPRIO - 3)}: x and y axes of the gripper, columns of its rotation in the world",
        f"{_to(at + PROPRIO, len(fingers))}: positions of the gripper's joints, metres or radians, over "
        f"half their ranges: {halves}",
    ]


def _to(first: int, count: int) -> str:
    return f"{first}" if count == 1 else f"{first} to {first + count - 1}"


def _task(config: RunConfig) -> str:
    """As a dataset says it: an environment of another library by that one's own name."""
    task = config.task
    return task.env_id or (task.name if task.env is None else f"{task.name}/{task.env}")


def _robot(name: str) -> str:
    if not all(one in ROBOTS for one in name.split(",")):
        return name
    each = " and ".join(ROBOTS[one] for one in name.split(","))
    return f"{each} with {'their usual grippers' if ',' in name else 'its usual gripper'}, as in robosuite"


def _action(config: RunConfig) -> dict[str, Any]:
    task = config.task
    if task.env_id is not None:
        return {}
    if task.env is not None:
        return robosuite_meaning(task.controller, task.control_freq, task.actors)
    return action_meaning(task.controller, task.control_freq, task.robot)


def _names(config: RunConfig) -> list[str]:
    """The datasets' file names; where they were on a machine is nobody else's business."""
    return [Path(path).name for path in config.dataset_paths()]


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in NUMBERS}


def _success(evaluations: list[dict[str, Any]]) -> str:
    if not evaluations:
        return "not evaluated"
    last = evaluations[-1]
    low, high = last["interval"]
    return (
        f"{last['success_once']:.0%} of {last['episodes']} episodes (95 % interval {low:.0%} to {high:.0%}), "
        f"after {last['updates']} updates and {last['env_steps']} environment steps"
    )


def _vector(values: list[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
