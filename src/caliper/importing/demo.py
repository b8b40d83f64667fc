"""A recorded demo becomes an episode: read, proven, translated, judged and measured, or refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import Episode
from caliper.data.formats.recordings import RecordedDemo, Recording
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.reach import unreachable
from caliper.envs.sim import task_scene
from caliper.errors import CaliperError
from caliper.importing.controller import Array, Settings, arms_of, read_settings, unwarned
from caliper.importing.dialect import ASKED, Way, control_freq, measure, stated, usual_way
from caliper.importing.model.compiled import physics_model
from caliper.importing.report import DemoReport
from caliper.importing.scene import SceneTrial, carry, differences
from caliper.importing.tasks import ROBOT, find_task, refuse_robots
from caliper.importing.translate import translate

# Of the arm's one-step errors in the scene, rad. The best tenth of a demo's steps is free motion: there a
# right translation is off by 1e-8, a wrong posture or dialect by 1e-4 and more. The median may be contact,
# which MuJoCo resolves otherwise in each version, by up to 1e-4. Beyond 2e-3 a step the actions are not those
# of the file: a wrong dialect is off by 6e-3 or more, the lighter arm of robosuite 1.0 by 8e-4.
EXACT, CONTACT, TOO_FAR = 1e-6, 1e-4, 2e-3
# Of the object's one-step errors, m (median). Another contact solver makes up to 1 mm of an object at rest;
# 5 mm and more is an object that floats or sinks: another shape under the same name, or the same file.
ELSEWHERE = 5e-3


@dataclass(frozen=True)
class Options:
    """What the user asks of an import.

    Attributes:
        task: to import into; None for the one that names the recorded environment.
        assets: folder of meshes that are not robosuite's.
        filter: key of `mask` whose demos are imported; None for all.
        skip_bad: leave out a demo that cannot be imported, instead of stopping.
        keep_length: keep what follows the first solved state.
    """

    task: str | None = None
    assets: Path | None = None
    filter: str | None = None
    skip_bad: bool = False
    keep_length: bool = False


@dataclass(frozen=True)
class Imported:
    """One demo, ready to be written."""

    report: DemoReport
    episode: Episode
    controller: str


class Importer:
    """Imports the demos of one recording.

    Args:
        recording: the file.
        options: of the user.

    Raises:
        CaliperError: the file as a whole cannot be imported.
    """

    def __init__(self, recording: Recording, options: Options) -> None:
        self.recording, self.options = recording, options
        self.task = find_task(recording, options.task)
        refuse_robots(recording)
        try:
            self.settings: Settings = read_settings(recording.settings.get("controller_configs"))
            self.settings.refuse_foreign()
        except CaliperError as error:
            raise CaliperError(f"{recording.path}: {error}") from error
        self.demos = [d for d in recording.demos if d.name in self._chosen()]
        if not self.demos:
            raise CaliperError(f"{recording.path}: filter '{options.filter}' names no demo")
        self._usual: Way | None = None
        self._trials: dict[tuple[str, int], SceneTrial] = {}

    def _chosen(self) -> set[str]:
        masks, key = self.recording.masks, self.options.filter
        if key is None:
            return {d.name for d in self.recording.demos}
        if key not in masks:
            there = f"choose one of: {', '.join(masks)}" if masks else "it has none"
            raise CaliperError(f"{self.recording.path} has no filter '{key}'; {there}")
        return set(masks[key])

    def convert(self, demo: RecordedDemo) -> Imported:
        """One demo, with its report.

        Raises:
            CaliperError: it cannot be imported; says why, without the file's name.
        """
        if demo.fault is not None:
            raise CaliperError(demo.fault)
        if len(demo.actions) < 2:
            raise CaliperError("it has one step, and no state after it that would show what its action did")
        try:
            with unwarned():
                return self._converted(demo)
        except (ValueError, IndexError, ArithmeticError, mujoco.FatalError) as error:  # numbers no robot has
            raise CaliperError(f"its model and states cannot be simulated ({error})") from error

    def _converted(self, demo: RecordedDemo) -> Imported:
        freq, model = self._frequency(demo), self._model(demo)
        if self._usual is None:
            self._usual = self._find_usual(freq)
        reading = measure(model, self.settings, demo, freq, self._usual)
        if not reading.error <= TOO_FAR:
            raise CaliperError(
                "no known version of robosuite's controller does with its actions what its states show: the "
                f"best, {reading.way.dialect.name}, is off by {reading.error:.0e} rad a step"
            )
        notes = []
        if stated(self.recording.version) not in (None, reading.way.dialect):
            notes.append(f"the file says robosuite {self.recording.version}")
        translation = translate(demo, reading)
        trial = self.trial(translation.controller, freq)
        carried = carry(model, trial.model, demo.states)
        if fault := unreachable(trial.model, carried.states):
            raise CaliperError(f"its state {fault[0]} cannot be: {fault[1]}")
        arm = reading.controller.arms[0]
        notes += differences(model, trial.model, demo.states[0], carried.states[0], (arm.site, trial.site))
        actions = translation.actions.astype(np.float32)
        step = trial.step(carried.states, actions.astype(np.float64), reading.way.posture)
        solved = trial.solved(np.vstack([carried.states, step.last]))
        error = float(np.median(step.arm)) if len(step.arm) else 0.0
        if not error <= TOO_FAR:
            raise CaliperError(
                f"its actions do something else in the scene: the arm is off by {error:.0e} rad after one "
                f"step (median), more than {TOO_FAR:.0e}"
            )
        free = float(np.quantile(step.arm, 0.1)) if len(step.arm) else 0.0
        if free > EXACT or error > CONTACT:
            notes.append(f"warning: the arm moves differently here, in free motion by {free:.0e} rad a step")
        solved_at = _first(solved)
        if solved_at == len(demo.states):
            notes.append("solved by its last action, whose result is computed")
        if demo.rewards is not None and (said_at := _first(demo.rewards > 0, 1)) != solved_at:
            notes.append(f"its rewards say {'never' if said_at is None else said_at}")
        episode = _cut(carried.states, step.last, actions, solved, self.options.keep_length)
        object_error = float(np.median(step.object)) if len(step.object) else 0.0
        if not object_error <= ELSEWHERE:
            raise CaliperError(
                f"the scene's object is another of the same name: it ends {1e3 * object_error:.0f} mm "
                f"elsewhere after one step (median), more than {1e3 * ELSEWHERE:g} mm"
            )
        report = DemoReport(
            name=demo.name,
            steps=len(demo.actions),
            control_freq=freq,
            dialect=reading.way.dialect.name,
            posture=reading.way.posture,
            own_error=reading.error,
            solved_at=solved_at,
            arm_error=error,
            arm_error_max=float(step.arm.max(initial=0.0)),
            object_error=object_error,
            clipped=translation.clipped,
            beyond=translation.beyond,
            parked=carried.parked,
            notes=notes,
        )
        return Imported(report, episode, translation.controller)

    def _frequency(self, demo: RecordedDemo) -> int:
        freq = control_freq(demo.states) or self.recording.settings.get("control_freq", 20)
        if not isinstance(freq, int | float) or not 1 <= freq < float("inf") or freq != round(freq):
            raise CaliperError(f"its states are {freq} control steps per second, which is no whole number")
        substeps = 1 / task_scene(self.task).model.opt.timestep / freq
        if abs(substeps - round(substeps)) > 1e-6 or substeps < 0.5:
            raise CaliperError(f"its {freq:g} control steps per second do not divide the physics' 500")
        return round(freq)

    def _model(self, demo: RecordedDemo) -> mujoco.MjModel:
        """The demo's own model, which its states and actions fit."""
        width = demo.states.shape[1]
        if demo.model is None:
            model: mujoco.MjModel = self.trial("osc_pose", self._frequency(demo)).model
            if width != 1 + model.nq + model.nv or model.nmocap:
                raise CaliperError(
                    f"it has no model_file, and its states of {width} numbers are not the "
                    f"{1 + model.nq + model.nv} of the scene of {self.task}"
                )
        else:
            model = physics_model(demo.model, self.options.assets)
        if width != 1 + model.nq + model.nv:
            raise CaliperError(f"its states have {width} numbers, its model {1 + model.nq + model.nv}")
        if (timestep := task_scene(self.task).model.opt.timestep) != model.opt.timestep:
            raise CaliperError(
                f"its physics steps by {model.opt.timestep:g} s, robosuite's by {timestep:g} s"
            )
        arms = arms_of(model, self.settings)
        if len(arms) > 1:
            raise CaliperError(f"it has {len(arms)} arms; the scenes have one {ROBOT}")
        if len(arms[0].motors) != (joints := len(robot_facts("panda").joints)):
            raise CaliperError(f"its arm has {len(arms[0].motors)} joints; a {ROBOT} has {joints}")
        if demo.actions.shape[1] != arms[0].dim:
            raise CaliperError(
                f"its actions have {demo.actions.shape[1]} numbers; its controller and gripper take "
                f"{arms[0].dim}"
            )
        return model

    def _find_usual(self, freq: int) -> Way:
        """How most of the file is to be read, from its first usable demos."""
        pairs: list[tuple[mujoco.MjModel, RecordedDemo]] = []
        for demo in (d for d in self.demos if d.fault is None):
            if len(pairs) < ASKED:
                with suppress(CaliperError):  # its own conversion will say so
                    pairs.append((self._model(demo), demo))
        return usual_way(pairs, self.settings, freq, self.recording.version)

    def trial(self, controller: str, freq: int) -> SceneTrial:
        """The envs of the task under a controller and frequency, made once."""
        if (controller, freq) not in self._trials:
            self._trials[controller, freq] = SceneTrial(self.task, controller, freq)
        return self._trials[controller, freq]


