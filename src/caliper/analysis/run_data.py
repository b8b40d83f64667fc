"""What a run left in its folder, as far as it got: no missing or damaged piece stops the reading."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.analysis.stats import dip, regret
from caliper.config.deviations import deviations
from caliper.errors import CaliperError
from caliper.utils.foreign import CHANGED, ForeignFileError, file_digest, is_sealed, read_json, read_yaml
from caliper.utils.history import FILE, Event, read_history
from caliper.utils.manifest import saved_metrics
from caliper.utils.metrics import columns, lost_rows, read_table, rows_digest

MOST_ARRAYS, MOST_VIDEO = 1 << 30, 256 << 20  # bytes of a calibration.npz unfolded, and of a film


@dataclass(frozen=True, slots=True)
class Look:
    """Success where the scene looked in another way, with its 95 % Wilson interval."""

    success_once: float
    episodes: int
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation.json, with its calibration.npz where there is one.

    Attributes:
        interval: 95 % Wilson interval of `success_once`.
        episode_success: outcome of each episode, and `seeds` which initial state each had.
        calibration: q, mc_return, time_to_go, episode and what `agents.probe` saw, each (m,); empty for an
            agent without a critic.
        features: the critic's features of some recorded observations, the same at each evaluation, (n, f).
        score: mean over the episodes of the largest raw reward of a step: in Franka Kitchen, of its tasks how
            many were complete at once; `success_once` where rewards are sparse, and in runs that are older.
        parts: tasks that make up the whole: four in Franka Kitchen.
        appearance: how the scene looked; `others`, by their names, are further appearances of the same
            episodes.
        calibration_sha256: of calibration.npz, unless the run is older.
    """

    phase: str
    env_steps: int
    updates: int
    success_once: float
    episodes: int
    interval: tuple[float, float]
    score: float
    episode_success: tuple[bool, ...] = ()
    seeds: tuple[int, ...] = ()
    calibration: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    features: NDArray[Any] | None = None
    appearance: str = "as_is"
    others: Mapping[str, Look] = field(default_factory=dict)
    parts: int = 1
    calibration_sha256: str | None = None

    @property
    def height(self) -> float:
        """What curves show: success, or in a task of several parts the share of them that was done."""
        return self.success_once if self.parts == 1 else self.score / self.parts

    @property
    def looks(self) -> dict[str, Evaluation | Look]:
        """Success under each appearance, by its name."""
        return {self.appearance: self, **self.others}

    @property
    def solved(self) -> dict[int, bool]:
        """Whether the episode from each seed succeeded."""
        return dict(zip(self.seeds, self.episode_success, strict=False))


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder's contents. Whatever is missing is empty; `problems` names what could not be read.

    Attributes:
        devices: what it took, and why, at its start and wherever that was another when it was resumed.
    """

    folder: Path
    config: Mapping[str, Any]
    git: Mapping[str, Any]
    devices: tuple[Mapping[str, str], ...]
    metrics: Mapping[str, NDArray[Any]]
    evaluations: tuple[Evaluation, ...]
    videos: tuple[Path, ...]
    problems: tuple[str, ...]
    history: tuple[Event, ...] = ()

    def phase(self, name: str) -> tuple[Evaluation, ...]:
        """The evaluations of one phase, in order."""
        return tuple(e for e in self.evaluations if e.phase == name)

    def last(self, name: str) -> Evaluation | None:
        """The last evaluation of a phase, if it was reached."""
        return (self.phase(name) or (None,))[-1]

    def name_of(self, group: str) -> str | None:
        """What a part of the configuration is called, such as "calql": it is a word, or has a name."""
        given: Any = self.config.get(group)
        name = given.get("name") if isinstance(given, Mapping) else given
        return None if name is None else str(name)

    @property
    def measure(self) -> str:
        """What the heights of its curves are called."""
        return "tasks done" if any(e.parts > 1 for e in self.evaluations) else "success"

    @property
    def complete(self) -> bool:
        """Whether it was evaluated after its last environment step; one without a configuration is not."""
        last, online = self.last("online"), self.config.get("online")
        steps = online.get("env_steps") if isinstance(online, Mapping) else None
        return last is not None and isinstance(steps, int) and last.env_steps >= steps

    @property
    def stopped(self) -> str | None:
        """What it said when something was not finite, if that was its last word."""
        last = self.history[-1] if self.history and not self.complete else None
        return last.text if last is not None and last.kind == "stopped" else None

    @property
    def deviations(self) -> tuple[str, ...]:
        """What it uses beyond the published algorithm, in sentences."""
        return tuple(map(str, deviations(self.config)))

    @property
    def switch(self) -> int | None:
        """Gradient updates at the switch to the online phase, if the run got there."""
        if "updates" in self.metrics and (self.metrics["phase"] == "online").any():
            before = self.metrics["updates"][self.metrics["phase"] == "offline"]
            return int(before.max()) if len(before) else 0
        offline = self.last("offline")
        return (offline.updates if offline else 0) if self.phase("online") else None

    @property
    def regret(self) -> float:
        """See `stats.regret`; NaN without an online phase. One before its first step is left out."""
        online = [e for e in self.phase("online") if e.env_steps > 0]
        return regret([e.env_steps for e in online], [e.height for e in online])

    @property
    def dip(self) -> float:
        """See `stats.dip`; NaN unless both phases were evaluated."""
        online, offline = self.phase("online"), self.last("offline")
        if offline is None:
            return float("nan")
        return dip([e.env_steps for e in online], [e.height for e in online], offline.height)


def read_run(folder: Path | str) -> Run:
    """Reads a run folder.

    Raises:
        CaliperError: there is no such folder, or nothing of a run is in it.
    """
    folder = Path(folder)
    problems: list[str] = []

    inside = folder.resolve()

    def attempt(read: Any, path: Path, absent: Any) -> Any:
        try:
            if not path.resolve().is_relative_to(inside):  # what it shows may not be meant to be passed on
                raise ValueError("is a link that leads out of the run folder")
            return read(path) if path.exists() else absent
        # A report must come out of any half-written run, whatever the damage.
        except Exception as error:
            first = (str(error) or repr(error)).splitlines()[0]
            problems.append(f"{path.relative_to(folder)}: {first}")
            return absent

    config = attempt(_config, folder / "config.yaml", {})
    evaluations = []
    for path in folder.glob("evaluations/*/evaluation.json"):
        evaluation = attempt(_evaluation, path, None)
        if evaluation is not None:
            read = partial(_calibration, sha256=evaluation.calibration_sha256)
            arrays = attempt(read, path.with_name("calibration.npz"), {})
            features = arrays.pop("features", None)
            evaluations.append(
                replace(evaluation, calibration=arrays, features=features, parts=_parts(config))
            )
    evaluations.sort(key=lambda e: (e.phase != "offline", e.updates, e.env_steps))
    table, wrong = attempt(_metrics, folder / "metrics.csv", ({}, []))
    problems += [f"metrics.csv: {what}" for what in wrong]
    problems += [
        f"metrics.csv: {count:.0f} rows before update {at} were lost, and could not be restored"
        for at, count in lost_rows(table)
    ]
    problems += _unsealed(folder)
    videos = [attempt(_video, path, None) for path in sorted(folder.glob("videos/*.mp4"))]
    run = Run(
        folder,
        config=config,
        git=attempt(_git, folder / "git.json", {}),
        devices=attempt(_devices, folder / "devices.json", ()),
        metrics=table,
        evaluations=tuple(evaluations),
        videos=tuple(path for path in videos if path),
        history=attempt(read_history, folder / FILE, ()),
        problems=tuple(problems),
    )
    if not (run.config or run.metrics or run.evaluations or problems):
        raise CaliperError(
            f"{folder} is not a run folder: it has no config.yaml, metrics.csv or evaluations/."
        )
    return run


def _unsealed(folder: Path) -> list[str]:
    """The files that carry no checksum where others of the run do. A run of which none does is older."""
    sealed = {}
    for path in (
        *(folder / name for name in ("config.yaml", "git.json", "devices.json")),
        *sorted(folder.glob("evaluations/*/evaluation.json")),
    ):
        with contextlib.suppress(ForeignFileError):  # told where it is read
            sealed[path.relative_to(folder)] = is_sealed(path)
    if not any(sealed.values()):
        return []
    return [
        f"{path}: carries no checksum: a change in it would not show" for path, s in sealed.items() if not s
    ]


def _config(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    for group in ("online", "offline", "reward", "evaluation", "data", "deviations"):
        if not isinstance(content.get(group, {}), dict | None):
            raise ValueError(f"{group} is not a mapping")
    json.dumps(content)  # what is not plain has no place in a report
    return content


def _parts(config: Mapping[str, Any]) -> int:
    """Tasks whose number its rewards count."""
    task = config.get("task")
    kwargs = task.get("kwargs") if isinstance(task, Mapping) and task.get("dense") else None
    parts = kwargs.get("tasks_to_complete") if isinstance(kwargs, Mapping) else None
    return max(len(parts), 1) if isinstance(parts, list) else 1


def _git(path: Path) -> dict[str, Any]:
    """Where a run came from, see `caliper.utils.provenance`."""
    content = read_json(path)
    for part in ("caliper", "directory", "versions"):
        if not isinstance(content.get(part), dict | None):
            raise ValueError(f"{part} is not a mapping")
    return content


def _devices(path: Path) -> tuple[Mapping[str, str], ...]:
    """What a run took at each of its starts, see `caliper.training.devices.Devices`."""
    keys = ("learner", "learner_why", "engine", "engine_device", "engine_why")
    return tuple({key: str(start[key]) for key in keys} for start in read_json(path)["starts"])


def _video(path: Path) -> Path:
    if not path.is_file() or path.stat().st_size > MOST_VIDEO:
        raise ValueError(f"is no regular file, or larger than {MOST_VIDEO >> 20} MiB")
    return path


def _metrics(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The columns of metrics.csv, and what is known to be wrong with them."""
    table = read_table(path)
    wrong = [f"{table.damaged} rows cannot be read and are left out"] if table.damaged else []
    if (saved := saved_metrics(path.parent)) and rows_digest(table.rows[: saved[0]]) != saved[1]:
        missing = saved[0] - len(table.rows)
        wrong.append(
            f"{missing} rows that the newest checkpoint had are missing"
            if missing > 0
            else "has been changed since the newest checkpoint was saved"
        )
    return columns(table), wrong


