"""What a run left in its folder, as far as it got: no missing or damaged piece stops the reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from caliper.analysis.metrics import read_metrics
from caliper.analysis.stats import dip, regret
from caliper.errors import CaliperError


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation.json, with its calibration.npz where there is one.

    Attributes:
        interval: 95 % Wilson interval of `success_once`.
        episode_success: outcome of each episode, and `seeds` which initial state each had.
        calibration: q, mc_return, time_to_go, episode and what `agents.probe` saw, each (m,); empty for an
            agent without a critic.
        features: the critic's features of some recorded observations, the same at each evaluation, (n, f).
    """

    phase: str
    env_steps: int
    updates: int
    success_once: float
    success_at_end: float
    episodes: int
    interval: tuple[float, float]
    episode_success: tuple[bool, ...] = ()
    seeds: tuple[int, ...] = ()
    calibration: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    features: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder's contents. Whatever is missing is empty; `problems` names what could not be read."""

    folder: Path
    config: Mapping[str, Any]
    git: Mapping[str, Any]
    metrics: Mapping[str, NDArray[Any]]
    evaluations: tuple[Evaluation, ...]
    videos: tuple[Path, ...]
    problems: tuple[str, ...]

    def phase(self, name: str) -> tuple[Evaluation, ...]:
        """The evaluations of one phase, in order."""
        return tuple(e for e in self.evaluations if e.phase == name)

    def last(self, name: str) -> Evaluation | None:
        """The last evaluation of a phase, if it was reached."""
        return (self.phase(name) or (None,))[-1]

    @property
    def complete(self) -> bool:
        """Whether it was evaluated after its last environment step; one without a configuration is not."""
        last, online = self.last("online"), self.config.get("online")
        return last is not None and online is not None and last.env_steps >= int(online["env_steps"])

    @property
    def levers(self) -> tuple[str, ...]:
        """What it uses beyond the published algorithm, in sentences."""
        return tuple(f"{key}: {words}" for key, words in (self.config.get("levers") or {}).items())

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
        return regret([e.env_steps for e in online], [e.success_once for e in online])

    @property
    def dip(self) -> float:
        """See `stats.dip`; NaN unless both phases were evaluated."""
        online, offline = self.phase("online"), self.last("offline")
        if offline is None:
            return float("nan")
        return dip([e.env_steps for e in online], [e.success_once for e in online], offline.success_once)


def read_run(folder: Path | str) -> Run:
    """Reads a run folder.

    Raises:
        CaliperError: there is no such folder, or nothing of a run is in it.
    """
    folder = Path(folder)
    problems: list[str] = []

    def attempt(read: Any, path: Path, absent: Any) -> Any:
        try:
            return read(path) if path.exists() else absent
        # A report must come out of any half-written run, whatever the damage.
        except Exception as error:
            first = (str(error) or repr(error)).splitlines()[0]
            problems.append(f"{path.relative_to(folder)}: {first}")
            return absent

    evaluations = []
    for path in folder.glob("evaluations/*/evaluation.json"):
        evaluation = attempt(_evaluation, path, None)
        if evaluation is not None:
            arrays = attempt(_calibration, path.with_name("calibration.npz"), {})
            features = arrays.pop("features", None)
            evaluations.append(replace(evaluation, calibration=arrays, features=features))
    evaluations.sort(key=lambda e: (e.phase != "offline", e.updates, e.env_steps))
    run = Run(
        folder,
        config=attempt(_config, folder / "config.yaml", {}),
        git=attempt(_json, folder / "git.json", {}),
        metrics=attempt(read_metrics, folder / "metrics.csv", {}),
        evaluations=tuple(evaluations),
        videos=tuple(sorted(folder.glob("videos/*.mp4"))),
        problems=tuple(problems),
    )
    if not (run.config or run.metrics or run.evaluations or problems):
        raise CaliperError(
            f"{folder} is not a run folder: it has no config.yaml, metrics.csv or evaluations/."
        )
    return run


def _config(path: Path) -> dict[str, Any]:
    container = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(container, dict):
        raise ValueError("not a mapping")
    return {str(key): value for key, value in container.items()}


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    return content


def _evaluation(path: Path) -> Evaluation:
    record = _json(path)
    return Evaluation(
        phase=str(record["phase"]),
        env_steps=int(record["env_steps"]),
        updates=int(record["updates"]),
        success_once=float(record["success_once"]),
        success_at_end=float(record["success_at_end"]),
        episodes=int(record["episodes"]),
        interval=(float(record["interval"][0]), float(record["interval"][1])),
        episode_success=tuple(map(bool, record.get("episode_success", ()))),
        seeds=tuple(map(int, record.get("seeds", ()))),
    )


def _calibration(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if missing := [name for name in ("q", "mc_return", "time_to_go", "episode") if name not in arrays]:
        raise ValueError(f"no {', '.join(missing)}")
    features = {name: arrays.pop(name) for name in ("features",) if name in arrays}
    # A return can be unknown (NaN) where an episode was cut off.
    known = np.isfinite(arrays["q"]) & np.isfinite(arrays["mc_return"])
    return {name: array[known] for name, array in arrays.items()} | features if known.any() else {}
