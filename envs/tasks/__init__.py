"""Tasks by name."""

from caliper.envs.tasks.base import Opening, Plan, Task
from caliper.envs.tasks.lift import Lift
from caliper.envs.tasks.pick_covered import PickCovered
from caliper.envs.tasks.pick_place_can import PickPlaceCan
from caliper.envs.tasks.pick_place_tray import PickPlaceTray
from caliper.errors import CaliperError, one_of

TASKS: dict[str, type[Task]] = {t.name: t for t in (Lift, PickPlaceTray, PickPlaceCan, PickCovered)}


def make_task(name: str, start: str | None = None) -> Task:
    """A task by its name, whose episodes start in one of its ways; None for the usual.

    Raises:
        CaliperError: no such task, or no such start; lists them.
    """
    if name not in TASKS:
        raise CaliperError(f"task '{name}' is unknown; {one_of(TASKS, name)}")
    return TASKS[name](start)


__all__ = [
    "TASKS",
    "Lift",
    "Opening",
    "PickCovered",
    "PickPlaceCan",
    "PickPlaceTray",
    "Plan",
    "Task",
    "make_task",
]
