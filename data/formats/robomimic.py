"""Datasets as HDF5 files in robomimic's layout: states, no images, and attributes on their origin.

    data                 attrs: total, env_args (JSON), sha256, and every field of `DatasetMeta`
    data/demo_<i>        attrs: num_samples, success, terminated, seed, noise, sha256
    data/demo_<i>/...    states (t, s) f64, actions (t, a) f32, rewards (t,) f32, dones (t,) i64,
                         final_state (s,) f64

`dones` is 1 at the last step of an episode that ended in success (robomimic's done_mode 0). `final_state` is
ours: robomimic keeps no state after the last action. Each `sha256` is of what stands beside it, attributes
and arrays; that of `data` covers those of the episodes too.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import SCHEMA_VERSION, Dataset, DatasetMeta, Episode, numbered
from caliper.data.formats.checksum import digest
from caliper.data.formats.hdf5 import ForeignFile, UnreadableError
from caliper.data.rewards import converted
from caliper.errors import CaliperError, no_file

SEAL = "sha256"
LATER = ("action", "robot", "draw_size")  # attributes that files written before them lack
COUNTS = ("control_freq", "action_dim", "state_dim", "horizon")
KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
DEMO_FACTS = {"num_samples": "int", "success": "bool", "terminated": "bool", "seed": "int", "noise": "float"}
EPISODE_ARRAYS = ("states", "actions", "rewards", "final_state")
DEMO_ARRAYS = (*EPISODE_ARRAYS, "dones")


class DatasetWriter:
    """Writes a dataset file, or none: the file gets its name when the last byte of it is on the disk.

    Used as a context manager. An exception inside the context (Ctrl-C too) leaves an earlier file of that
    name as it was, and nothing else. States are small, so the file is put together in memory: HDF5 itself
    neither reports every failed write nor lets go of a file on a full disk.

    Args:
        path: the file to make; its folder is made if absent.
        meta: where the episodes come from.
        overwrite: whether a file of that name may be replaced, also one that another process makes meanwhile.
    """

    def __init__(self, path: str | Path, meta: DatasetMeta, overwrite: bool = True) -> None:
        self.path = Path(path)
        self.meta = meta
        self.overwrite = overwrite
        # Of this process alone: runs that begin together may collect the same file at the same time.
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._image = io.BytesIO()
        self._episodes = 0
        self._total = 0
        self._seals: list[str] = []

    def __enter__(self) -> Self:
        """Makes sure, before anything is collected, that the file can be written.

        Raises:
            CaliperError: the folder can't be written to.
        """
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.unlink(missing_ok=True)  # it may be a link, through which we would write
            self._partial.open("wb").close()
            self._partial.unlink()  # a process that is killed while it collects leaves nothing
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
        arrays = {name: getattr(episode, name) for name in EPISODE_ARRAYS} | {"dones": dones}
        said = {"num_samples": len(episode)}
        said |= {name: getattr(episode, name) for name in ("success", "terminated", "seed", "noise")}
        facts = {name: KINDS[kind](said[name]) for name, kind in DEMO_FACTS.items()}  # no numpy scalars
        for name, array in arrays.items():
            demo[name] = array
        seal = digest(facts, arrays)
        for name, value in (facts | {SEAL: seal}).items():
            demo.attrs[name] = value
        self._seals.append(seal)
        self._episodes += 1
        self._total += len(episode)

    def note(self, name: str, value: str, episode: int | None = None) -> None:
        """Adds an attribute to the file, or to an episode that was added, by its number."""
        place = self._file.require_group("data" if episode is None else f"data/demo_{episode}")
        place.attrs[name] = value

    def mask(self, key: str, episodes: Sequence[int]) -> None:
        """Adds a filter key, as robomimic does: the names of some episodes, by their numbers."""
        names = [f"demo_{i}".encode() for i in episodes]
        self._file[f"mask/{key}"] = np.array(names, dtype=bytes if names else "S1")

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
        facts = dataclasses.asdict(self.meta)
        if not self.meta.action:
            del facts["action"]
        if not self.meta.draw_size:
            del facts["draw_size"]
        facts |= {"total": self._total, "env_args": json.dumps(self._env_args())}
        for name, value in (facts | {SEAL: digest({**facts, "demos": self._seals})}).items():
            group.attrs[name] = value
        self._file.close()
        with self._explained():
            # Released even if writing fails, or the error would hold it and the garbage collector complain.
            with self._partial.open("wb") as file, self._image.getbuffer() as content:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if not self.overwrite and self.path.exists():
                raise CaliperError(
                    f"{self.path} has been made by another process meanwhile, and stays; name another file"
                )
            os.replace(self._partial, self.path)

    def _env_args(self) -> dict[str, Any]:
        """What robomimic reads to name the environment; its type 1 is robosuite."""
        names = ("robot", "controller", "control_freq", "horizon")
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


def read_dataset(path: str | Path, rewards: str | None = "success") -> Dataset:
    """Reads a whole dataset file into memory.

    The file is not trusted: another process opens it, see `caliper.data.formats.hdf5`, and where it carries
    checksums they must be right.

    An episode without `final_state` (a file that passed through other tools) reuses its last frame where it
    terminated, since a terminal's next state is masked, and loses its last transition where it timed out.

    Args:
        path: an HDF5 file in the layout of this module.
        rewards: the convention of the recorded rewards, see `caliper.data.rewards`; those of the dataset are
            1 on success and 0 else. None keeps them as they are.

    Raises:
        CaliperError: the file is absent, damaged, not HDF5, or lacks something, or its rewards are of another
            convention; names what.
    """
    path = Path(path)
    if fault := no_file(path):
        raise CaliperError(
            f"the dataset {path} {fault}; name a file, or collect one with: caliper collect task=<task>"
        )
    try:
        with ForeignFile(path) as file:
            return _read(file, path, rewards)
    except UnreadableError as error:
        raise CaliperError(f"{path} {error}; make it again") from error


def _read(file: ForeignFile, path: Path, rewards: str | None) -> Dataset:
    if file.names().get("data") != "group":
        raise CaliperError(f"{path} has no group 'data'; it is not a dataset in robomimic's layout")
    attributes = file.attributes("data")
    fields = [f for f in dataclasses.fields(DatasetMeta) if f.name not in LATER or f.name in attributes]
    absent = [f.name for f in fields if f.name not in attributes]
    if absent:
        raise CaliperError(
            f"{path} lacks {', '.join(absent)} among the attributes of 'data', without which nothing "
            "tells that its states belong to this scene; collect it with: caliper collect task=<task>"
        )
    facts = {f.name: _plain(attributes, f.name, str(f.type), "data", path) for f in fields}
    if facts["schema_version"] != SCHEMA_VERSION:
        raise CaliperError(
            f"{path} has schema_version {facts['schema_version']} but this version of Caliper reads "
            f"{SCHEMA_VERSION}; collect it again with: caliper collect task={facts['task']}"
        )
    meta = DatasetMeta(**facts)
    if low := [name for name in COUNTS if getattr(meta, name) < 1]:
        raise CaliperError(f"{path} can't be used: {low[0]} is {getattr(meta, low[0])}; collect it again")
    names = file.names("data")
    demos = numbered((name for name, kind in names.items() if kind != "array"), "demo_")
    if not demos:
        raise CaliperError(f"{path} holds no episode (no group data/demo_<number>); collect it again")
    others = [name for name, kind in names.items() if kind == "group" and name not in demos]
    if odd := [name for name in others if "actions" in file.names(f"data/{name}")]:
        raise CaliperError(
            f"{path} has a group /data/{odd[0]}, which is no demo_<number> and would be left out; rename or "
            "remove it"
        )
    parts = [_read_demo(file, f"data/{name}", path) for name in demos]
    episodes = [part.episode for part in parts]
    for episode, name in zip(episodes, demos, strict=True):
        if fault := episode.fault(meta):
            raise CaliperError(f"{path} can't be used: in /data/{name} {fault}; collect it again")
    sealed = _check_seals(attributes, facts, [part.seals for part in parts], path)
    content = digest({**facts, "episodes": [_content(episode) for episode in episodes]})
    if rewards is not None:
        episodes = converted(episodes, demos, rewards, str(path))
    episodes = [e if part.whole else _shortened(e) for e, part in zip(episodes, parts, strict=True)]
    for episode, name in zip(episodes, demos, strict=True):
        if not len(episode):
            raise CaliperError(
                f"{path} can't be used: in /data/{name} it has no transition; collect it again"
            )
    return Dataset(meta, episodes, path, content=content, demos=demos, sealed=sealed)


@dataclasses.dataclass(frozen=True, slots=True)
class _Demo:
    """An episode as stored; its checksum as the file says it and as it is; whether it has its last state."""

    episode: Episode
    seals: tuple[str | None, str]
    whole: bool


def _read_demo(file: ForeignFile, at: str, path: Path) -> _Demo:
    names, attributes = file.names(at), file.attributes(at)
    absent = [name for name in ("states", "actions", "rewards") if name not in names]
    absent += [name for name in DEMO_FACTS if name not in attributes]
    if absent:
        raise CaliperError(f"{path} lacks {', '.join(absent)} in /{at}; collect it again")
    facts = {name: _plain(attributes, name, kind, at, path) for name, kind in DEMO_FACTS.items()}
    arrays = {name: file.array(f"{at}/{name}") for name in DEMO_ARRAYS if name in names}
    t = len(arrays["actions"]) if arrays["actions"].ndim else 0
    if t != facts["num_samples"]:
        raise CaliperError(
            f"{path} is damaged: /{at} has {t} actions, num_samples says {facts['num_samples']}; "
            "make it again"
        )
    if not t:
        raise CaliperError(f"{path} can't be used: in /{at} it has no transition; collect it again")
    states = _as(np.float64, arrays["states"])  # (t, s)
    if "final_state" in arrays:
        final_state = _as(np.float64, arrays["final_state"])  # (s,)
    else:
        final_state = states[-1] if len(np.atleast_1d(states)) and states.ndim else states
    episode = Episode(
        states,
        final_state,
        actions=_as(np.float32, arrays["actions"]),  # (t, a)
        rewards=_as(np.float32, arrays["rewards"]),  # (t,)
        **{name: facts[name] for name in ("terminated", "success", "seed", "noise")},
    )
    said = _plain(attributes, SEAL, "str", at, path) if SEAL in attributes else None
    return _Demo(episode, (said, digest(facts, arrays)), "final_state" in arrays)


def _as(kind: type, array: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # an infinity is refused later, with its place
        return array.astype(kind)


def _plain(attributes: Mapping[str, tuple[str, Any]], name: str, kind: str, at: str, path: Path) -> Any:
    """An attribute of one kind: text, a whole number, a finite number, or a truth value (0 and 1 too)."""
    found, value = attributes[name]
    if kind == "str" and found == "text":
        return value
    if kind == "int" and found == "int":
        return value
    if kind == "float" and found in ("int", "float") and math.isfinite(value):
        return float(value)
    if kind == "bool" and (found == "bool" or (found == "int" and value in (0, 1))):
        return bool(value)
    words = {"str": "text", "int": "a whole number", "float": "a finite number", "bool": "true or false"}
    shown = {"other": value, "other text": "bytes or an array"}.get(found, repr(value)[:80])
    raise CaliperError(
        f"{path} has an attribute of '{at}' of the wrong kind: {name} is {shown}, not {words[kind]}; "
        "collect it again"
    )


def _check_seals(
    attributes: Mapping[str, tuple[str, Any]],
    facts: Mapping[str, Any],
    seals: Sequence[tuple[str | None, str]],
    path: Path,
) -> bool:
    """Whether the file carries checksums; those it has must all be there, and be right."""
    said = [attributes.get(SEAL, ("text", None))[1], *(seal for seal, _ in seals)]
    if all(seal is None for seal in said):
        return False
    true = [seal for _, seal in seals]
    total, arguments = (attributes.get(name, ("", None))[1] for name in ("total", "env_args"))
    whole = digest({**facts, "total": total, "env_args": arguments, "demos": true})
    wrong = [i for i, seal in enumerate(seals) if seal[0] != seal[1]]
    if wrong or said[0] != whole:
        where = f"episode {wrong[0]}" if wrong else "its attributes, or which episodes there are"
        raise CaliperError(
            f"{path} has been changed since it was written: {where} does not match the checksum "
            f"(attribute {SEAL}); restore it from a copy, or, if the change is meant, remove these attributes"
        )
    return True


def _content(episode: Episode) -> str:
    facts = {name: getattr(episode, name) for name in ("terminated", "success", "seed", "noise")}
    return digest(facts, {name: getattr(episode, name) for name in EPISODE_ARRAYS})


def _shortened(episode: Episode) -> Episode:
    """An episode that has no state after its last action."""
    if episode.terminated:
        return episode
    return dataclasses.replace(
        episode, states=episode.states[:-1], actions=episode.actions[:-1], rewards=episode.rewards[:-1]
    )
