"""Which version's controller made a recording: measured, as files may not say it, or say it wrongly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from caliper.data.formats.recordings import RecordedDemo
from caliper.envs.robot.robots import robot_facts
from caliper.importing.controller import DIALECTS, Array, Controller, Dialect, Hidden, Settings, arms_of

TURNING, FIRST = 24, 8  # steps that are tried: those that rotate most, where dialects differ, and the first
ASKED = 3  # demos of a file that are read in every way
SURE = 1e-6  # rad; a reading this good need not be compared with others
BETTER = 1.2  # a reading replaces the one that is expected if its error is smaller by this factor
FLOOR = 1e-12  # rad; below is rounding
POSTURES = ("rest", "start")


@dataclass(frozen=True)
class Way:
    """A way to read actions.

    Attributes:
        dialect: of the controller.
        posture: "rest" where the null space pulls to robosuite's rest posture, "start" for the first state's.
    """

    dialect: Dialect
    posture: str


WAYS = tuple(Way(dialect, posture) for dialect in DIALECTS for posture in POSTURES)


@dataclass(frozen=True)
class Reading:
    """A demo read in one way.

    Attributes:
        way: in which.
        error: geometric mean of the arm's errors over the steps tried, in the file's own model, rad. Exact
            steps weigh most: what contacts add is the same in every way.
        controller: of the recording.
        history: what the states leave out, before each step.
    """

    way: Way
    error: float
    controller: Controller = field(repr=False)
    history: Sequence[Sequence[Hidden]] = field(repr=False)


def control_freq(states: Array) -> float | None:
    """Control steps per second of recorded states (t, s), from their times; None where they don't tell."""
    if len(states) < 2 or not (gap := float(np.median(np.diff(states[:, 0])))) > 0:
        return None
    freq = 1 / gap
    return float(round(freq)) if abs(freq - round(freq)) < 0.01 * freq else freq


def read_as(model: mujoco.MjModel, settings: Settings, demo: RecordedDemo, freq: float, way: Way) -> Reading:
    """A demo read in a way, and how well the way explains it."""
    arms = arms_of(model, settings)
    rest = np.tile(np.array(robot_facts("panda").posture), (len(arms), 1))
    start = np.stack([demo.states[0, 1 + arm.qpos] for arm in arms])
    controller = Controller(model, settings, way.dialect, freq, rest if way.posture == "rest" else start)
    history = controller.history(demo.states, demo.actions)
    errors = one_step_errors(controller, demo, history, telling_steps(demo, controller))
    return Reading(way, geometric_mean(errors), controller, history)


def usual_way(
    demos: Sequence[tuple[mujoco.MjModel, RecordedDemo]], settings: Settings, freq: float, version: str
) -> Way:
    """The way in which most of a file's actions come true.

    Args:
        demos: some of the file's, each with its own model.
        settings: of the recorded controller.
        freq: control steps per second.
        version: of robosuite, as the file states it; decides where the demos don't tell. What it says is
            tried first, and where that is as good as exact, alone.
    """

    def error(way: Way) -> float:
        asked = demos[:ASKED]
        return geometric_mean(np.array([read_as(m, settings, d, freq, way).error for m, d in asked]))

    expected = [way for way in WAYS if way.dialect is stated(version)]
    errors: dict[Way, float] = {}
    for way in expected:
        errors[way] = error(way)
        if errors[way] < SURE:
            return way
    errors |= {way: error(way) for way in WAYS if way not in errors}
    best = min(WAYS, key=errors.__getitem__)
    alike = [way for way in expected if way.posture == best.posture]
    return next((way for way in alike if errors[way] <= BETTER * errors[best]), best)


def measure(
    model: mujoco.MjModel, settings: Settings, demo: RecordedDemo, freq: float, usual: Way
) -> Reading:
    """A demo in the way that explains it best; in the file's usual one where that is as good as exact.

    Args:
        model: the demo's own.
        settings: of the recorded controller.
        demo: states and actions that fit the model.
        freq: control steps per second.
        usual: how the file is read; decides where the demo does not tell.
    """
    expected = read_as(model, settings, demo, freq, usual)
    if expected.error < SURE:
        return expected
    others = (read_as(model, settings, demo, freq, way) for way in WAYS if way != usual)
    best = min(others, key=lambda reading: reading.error)
    return best if BETTER * best.error < expected.error else expected


def stated(version: str) -> Dialect | None:
    """The dialect of a version such as 1.4.1, or None if it is none."""
    if not (found := re.match(r"1\.(\d+)", version)):
        return None
    return DIALECTS[0 if found[1] == "0" else 2 if int(found[1]) >= 5 else 1]


def telling_steps(demo: RecordedDemo, controller: Controller) -> list[int]:
    """The first steps and those that ask for most rotation, of those whose next state is recorded."""
    parts = np.split(demo.actions[:-1], np.cumsum([a.dim for a in controller.arms])[:-1], axis=1)
    turns = [np.abs(part[:, : len(controller.settings.high)][:, -3:]).max(1) for part in parts]
    most = np.argsort(-np.max(turns, axis=0), kind="stable")[:TURNING]
    return sorted({*range(min(FIRST, len(demo.actions) - 1)), *most.tolist()})


def geometric_mean(errors: Array) -> float:
    """Of errors in radians; infinite for none, and where the physics blew up."""
    if not len(errors) or not np.isfinite(errors).all():
        return float("inf")
    return float(np.exp(np.log(np.maximum(errors, FLOOR)).mean()))


def one_step_errors(
    controller: Controller, demo: RecordedDemo, history: Sequence[Sequence[Hidden]], steps: Sequence[int]
) -> Array:
    """Largest joint error of the arms after one control step from a recorded state, rad, (steps,)."""
    data, out = mujoco.MjData(controller.model), []
    arms = np.concatenate([arm.qpos for arm in controller.arms])
    for t in steps:
        controller.put(data, demo.states[t])
        controller.step(data, demo.actions[t], history[t], first_sight(controller, demo, t))
        out.append(np.abs(data.qpos[arms] - demo.states[t + 1, 1 + arms]).max())
    return np.array(out)


def first_sight(controller: Controller, demo: RecordedDemo, t: int) -> mujoco.MjData | None:
    """What the controller believes at the first physics step of step t, where it is not the state itself."""
    return controller.at_rest(demo.states[0]) if t == 0 and controller.starts_stale(demo.states) else None
