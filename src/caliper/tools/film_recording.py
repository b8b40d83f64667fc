"""`caliper render FILE`: recorded episodes as a video, from their states, before anybody trains on them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from caliper.data.formats.recordings import is_foreign, open_recording
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.sim import task_scene
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from caliper.importing.dialect import control_freq
from caliper.importing.images import Frames, Staged, drawn, stage
from caliper.rollout.replay import state_fault
from caliper.rollout.video import grid, write_video
from caliper.utils.progress import bar

USAGE = "caliper render FILE [--episodes 4] [--camera NAME] [--size 256] [--assets FOLDER] [--out VIDEO]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CaliperError(f"{message}; write: {USAGE}")


@dataclass(frozen=True)
class _Clip:
    """An episode to film, the line below it, and whether it succeeded, if known."""

    staged: Staged
    caption: str
    success: bool | None
    control_freq: float


def film_recording(words: list[str]) -> Path:
    """Films the first episodes of a dataset or a recording, as a command line says.

    A recording of a task that has a scene here is filmed in that scene, as the policy will see it; another
    in its own model.

    Returns:
        The video.

    Raises:
        CaliperError: an option, camera or file that will not do, or the video cannot be written.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("FILE", type=Path)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--camera")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--out", type=Path)
    known = parser.parse_args(words)
    if known.episodes < 1 or not 16 <= known.size <= 4096:
        raise CaliperError(
            f"--episodes {known.episodes} --size {known.size} cannot be filmed; at least one episode, "
            "of 16 to 4096 pixels"
        )
    if known.out is not None and known.out.suffix != ".mp4":
        raise CaliperError(f"--out {known.out} must end in .mp4")
    clips = _clips(known.FILE, known.episodes, known.assets)
    cameras = [clips[0].staged.model.camera(i).name for i in range(clips[0].staged.model.ncam)]
    camera = known.camera or next((name for name in ("showcase", "agentview") if name in cameras), None)
    if camera is None:
        raise CaliperError(f"choose one of its cameras with --camera: {', '.join(cameras)}")
    out = known.out or known.FILE.with_name(f"{known.FILE.stem}_{camera}_{len(clips)}x{known.size}.mp4")
    films = _films(clips, camera, known.size)
    known_success = [clip.success for clip in clips if clip.success is not None]
    success = known_success if len(known_success) == len(clips) else None
    return write_video(out, grid(films, success, [clip.caption for clip in clips]), clips[0].control_freq)


def _clips(path: Path, count: int, assets: Path | None) -> list[_Clip]:
    if is_foreign(path):
        recording = open_recording(path)
        demos = recording.demos[:count]
        return [
            _Clip(
                stage(recording, demo, assets=assets),
                f"{demo.name}: {len(demo.actions)} steps",
                None,
                control_freq(demo.states) or 20.0,
            )
            for demo in demos
        ]
    dataset = read_dataset(path)
    meta = dataset.meta
    if meta.task not in TASKS:
        raise CaliperError(f"{path} is of task {meta.task}, which has no scene here")
    scene = task_scene(meta.task, meta.robot, meta.draw_size)
    model = scene.model
    if meta.state_dim != scene.state_dim:
        raise CaliperError(f"{path} has states of {meta.state_dim} numbers, the scene {scene.state_dim}")
    if fault := state_fault(dataset, model):
        raise CaliperError(f"{path} can't be filmed: {fault}; collect it again")
    return [
        _Clip(
            Staged(model, np.vstack([e.states, e.final_state]), meta.task),
            f"episode {i}: {'solved' if e.success else 'not solved'}",
            e.success,
            meta.control_freq,
        )
        for i, e in enumerate(dataset.episodes[:count])
    ]


def _films(clips: Sequence[_Clip], camera: str, size: int) -> list[Frames]:
    films = []
    with bar(sum(len(clip.staged.states) for clip in clips), "film", "frame") as shown:
        for clip in clips:
            frames = []
            for batch in drawn(clip.staged.model, clip.staged.states, (camera,), size):
                frames.append(batch[:, 0])
                shown.update(len(batch))
            films.append(np.concatenate(frames))
    return films
