"""`caliper convert`: a dataset file with its observations in the format of another library."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from caliper.config.build import make_env, set_up_torch
from caliper.data.dataset import Dataset, Episode
from caliper.data.formats.minari_writer import write_minari
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.observation.names import ROBOSUITE, check_names, named
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from caliper.rollout.replay import rendered
from caliper.tools.lerobot_writer import write_lerobot
from caliper.tools.replay import settings_of
from caliper.training.devices import choose_devices
from caliper.utils.files import new_folder
from caliper.utils.progress import bar

FORMATS = {"minari": "robomimic", "lerobot": "lerobot"}  # and whose names the observations have there


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CaliperError(
            f"{message}; write: caliper convert FILE OUT --to {'|'.join(FORMATS)} --cameras agentview"
        )


def convert(words: list[str]) -> Path:
    """Writes a dataset's states as images and the robot's own numbers, with its actions and rewards.

    Args:
        words: of a command line: the file, the new folder, --to and what is drawn.

    Returns:
        The folder.

    Raises:
        CaliperError: a word is unknown, the file is of another scene, or the folder is not empty.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("FILE", type=Path)
    parser.add_argument("OUT", type=Path)
    parser.add_argument("--to", required=True, choices=list(FORMATS))
    parser.add_argument("--cameras", nargs="+")
    parser.add_argument("--size")
    settings = [word for word in words[2:] if "=" in word and not word.startswith("-")]
    known = parser.parse_args([*words[:2], *(word for word in words[2:] if word not in settings)])
    if known.cameras:
        settings.append(f"task.cameras=[{','.join(known.cameras)}]")
    if known.size:
        settings.append(f"task.size={known.size}")
    if not any(word.startswith("task.proprio=") for word in settings):
        settings.append(f"task.proprio=[{','.join(ROBOSUITE)}]")
    dataset = read_dataset(known.FILE, rewards=None)
    config = settings_of(dataset, settings)
    names = FORMATS[known.to]
    with new_folder(known.OUT, "the dataset") as folder:
        config = choose_devices(config).applied(config)
        set_up_torch(config)
        env = make_env(config, min(config.data.num_envs, dataset.num_frames))
        check_names(names, env.spec, env.robot_parts)
        episodes = _observed(env, dataset, names)
        if known.to == "minari":
            write_minari(folder, dataset, episodes)
        else:
            write_lerobot(folder, dataset, _sentence(dataset.meta.task), episodes)
    print(f"{len(dataset.episodes)} episodes, {dataset.num_transitions} steps: {known.OUT}")
    return Path(known.OUT)


def _observed(env: SimEnv, dataset: Dataset, names: str) -> Iterator[tuple[Episode, dict[str, Any]]]:
    with bar(dataset.num_frames, "convert", "frame") as shown:
        for episode, obs in rendered(env, dataset):
            yield episode, named(names, env.spec, env.robot_parts, obs)
            shown.update(len(obs))


def _sentence(task: str) -> str:
    """What a task is, in its own class's words."""
    return (TASKS[task].__doc__ or task).strip().splitlines()[0]