def _evaluation(path: Path) -> Evaluation:
    record = read_json(path)
    success, seeds = record.get("episode_success", []), record.get("seeds", [])
    once = _share(record, "success_once")
    episodes = _count(record, "episodes")
    if record["phase"] not in ("offline", "online"):
        raise ValueError(f"the phase {record['phase']!r} is unknown")
    for name, values, kind in (("episode_success", success, bool), ("seeds", seeds, int)):
        whole = isinstance(values, list) and len(values) in (0, episodes)
        if not (whole and all(type(value) is kind for value in values)):
            raise ValueError(f"{name} does not have its entry for each episode")
    if success and abs(sum(success) / episodes - once) > 1e-6:
        raise ValueError(f"success_once is {once:g}, but {sum(success)} of {episodes} episodes succeeded")
    others = record.get("others", {})
    if not isinstance(others, dict) or not all(isinstance(part, dict) for part in others.values()):
        raise ValueError("others does not name appearances")
    return Evaluation(
        phase=record["phase"],
        env_steps=_count(record, "env_steps"),
        updates=_count(record, "updates"),
        success_once=once,
        episodes=episodes,
        interval=_interval(record),
        score=_score(record, once),
        episode_success=tuple(success),
        seeds=tuple(seeds),
        calibration_sha256=record.get("calibration_sha256"),
        appearance=str(record.get("appearance", "as_is")),
        others={
            name: Look(_share(part, "success_once"), _count(part, "episodes"), _interval(part))
            for name, part in others.items()
        },
    )