def _first(marks: NDArray[Any], offset: int = 0) -> int | None:
    """Index of the first that is set, or None."""
    return int(np.argmax(marks)) + offset if marks.any() else None


def _cut(
    states: Array, last: Array, actions: NDArray[np.float32], solved: NDArray[Any], keep_length: bool
) -> Episode:
    """The episode up to its first solved row, which becomes its last state; or up to its last row.

    Args:
        states: (t, s).
        last: the state after the last action as computed, (s,); used only where that solves the task.
        actions: float32 (t, a).
        solved: of `states` and `last`, bool (t + 1,).
        keep_length: do not cut at the first solved row.

    Raises:
        CaliperError: it is solved from the start.
    """
    t = len(actions)
    rows = np.vstack([states, last])
    end = (t - 1 if solved[t - 1] else t) if keep_length else _first(solved)
    won = end is not None and bool(solved[end])
    if end is None or not won:
        end = max(t - 1, 1)
    if end == 0:
        raise CaliperError("it is solved in its first state; nothing can be learnt from it")
    rewards = np.zeros(end, np.float32)
    rewards[-1] = won
    return Episode(
        states=rows[:end],
        final_state=rows[end],
        actions=actions[:end],
        rewards=rewards,
        terminated=won,
        success=won,
        seed=0,
        noise=0.0,
    )
