"""What an import says: a line for each demo, and a table for the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caliper.data.dataset import Episode
from caliper.data.formats.recordings import Recording


@dataclass(frozen=True)
class DemoReport:
    """What was found of one demo; kept in the dataset as JSON.

    Attributes:
        name: in the source.
        steps: recorded.
        control_freq: control steps per second.
        dialect: versions of robosuite whose controller it was, as measured.
        posture: what the null space pulled to, see `caliper.importing.dialect.Way`.
        own_error: geometric mean of the arm's one-step errors in the file's own model, rad.
        solved_at: first row whose state is solved; None if none is.
        arm_error: median one-step error of the arm in the scene, rad.
        arm_error_max: the largest.
        object_error: median one-step error of the object in the scene, m.
        clipped: steps whose goal lay out of an action's reach.
        beyond: steps whose recorded action left the controller's range.
        parked: joints of objects that take no part and were left out.
        notes: what else is worth knowing.
    """

    name: str
    steps: int
    control_freq: int
    dialect: str
    posture: str
    own_error: float
    solved_at: int | None
    arm_error: float
    arm_error_max: float
    object_error: float
    clipped: int
    beyond: int
    parked: Sequence[str]
    notes: Sequence[str]

    def __str__(self) -> str:
        solved = "never solved" if self.solved_at is None else f"solved at {self.solved_at}"
        words = [
            f"{self.name}: {self.steps} steps, {self.control_freq} Hz, robosuite {self.dialect}",
            solved,
            f"one step {self.arm_error:.0e} rad, {1e3 * self.object_error:.2g} mm",
            f"{self.clipped} clipped",
            *([f"{self.beyond / self.steps:.0%} of its actions left the range"] if self.beyond else []),
            *self.notes,
        ]
        return "; ".join(words)


def table(
    recording: Recording,
    reports: Sequence[DemoReport],
    episodes: Sequence[Episode],
    masks: Mapping[str, Sequence[int]],
    left: Mapping[str, str],
) -> str:
    """What was made of a file, in lines of text.

    Args:
        recording: the file.
        reports: of the demos that were imported.
        episodes: that they became.
        masks: numbers of episodes by filter key.
        left: why a demo was left out, by its name.
    """
    solved = sum(r.solved_at is not None for r in reports)
    parked = sorted({name for r in reports for name in r.parked})
    steps, kept = sum(r.steps for r in reports), sum(len(e) for e in episodes)
    rows = [
        ("demos", f"{len(reports)} imported, {solved} of them solved; {len(left)} left out"),
        ("steps", f"{kept} of {steps} recorded"),
        ("controller", f"robosuite {', '.join(sorted({r.dialect for r in reports}))}, measured"),
        (
            "arm",
            f"one step off by {np.median([r.arm_error for r in reports]):.0e} rad (median of the demos), "
            f"{max(r.arm_error for r in reports):.0e} in the worst demo, "
            f"{max(r.arm_error_max for r in reports):.0e} in the worst step",
        ),
        ("object", f"one step off by {1e3 * float(np.median([r.object_error for r in reports])):.2g} mm"),
        (
            "clipped",
            f"{sum(r.clipped for r in reports)} goals out of reach, {sum(r.beyond for r in reports)} "
            "actions beyond the recorded range",
        ),
        ("filters", ", ".join(f"{key} {len(found)}" for key, found in masks.items()) or "none"),
        *(("left out", f"{name}: {why}") for name, why in left.items()),
        *((("parked", f"{', '.join(parked)} take no part and are left out"),) if parked else ()),
        *((("missing", ", ".join(recording.missing)),) if recording.missing else ()),
    ]
    return "\n".join(f"  {name:<12}{value}" for name, value in rows)