def _score(record: Mapping[str, Any], otherwise: float) -> float:
    score = record.get("score", otherwise)
    if type(score) not in (int, float) or not math.isfinite(score):
        raise ValueError(f"score is {score!r:.40}, not a number")
    return float(score)


def _interval(record: Mapping[str, Any]) -> tuple[float, float]:
    interval = record["interval"]
    if not (isinstance(interval, list) and len(interval) == 2):
        raise ValueError("interval is not a pair")
    low, high = (_share({"interval": bound}, "interval") for bound in interval)
    return low, high


def _count(record: Mapping[str, Any], name: str) -> int:
    value = record[name]
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError(f"{name} is {value!r:.40}, not a count")
    return value


def _share(record: Mapping[str, Any], name: str) -> float:
    value = record[name]
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r:.40}, not a share between 0 and 1")
    return float(value)


def _calibration(path: Path, sha256: str | None) -> dict[str, NDArray[Any]]:
    if not path.is_file() or path.stat().st_size > MOST_ARRAYS:
        raise ValueError("is no regular file, or too large")
    if sha256 not in (None, file_digest(path)):
        raise ValueError(CHANGED)
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_ARRAYS:
            raise ValueError(f"unfolds to more than {MOST_ARRAYS >> 20} MiB")
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if missing := [name for name in ("q", "mc_return", "time_to_go", "episode") if name not in arrays]:
        raise ValueError(f"no {', '.join(missing)}")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim != 1 + (name == "features"):
            raise ValueError(f"{name} is no array of numbers of the usual shape")
    features = {name: arrays.pop(name) for name in ("features",) if name in arrays}
    if len({len(array) for array in arrays.values()}) > 1:
        raise ValueError("its arrays differ in length")
    if features and not np.isfinite(features["features"]).all():
        raise ValueError("features is not finite")
    # A return can be unknown (NaN) where an episode was cut off.
    known = np.isfinite(arrays["q"]) & np.isfinite(arrays["mc_return"])
    return {name: array[known] for name, array in arrays.items()} | features if known.any() else {}
