"""A recording becomes a dataset, whole or not at all, that says where it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from caliper.data.dataset import DatasetMeta
from caliper.data.formats.recordings import Recording, is_foreign, open_recording
from caliper.data.formats.robomimic import DatasetWriter
from caliper.envs.robot.action_meaning import action_json
from caliper.errors import CaliperError
from caliper.importing.demo import CONTACT, EXACT, TOO_FAR, Imported, Importer, Options
from caliper.importing.report import table
from caliper.utils.early import stop_if_told
from caliper.utils.foreign import file_digest


def import_recording(
    path: Path, out: Path, options: Options, say: Callable[[str], None] = print, overwrite: bool = True
) -> Path:
    """Imports a file; an existing `out` is replaced only by a whole new one.

    Args:
        path: the recording.
        out: the dataset to make.
        options: of the user.
        say: takes a line for each demo, then the table.
        overwrite: whether a dataset may be replaced that another process has made meanwhile.

    Returns:
        The dataset.

    Raises:
        CaliperError: the file or, without `skip_bad`, one of its demos cannot be imported; names it and why.
    """
    recording = open_recording(path)
    importer = Importer(recording, options)
    done: list[Imported] = []
    left: dict[str, str] = {}
    for demo in importer.demos:
        stop_if_told()
        try:
            imported = importer.convert(demo)
            if fault := imported.episode.fault(_meta(importer, imported, len(imported.episode))):
                raise CaliperError(fault)
            if done and imported.controller != done[0].controller:
                raise CaliperError(
                    f"it needs {imported.controller}, the demos before it {done[0].controller}"
                )
            if done and imported.report.control_freq != done[0].report.control_freq:
                raise CaliperError(
                    f"it runs at {imported.report.control_freq} Hz, the demos before it at "
                    f"{done[0].report.control_freq} Hz"
                )
        except CaliperError as error:
            if not options.skip_bad:
                raise CaliperError(
                    f"{path}: {demo.name} cannot be imported: {error}; --skip-bad leaves such demos out"
                ) from error
            left[demo.name] = str(error)
            say(f"{demo.name}: left out: {error}")
            continue
        done.append(imported)
        say(str(imported.report))
    if not done:
        raise CaliperError(f"{path}: none of its {len(importer.demos)} demos can be imported; see above")
    places = {imported.report.name: i for i, imported in enumerate(done)}
    masks = {key: [places[n] for n in names if n in places] for key, names in recording.masks.items()}
    meta = _meta(importer, done[0], max(len(imported.episode) for imported in done))
    with DatasetWriter(out, meta, overwrite) as writer:
        for i, imported in enumerate(done):
            writer.add(replace(imported.episode, seed=i))
            writer.note("imported", json.dumps(asdict(imported.report)), i)
        for key, episodes in masks.items():
            writer.mask(key, episodes)
        writer.note("imported", json.dumps(_origin(recording, options, left)))
    say(table(recording, [i.report for i in done], [i.episode for i in done], masks, left))
    say(f"  train       {train_command(out, meta)}")
    return out


def _meta(importer: Importer, imported: Imported, horizon: int) -> DatasetMeta:
    """The facts of a dataset of demos such as this one, whose longest has `horizon` steps."""
    trial = importer.trial(imported.controller, imported.report.control_freq)
    return DatasetMeta(
        task=importer.task,
        scene_hash=trial.env.scene_hash,
        mujoco_version=version("mujoco"),
        controller=imported.controller,
        control_freq=imported.report.control_freq,
        action_dim=trial.env.action_dim,
        state_dim=trial.env.state_dim,
        horizon=horizon,
        collector=f"{importer.recording.family}, imported",
        seed=0,
        action=action_json(trial.env.controller, trial.env.control_freq),
    )


def default_out(path: Path, options: Options) -> Path:
    """Where a recording's dataset goes unless the user says: another content or filter makes another file."""
    words = [path.stem, file_digest(path)[:8], options.task or "", options.filter or ""]
    words += ["whole"] * options.keep_length
    return Path("datasets") / f"{'_'.join(word for word in words if word)}.hdf5"


def train_command(path: Path, meta: DatasetMeta) -> str:
    """The command that trains on an imported dataset, at its own controller and frequency.

    Its time limit is a quarter above the longest episode: a limit near the recorded speed makes every success
    a close call.
    """
    horizon = -(-meta.horizon * 5 // 4)
    return (
        f"caliper train task={meta.task} data.path={path} task.controller={meta.controller} "
        f"task.control_freq={meta.control_freq} task.horizon={horizon}"
    )


def ready(path: Path) -> Path:
    """The dataset that a path stands for: itself, or what a recording becomes, imported now or before.

    Raises:
        CaliperError: the recording cannot be imported.
    """
    if not is_foreign(path):
        return path
    options = Options()
    out = default_out(path, options)
    if out.is_file():
        print(f"{path} is a recording; it has been imported as {out}", flush=True)
        return out
    print(f"{path} is a recording; importing it, as does: caliper import {path} {out}", flush=True)
    return import_recording(path, out, options)


def _origin(recording: Recording, options: Options, left: Mapping[str, str]) -> dict[str, object]:
    """Where a dataset comes from, for its file."""
    return {
        "source": recording.path.name,
        "sha256": file_digest(recording.path),
        "family": recording.family,
        "env_name": recording.env_name,
        "version": recording.version,
        "missing": list(recording.missing),
        "left_out": dict(left),
        "filter": options.filter,
        "keep_length": options.keep_length,
        "thresholds": [EXACT, CONTACT, TOO_FAR],
    }
