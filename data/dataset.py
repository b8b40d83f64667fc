"""What a recorded dataset is, apart from how a file holds it: states, actions and sparse rewards, no pixels.

Pixels are made from the states when the data is loaded (`caliper.rollout.replay`), at any camera and size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caliper.data.formats.checksum import digest
from caliper.errors import CaliperError

SCHEMA_VERSION = 1
FARTHEST = 1e6  # of any position (m, rad) or velocity: far above what physics gives, below what breaks it

# What decides whether recorded states and actions mean the same in the installed scene. The horizon, the
# collector and the seed are not here: they tell how the data was made, and data made otherwise is still data.
IDENTITY = (
    "schema_version",
    "task",
    "scene_hash",
    "mujoco_version",
    "robot",
    "draw_size",
    "controller",
    "control_freq",
    "action_dim",
    "state_dim",
)


def numbered(names: Iterable[str], prefix: str) -> list[str]:
    """The names that are a prefix and a number, by their numbers: HDF5 puts the tenth before the second."""
    digits = {n: n.removeprefix(prefix) for n in names if n.startswith(prefix)}
    found = {n: d.lstrip("0") for n, d in digits.items() if d.isascii() and d.isdecimal()}
    return sorted(found, key=lambda n: (len(found[n]), found[n]))  # not `int`, which refuses 5000 digits


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMeta:
    """Where a dataset comes from.

    Attributes:
        task: name of the task, as in `caliper tasks`.
        scene_hash: hash of the harmonised model the states belong to.
        mujoco_version: version of MuJoCo that made the states.
        controller: name of the controller that reads the actions.
        robot: who acted, as in `robot=`; files that do not say it hold the first of them.
        control_freq: actions per second (Hz).
        action_dim: length of an action.
        state_dim: length of a state row [time, qpos, qvel].
        horizon: control steps after which an episode was cut.
        collector: who acted, such as "expert".
        seed: seed of the collection.
        schema_version: version of the file layout.
        draw_size: whether each episode drew the size of its object; files that do not say it hold one size.
        action: what an action means, as JSON (see `caliper.envs.robot.action_meaning`); "" where nobody says.
    """

    task: str
    scene_hash: str
    mujoco_version: str
    controller: str
    control_freq: int
    action_dim: int
    state_dim: int
    horizon: int
    collector: str
    seed: int
    schema_version: int = SCHEMA_VERSION
    action: str = ""
    robot: str = "panda"
    draw_size: bool = False


@dataclass(frozen=True, slots=True)
class Episode:
    """One recorded episode.

    Attributes:
        states: float64 (t, s), the state before each action: [time, qpos, qvel], as in robomimic.
        final_state: float64 (s,), the state the last action led to.
        actions: float32 (t, a) in [-1, 1].
        rewards: float32 (t,), raw and sparse: 1 on the step that met the success test, else 0.
        terminated: the episode ended in success, not by the horizon.
        success: the success test held at the end.
        seed: seed of the episode's reset.
        noise: the collector's action noise (standard deviation, in action units).
    """

    states: NDArray[np.float64]
    final_state: NDArray[np.float64]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: bool
    success: bool
    seed: int
    noise: float

    def __len__(self) -> int:
        return len(self.actions)

    def fault(self, meta: DatasetMeta) -> str | None:
        """What makes this episode unusable in a dataset of `meta`, or None."""
        t = len(self)
        wanted = {
            "states": (t, meta.state_dim),
            "final_state": (meta.state_dim,),
            "actions": (t, meta.action_dim),
            "rewards": (t,),
        }
        if t == 0:
            return "it has no transition"
        if t > meta.horizon:
            return f"it has {t} transitions, and the file's horizon is {meta.horizon}"
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape:
                return f"{name} has the shape {array.shape}, expected {shape}"
            if not np.isfinite(array).all():
                return f"{name} holds a value that is not finite"
        if (reach := max(np.abs(self.states).max(), np.abs(self.final_state).max())) > FARTHEST:
            return f"states reach {reach:.4g}, which no robot does"
        if np.abs(self.actions).max() > 1 + 1e-6:
            return f"actions reach {np.abs(self.actions).max():.4g}, outside [-1, 1]"
        return None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Episodes and where they come from.

    Attributes:
        meta: of the file.
        episodes: in the file's order.
        path: the file they were read from, if any.
        returns: whether the rewards tell what the task's returns are, see `caliper.data.relabel`.
        content: SHA-256 of what the file says, whatever its name, place or packing; "" without a file.
        demos: what the file calls each episode.
        sealed: the file carries checksums, and they are right.
    """

    meta: DatasetMeta
    episodes: Sequence[Episode]
    path: Path | None = None
    returns: bool = True
    content: str = ""
    demos: Sequence[str] = ()
    sealed: bool = False

    @property
    def num_transitions(self) -> int:
        """Transitions of all episodes."""
        return sum(len(e) for e in self.episodes)

    @property
    def num_frames(self) -> int:
        """Frames of all episodes, t + 1 each: the capacity that a buffer needs for them."""
        return self.num_transitions + len(self.episodes)

    def mismatches(self, expected: DatasetMeta) -> list[str]:
        """Each property that keeps the data out of the scene of `expected`, with both values."""
        return [
            f"{name} is {getattr(self.meta, name)!r} but {getattr(expected, name)!r} is needed"
            for name in IDENTITY
            if getattr(self.meta, name) != getattr(expected, name)
        ]

    def check(self, expected: DatasetMeta) -> None:
        """Refuses data that doesn't belong to a scene.

        Args:
            expected: the task, scene, versions and dimensions that the run will use.

        Raises:
            CaliperError: something differs; names the file, both values and the fix.
        """
        if wrong := self.mismatches(expected):
            keys = ("controller", "control_freq", "action_dim")  # what a run can be told to take over
            told = all(
                name in keys for name in IDENTITY if getattr(self.meta, name) != getattr(expected, name)
            )
            robot = "" if expected.robot == "panda" else f"robot={expected.robot} "
            robot += "task.draw_size=true " * expected.draw_size
            use = (
                f"use it as it is with task.controller={self.meta.controller} "
                f"task.control_freq={self.meta.control_freq}, or "
            )
            again = "record it again in this scene"
            if expected.collector:  # else nobody here could
                again = (
                    f"collect it again with: caliper collect task={expected.task} "
                    f"{robot}task.controller={expected.controller} task.control_freq={expected.control_freq} "
                    f"data.horizon={expected.horizon}"
                )
            fix = use * told + again
            raise CaliperError(
                f"{self.path or 'the dataset'} does not fit: {'; '.join(wrong)}. {fix[0].upper()}{fix[1:]}"
            )

    def select(self, episodes: Sequence[int]) -> Dataset:
        """The same dataset with some of its episodes, by their places."""
        demos = [self.demos[i] for i in episodes] if self.demos else ()
        return replace(self, episodes=[self.episodes[i] for i in episodes], demos=demos)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Several datasets of one scene and control (see `Dataset.check`) as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        episodes=[episode for part in parts for episode in part.episodes],
        path=Path(", ".join(str(part.path) for part in parts)),
        returns=all(part.returns for part in parts),
        content=digest({"parts": [part.content for part in parts]}),
        demos=[demo for part in parts for demo in part.demos],
        sealed=all(part.sealed for part in parts),
    )
