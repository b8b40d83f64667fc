"""Datasets as HDF5 files in robomimic's layout: states, no images, and attributes on their origin.

    data                 attrs: total, env_args (JSON), and every field of `DatasetMeta`
    data/demo_<i>        attrs: num_samples, success, terminated, seed, noise
    data/demo_<i>/...    states (t, s) f64, actions (t, a) f32, rewards (t,) f32, dones (t,) i64,
                         final_state (s,) f64

`dones` is 1 at the last step of an episode that ended in success (robomimic's done_mode 0). `final_state` is
ours: robomimic keeps no state after the last action.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from caliper.data.dataset import SCHEMA_VERSION, Dataset, DatasetMeta, Episode, numbered
from caliper.errors import CaliperError

_PARSE = {"str": str, "int": int, "float": float}


class DatasetWriter:
    """Writes a dataset file, or none: the file gets its name when the last byte of it is on the disk.

    Used as a context manager. An exception inside the context (Ctrl-C too) leaves an earlier file of that
    name as it was, and nothing else. States are small, so the file is put together in memory: HDF5 itself
    neither reports every failed write nor lets go of a file on a full disk.

    Args:
        path: the file to make; its folder is made if absent.
        meta: where the episodes come from.
    """

    def __init__(self, path: str | Path, meta: DatasetMeta) -> None:
        self.path = Path(path)
        self.meta = meta
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._image = io.BytesIO()
        self._episodes = 0
        self._total = 0

    def __enter__(self) -> Self:
        """Makes sure, before anything is collected, that the file can be written.

        Raises:
            CaliperError: the folder can't be written to.
        """
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.open("wb").close()
        self._file = h5py.File(self._image, "w")
        return self

    def add(self, episode: Episode) -> None:
        """Appends one episode.

        Raises:
            ValueError: the episode's shapes or values don't agree with the dataset's `meta`.
        """
        if fault := episode.fault(self.meta):
            raise ValueError(f"episode {self._episodes} can't be stored: {fault}")
        dones = np.zeros(len(episode), dtype=np.int64)
        dones[-1] = episode.terminated
        demo = self._file.create_group(f"data/demo_{self._episodes}")
        for name in ("states", "actions", "rewards", "final_state"):
            demo[name] = getattr(episode, name)
        demo["dones"] = dones
        demo.attrs["num_samples"] = len(episode)
        for name in ("success", "terminated", "seed", "noise"):
            demo.attrs[name] = getattr(episode, name)
        self._episodes += 1
        self._total += len(episode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the file if the context succeeded.

        Raises:
            CaliperError: no episode was added, or the disk is full or not writable.
        """
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            with suppress(OSError):  # the error that brought us here is the one to show
                self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._episodes == 0:
            raise CaliperError(
                f"no episode was recorded, so {self.path} is not written; collect at least one"
            )
        group = self._file["data"]
        group.attrs["total"] = self._total
        group.attrs["env_args"] = json.dumps(self._env_args())
        for name, value in dataclasses.asdict(self.meta).items():
            group.attrs[name] = value
        self._file.close()
        with self._explained():
            # Released even if writing fails, or the error would hold it and the garbage collector complain.
            with self._partial.open("wb") as file, self._image.getbuffer() as content:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._partial, self.path)

    def _env_args(self) -> dict[str, Any]:
        """What robomimic reads to name the environment; its type 1 is robosuite."""
        names = ("controller", "control_freq", "horizon")
        kwargs = {name: getattr(self.meta, name) for name in names}
        version = self.meta.mujoco_version
        return {"env_name": self.meta.task, "env_version": version, "type": 1, "env_kwargs": kwargs}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CaliperError(
                f"cannot write {self.path}: {error.strerror}; free some space or choose a folder that "
                "you may write to"
            ) from error


def read_dataset(path: str | Path) -> Dataset:
    """Reads a whole dataset file into memory.

    An episode without `final_state` (a file that passed through other tools) reuses its last frame where it
    terminated, since a terminal's next state is masked, and loses its last transition where it timed out.

    Args:
        path: an HDF5 file in the layout of this module.

    Raises:
        CaliperError: the file is absent, damaged, not HDF5, or lacks something; names what.
    """
    path = Path(path)
    if not path.is_file():
        raise CaliperError(f"there is no dataset at {path}; collect one with: caliper collect task=<task>")
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except (OSError, RuntimeError) as error:  # h5py passes most failures on as the first, some as the second
        raise CaliperError(
            f"{path} is damaged or not an HDF5 file ({str(error).splitlines()[0]}); make it again"
        ) from error


def _read(file: h5py.File, path: Path) -> Dataset:
    group = file.get("data")
    if not isinstance(group, h5py.Group):
        raise CaliperError(f"{path} has no group 'data'; it is not a dataset in robomimic's layout")
    fields = dataclasses.fields(DatasetMeta)
    absent = [f.name for f in fields if f.name not in group.attrs]
    if absent:
        raise CaliperError(
            f"{path} lacks {', '.join(absent)} among the attributes of 'data', without which nothing "
            "tells that its states belong to this scene; collect it with: caliper collect task=<task>"
        )
    version = group.attrs["schema_version"]
    if version != SCHEMA_VERSION:
        raise CaliperError(
            f"{path} has schema_version {version} but this version of Caliper reads {SCHEMA_VERSION}; "
            f"collect it again with: caliper collect task={group.attrs['task']}"
        )
    try:
        meta = DatasetMeta(**{f.name: _PARSE[str(f.type)](group.attrs[f.name]) for f in fields})
    except (TypeError, ValueError) as error:
        raise CaliperError(f"{path} has an attribute of 'data' of the wrong kind: {error}") from error
    names = numbered(group, "demo_")
    if not names:
        raise CaliperError(f"{path} holds no episode (no group data/demo_<number>); collect it again")
    return Dataset(meta, [_read_episode(group[name], meta, path) for name in names], path)


def _read_episode(demo: h5py.Group, meta: DatasetMeta, path: Path) -> Episode:
    absent = [name for name in ("states", "actions", "rewards") if name not in demo]
    absent += [
        name for name in ("num_samples", "success", "terminated", "seed", "noise") if name not in demo.attrs
    ]
    if absent:
        raise CaliperError(f"{path} lacks {', '.join(absent)} in {demo.name}; collect it again")
    states = np.asarray(demo["states"], dtype=np.float64)  # (t, s)
    actions = np.asarray(demo["actions"], dtype=np.float32)  # (t, a)
    rewards = np.asarray(demo["rewards"], dtype=np.float32)  # (t,)
    terminated = bool(demo.attrs["terminated"])
    keep = len(actions)
    if keep != demo.attrs["num_samples"]:
        raise CaliperError(
            f"{path} is damaged: {demo.name} has {keep} actions, num_samples says {demo.attrs['num_samples']}"
        )
    if "final_state" in demo:
        final_state = np.asarray(demo["final_state"], dtype=np.float64)
    else:
        final_state = states[-1]
        keep -= not terminated
    episode = Episode(
        states[:keep],
        final_state,
        actions[:keep],
        rewards[:keep],
        terminated,
        success=bool(demo.attrs["success"]),
        seed=int(demo.attrs["seed"]),
        noise=float(demo.attrs["noise"]),
    )
    if fault := episode.fault(meta):
        raise CaliperError(f"{path} can't be used: in {demo.name} {fault}; collect it again")
    return episode
