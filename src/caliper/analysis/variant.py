"""A variant of a comparison: its runs, one per seed, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caliper.analysis.run_data import Evaluation, Run
from caliper.analysis.run_table import numbers
from caliper.analysis.stats import interquartile_mean, stratified_bootstrap

ESTIMATED = ("offline", "online", "regret", "dip", "area")  # columns that get an interval over the seeds


@dataclass(frozen=True, slots=True)
class Estimate:
    """An interquartile mean over seeds, and its 95 % bootstrap interval; a single seed gives none (NaN)."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """What seeds come to (Agarwal et al. 2021, arXiv:2108.13264); NaN is left out."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Estimate()
    if len(known) == 1:
        return Estimate(known[0])
    return Estimate(interquartile_mean(known), *stratified_bootstrap(np.array(known)[:, None]))


@dataclass(frozen=True, eq=False)
class Variant:
    """Runs that differ in their seed alone.

    Attributes:
        name: its swept words, such as "agent=cql".
        runs: those that have been evaluated, finished or not.
        planned: how many there will be.
    """

    name: str
    runs: tuple[Run, ...]
    planned: int

    @property
    def measure(self) -> str:
        """What its numbers are shares of, see `Run.measure`."""
        return self.runs[0].measure if self.runs else "success"

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs that came to their end; only of these are there numbers."""
        return tuple(run for run in self.runs if run.complete)

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every column of `ESTIMATED`; see `summary.numbers` for what each is."""
        rows = [numbers(run) for run in self.finished]
        return {name: estimate([row[name] for row in rows]) for name in ESTIMATED}

    @cached_property
    def worst_late(self) -> float:
        """The worst of the last five evaluations of any seed."""
        known = [value for run in self.finished if not math.isnan(value := numbers(run)["worst_late"])]
        return min(known, default=math.nan)

    def minutes(self, clock: str = "minutes") -> float:
        """A run's mean time: "minutes" by the clock, or "cpu_minutes"."""
        known = [value for run in self.finished if not math.isnan(value := numbers(run)[clock])]
        return fmean(known) if known else math.nan

    def row(self) -> dict[str, Any]:
        """One line of variants.csv."""
        line: dict[str, Any] = {"variant": self.name, "seeds": len(self.finished)}
        for name, found in self.estimates.items():
            line |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        times = {clock: self.minutes(clock) for clock in ("minutes", "cpu_minutes")}
        return line | {"worst_late": self.worst_late} | times

    def last(self, phase: str) -> list[Evaluation]:
        """The last evaluation of a phase of each finished run."""
        return [last for run in self.finished if (last := run.last(phase)) is not None]

    @cached_property
    def appearances(self) -> dict[tuple[str, str], Estimate]:
        """Success of these evaluations by phase and look; nothing of a phase with one look alone."""
        found = {}
        for phase in ("offline", "online"):
            looks = [e.looks for e in self.last(phase)]
            names = dict.fromkeys(name for look in looks for name in look)
            for name in names if len(names) > 1 else ():
                values = [look[name].success_once for look in looks if name in look]
                found[phase, name] = estimate(values)
        return found

    def steps(self, phase: str) -> dict[str, NDArray[Any]]:
        """Q, return and steps left at all steps of these evaluations, seeds pooled; empty without Q."""
        parts = [e.calibration for e in self.last(phase) if e.calibration]
        names = ("q", "mc_return", "time_to_go") if parts else ()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def without_intervals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of variants.csv that fit a terminal."""
    return [{k: v for k, v in row.items() if not k.endswith(("_low", "_high"))} for row in rows]


def gather(planned: Sequence[tuple[str, Any]], found: Sequence[tuple[str, Run]]) -> list[Variant]:
    """The variants in the order in which they were given, those without any evaluated run included."""
    names = [name for name, _ in planned]
    return [
        Variant(name, tuple(run for of, run in found if of == name), names.count(name))
        for name in dict.fromkeys(names)
    ]
