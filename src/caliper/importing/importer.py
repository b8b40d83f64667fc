"""A recording becomes a dataset: every demo is read, proven, translated, judged and measured, or refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import DatasetMeta, Episode
from caliper.data.recordings import RecordedDemo, Recording, is_foreign, open_recording
from caliper.data.robomimic import DatasetWriter
from caliper.envs.robot.action_meaning import action_json
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.reach import unreachable
from caliper.envs.sim import task_scene
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError, one_of
from caliper.importing.controller import Array, Settings, arms_of, read_settings
from caliper.importing.dialect import ASKED, Way, control_freq, measure, stated, usual_way
from caliper.importing.model import physics_model
from caliper.importing.scene import SceneTrial, carry, differences
from caliper.importing.translate import translate

# Of the arm's one-step errors in the scene, rad. The best tenth of a demo's steps is free motion: there a
# right translation is off by 1e-8, a wrong posture or dialect by 1e-4 and more. The median may be contact,
# which MuJoCo resolves otherwise in each version, by up to 1e-4. Beyond 2e-3 a step the actions are not those
# of the file: a wrong dialect is off by 6e-3 or more, the lighter arm of robosuite 1.0 by 8e-4.
EXACT, CONTACT, TOO_FAR = 1e-6, 1e-4, 2e-3
# Of the object's one-step errors, m (median). Another contact solver makes up to 1 mm of an object at rest;
# 5 mm and more is an object that floats or sinks: another shape under the same name, or the same file.
ELSEWHERE = 5e-3
ROBOT = "Panda"


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


@dataclass(frozen=True)
class Imported:
    """One demo, ready to be written."""

    report: DemoReport
    episode: Episode
    controller: str


def find_task(recording: Recording, wanted: str | None = None) -> str:
    """The task that a recording can be imported into.

    Args:
        recording: the file.
        wanted: a task that the user names instead.

    Raises:
        CaliperError: there is none; says which there are.
    """
    if wanted is not None:
        if wanted not in TASKS:
            raise CaliperError(f"--task {wanted} is unknown; {one_of(TASKS, wanted)}")
        return wanted
    if recording.family == "Caliper":
        raise CaliperError(f"{recording.path} is a dataset of Caliper's already; use it with data.path=")
    found = [name for name, task in TASKS.items() if recording.env_name in task.recorded_as]
    if found:
        return found[0]
    known = ", ".join(f"{'/'.join(t.recorded_as)} ({n})" for n, t in TASKS.items() if t.recorded_as)
    what = f"records {recording.env_name}, which has no scene here" if recording.env_name else "names no task"
    raise CaliperError(f"{recording.path} {what}; these have: {known}. Another task can be named with --task")


def refuse_robots(recording: Recording) -> None:
    """Refuses a file of other robots than the scenes hold.

    Raises:
        CaliperError: naming the robots.
    """
    robots = recording.settings.get("robots", ROBOT)
    names = list(robots) if isinstance(robots, list | tuple) else [robots]
    if names != [ROBOT]:
        raise CaliperError(
            f"{recording.path} was recorded with {' and '.join(map(str, names))}; the scenes have one {ROBOT}"
        )


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
        object_error = float(np.median(step.object)) if len(step.object) else 0.0
        if not object_error <= ELSEWHERE:
            raise CaliperError(
                f"the scene's object is another of the same name: it ends {1e3 * object_error:.0f} mm "
                f"elsewhere after one step (median), more than {1e3 * ELSEWHERE:g} mm"
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


def import_recording(path: Path, out: Path, options: Options, say: Callable[[str], None] = print) -> Path:
    """Imports a file; an existing `out` is replaced only by a whole new one.

    Args:
        path: the recording.
        out: the dataset to make.
        options: of the user.
        say: takes a line for each demo, then the table.

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
        try:
            imported = importer.convert(demo)
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
    trial = importer.trial(done[0].controller, done[0].report.control_freq)
    meta = DatasetMeta(
        task=importer.task,
        scene_hash=trial.env.scene_hash,
        mujoco_version=version("mujoco"),
        controller=done[0].controller,
        control_freq=done[0].report.control_freq,
        action_dim=trial.env.action_dim,
        state_dim=trial.env.state_dim,
        horizon=max(len(imported.episode) for imported in done),
        collector=f"{recording.family}, imported",
        seed=0,
        action=action_json(trial.env.controller, trial.env.control_freq),
    )
    with DatasetWriter(out, meta) as writer:
        for i, imported in enumerate(done):
            writer.add(replace(imported.episode, seed=i))
            writer.note("imported", json.dumps(asdict(imported.report)), i)
        for key, episodes in masks.items():
            writer.mask(key, episodes)
        writer.note("imported", json.dumps(_origin(recording, options, left)))
    say(_table(recording, [i.report for i in done], [i.episode for i in done], masks, left))
    say(f"  train       {train_command(out, meta)}")
    return out


def default_out(path: Path, options: Options) -> Path:
    """Where a recording's dataset goes unless the user says: another content or filter makes another file."""
    words = [path.stem, sha256(path)[:8], options.task or "", options.filter or ""]
    words += ["whole"] * options.keep_length
    return Path("datasets") / f"{'_'.join(word for word in words if word)}.hdf5"


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        "sha256": sha256(recording.path),
        "family": recording.family,
        "env_name": recording.env_name,
        "version": recording.version,
        "missing": list(recording.missing),
        "left_out": dict(left),
        "filter": options.filter,
        "keep_length": options.keep_length,
        "thresholds": [EXACT, CONTACT, TOO_FAR],
    }


def _table(
    recording: Recording,
    reports: Sequence[DemoReport],
    episodes: Sequence[Episode],
    masks: Mapping[str, Sequence[int]],
    left: Mapping[str, str],
) -> str:
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
