"""`caliper replay`: the states of a dataset file as observations, in a file that robomimic reads too."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

from caliper.config.build import (
    dataset_meta,
    make_envs,
    obs_spec,
    run_scene,
    set_up_torch,
    task_words,
    visual_augmentation,
)
from caliper.config.compose import compose
from caliper.config.schema import RunConfig
from caliper.config.validate import check_task
from caliper.data.dataset import Dataset
from caliper.data.formats.images import add_images, refuse_images
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.base import VectorEnv
from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import STANDARD
from caliper.envs.observation.names import ROBOSUITE, Named, named, robot_parts
from caliper.envs.scene.appearance import VisualAugmentation
from caliper.errors import CaliperError
from caliper.rollout.replay import rendered, state_fault
from caliper.training.devices import choose_devices
from caliper.types import ObsSpec
from caliper.utils.files import refuse_existing, replacing
from caliper.utils.progress import bar


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CaliperError(f"{message}; write: caliper replay FILE --cameras agentview --size 84 --out NEW")


def parse(words: list[str]) -> tuple[Path, Path | None, list[str]]:
    """The arguments of `replay_file` from a command line, whose options stand for settings of the task.

    Raises:
        CaliperError: the file is not named first, or an option is unknown or incomplete.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("FILE", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cameras", nargs="+")
    parser.add_argument("--size")
    settings = [word for word in words[1:] if "=" in word and not word.startswith("-")]
    known = parser.parse_args(words[:1] + [word for word in words[1:] if word not in settings])
    if known.cameras:
        settings.append(f"task.cameras=[{','.join(known.cameras)}]")
    if known.size:
        settings.append(f"task.size={known.size}")
    return known.FILE, known.out, settings


def replay_file(source: Path, out: Path | None, words: list[str], overwrite: bool = False) -> Path:
    """Renders every state of a dataset file, without physics, into a copy of it with observations.

    They are images and the robot's own state by robosuite's names; with `task.obs=state` the bodies' poses
    are in the place of images.

    With ranges under `data.appearance` each episode has an appearance of its own, drawn from `data.seed`:
    that of its copy 1 in a run (see `caliper.rollout.replay.VisualAugmentation`).

    Args:
        source: the file; it says which task and control it belongs to.
        out: the file to make; None puts the size behind the source's name.
        words: settings of a run; `task.cameras` and `task.size` say what is drawn, `data.num_envs` how many
            envs draw at a time.
        overwrite: whether an earlier file of that name may be replaced, by a whole new one only.

    Returns:
        The file made.

    Raises:
        CaliperError: the source is of another scene or already holds such images, a setting will not do,
            or the disk has no room.
    """
    dataset = read_dataset(source, rewards=None)
    config = _in_their_numbers(settings_of(dataset, words))
    spec = obs_spec(config).single
    if out is None:
        sizes = dict.fromkeys(f"{h}" if h == w else f"{h}x{w}" for h, w in spec.sizes)
        kind = f"{'_'.join(sizes)}px" if spec.cameras else "state"
        out = source.with_name(f"{source.stem}_{kind}.hdf5")
    if out.resolve() == source.resolve():
        raise CaliperError(f"{out} is the dataset itself; choose another name with --out")
    refuse_existing(out, overwrite, "--out")
    if not spec.cameras and config.task.obs == "pixels":
        raise CaliperError("task.cameras=[] must name at least one camera")
    refuse_images(source, spec.cameras)
    _require_room(out, source, spec, dataset)
    config = choose_devices(config).applied(config)
    set_up_torch(config)
    env = make_envs(config, min(config.data.num_envs, dataset.num_frames))
    augmentation = visual_augmentation(config)
    appearance = asdict(augmentation.ranges)
    copy = int(any(appearance.values()))
    start = time.monotonic()
    with replacing(out) as partial:
        frames = _observed(env, spec, dataset, replace(augmentation, copies=1 + copy), copy)
        names = instances(run_scene(config).model)[0]
        add_images(source, partial, spec, {**appearance, "seed": augmentation.seed}, frames, names)
    seconds, images = time.monotonic() - start, dataset.num_frames * len(spec.cameras)
    sizes = dict.fromkeys(f"{h}x{w}" for h, w in spec.sizes)
    if images:
        print(f"{images} images of {' and '.join(sizes)} pixels, {images / seconds:.0f} per second")
    else:
        print(f"{dataset.num_frames} states in numbers, no images")
    print(out)
    return out


def _in_their_numbers(config: RunConfig) -> RunConfig:
    """Robosuite's numbers of the robot's own state where none were chosen."""
    task = config.task
    if task.env is not None or STANDARD not in task.proprio:
        return config
    return replace(config, task=replace(task, proprio=list(ROBOSUITE)))


def settings_of(dataset: Dataset, words: Sequence[str]) -> RunConfig:
    """The configuration in which a dataset is drawn: its own task and control, and what the words add.

    Raises:
        CaliperError: the dataset is of another scene, or a setting will not do.
    """
    task = task_words(dataset.meta)
    task = task[1:] if any(word.startswith("task=") for word in words) else task
    config = compose([*task, *words])
    check_task(config)
    dataset.check(dataset_meta(config))
    if fault := state_fault(dataset, run_scene(config).model):
        raise CaliperError(f"{dataset.path} can't be used: {fault}; collect it again")
    return config


def _observed(
    env: VectorEnv, spec: ObsSpec, dataset: Dataset, augmentation: VisualAugmentation, copy: int
) -> Iterator[Named]:
    parts = robot_parts(env)
    with bar(dataset.num_frames, "replay", "frame") as shown:
        for _, obs in rendered(env, dataset, augmentation, copy):
            yield named("robomimic", spec, parts, obs)
            shown.update(len(obs))


def _require_room(out: Path, source: Path, spec: ObsSpec, dataset: Dataset) -> None:
    """Compression may need less, but nobody knows before; HDF5 is bad at running out of disk."""
    folder = next(parent for parent in out.resolve().parents if parent.is_dir())
    need = source.stat().st_size + dataset.num_frames * (spec.image_bytes + 4 * spec.proprio)
    if (free := shutil.disk_usage(folder).free) < need:
        raise CaliperError(
            f"{out} may take {need / 2**20:.0f} MiB but {folder} has {free / 2**20:.0f} MiB left; free some "
            "space, or choose another folder with --out, fewer cameras or smaller images"
        )
