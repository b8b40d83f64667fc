"""What an exported policy says of itself: policy.json for programs, README.md for people."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from caliper.agents import Agent
from caliper.analysis.run_data import Evaluation, read_run
from caliper.config.build import action_length, obs_spec
from caliper.config.schema import RunConfig
from caliper.envs.action_meaning import action_meaning
from caliper.envs.proprio import FINGER_SCALE, GRIP_CENTRE, GRIP_SCALE, PROPRIO
from caliper.envs.sim import task_scene
from caliper.policies.policy import FORMAT

ROBOT = "Franka Panda with its two-finger gripper, as in robosuite"
PIXELS = (
    "uint8 (cameras, 3, height, width), RGB, origin at the top left; the network itself divides by 255 and "
    "subtracts 0.5"
)
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
        "task": task.name if task.env_id is None else task.env_id,
        "robot": ROBOT if task.env_id is None else task.env_id,
        "controller": task.controller,
        "control_freq": task.control_freq,
        "horizon": task.horizon,
        "observation": _observation(config),
        "action": _action(config) | {"length": action_length(config), "chunk": agent.config.chunk},
        # Whatever the training computed in: an exported policy computes in float32.
        "agent": dict(config.agent) | {"precision": "float32"},
        "encoder": dict(config.encoder),
        "data": {"path": _names(config), "content": config.data.content},
        "evaluations": [_numbers(evaluation) for evaluation in run.evaluations],
        "versions": {name: version(name) for name in PACKAGES},
        "commit": (run.git.get("caliper") or {}).get("commit"),
        "seed": config.seed,
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
        "robot": content["robot"],
        "controller": f"{content['controller']}, {content['control_freq']} actions per second",
        "episode": f"at most {content['horizon']} actions",
        "algorithm": f"{content['agent']['name']} with the encoder {content['encoder']['name']}",
        "success": _success(content["evaluations"]),
        "data": f"{', '.join(content['data']['path'])} (SHA-256 {content['data']['content']})",
        "made with": ", ".join(f"{name} {number}" for name, number in content["versions"].items()),
    }
    lines = ["# A policy trained with Caliper", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "## What it sees", "", f"Images: {seen['pixels']}." if seen["cameras"] else "No images."]
    if seen["cameras"]:
        lines += ["", "| camera | pixels | mounted on | position, m | quaternion, w x y z | field of view |"]
        lines += ["|---|---|---|---|---|---|"]
        for camera in seen["cameras"]:
            position, quaternion = (_vector(camera[key]) for key in ("position", "quaternion"))
            lines += [
                f"| {camera['name']} | {seen['size']}x{seen['size']} | {camera['body']} | {position} "
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
    lines += [
        "",
        "Opening `weights.safetensors` or `policy.onnx` runs no code of this folder. `policy.pt2`, of "
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
    spec = obs_spec(config)
    entries = [f"0 to {spec.proprio - 1}: what {config.task.env_id} observes"]
    cameras: list[dict[str, Any]] = []
    if config.task.env_id is None:
        model = task_scene(config.task.name).model
        for name in spec.cameras:
            camera = model.camera(name)
            cameras += [
                {
                    "name": name,
                    "body": model.body(int(model.cam_bodyid[camera.id])).name,
                    "position": [round(float(x), 6) for x in camera.pos],
                    "quaternion": [round(float(x), 6) for x in camera.quat],
                    "fovy": float(model.cam_fovy[camera.id]),
                }
            ]
        centre = ", ".join(f"{x:g}" for x in GRIP_CENTRE)
        entries = [
            f"0 to 2: grip point in the world, metres, minus ({centre}), divided by {GRIP_SCALE:g}",
            "3 to 8: x and y axes of the gripper, columns of its rotation in the world",
            f"9 and 10: positions of the two fingers, metres, divided by {FINGER_SCALE:g}",
        ]
        if spec.proprio > PROPRIO:
            entries += [f"{PROPRIO} to {spec.proprio - 1}: poses of the bodies, see the task's page"]
    return {
        "cameras": cameras,
        "size": spec.size,
        "pixels": PIXELS,
        "proprio": {"length": spec.proprio, "entries": entries},
    }


def _action(config: RunConfig) -> dict[str, Any]:
    if config.task.env_id is not None:
        return {}
    return action_meaning(config.task.controller, config.task.control_freq)


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
