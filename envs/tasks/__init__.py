"""Tasks by name."""

from caliper.envs.tasks.base import Plan, Task
from caliper.envs.tasks.lift import Lift
from caliper.envs.tasks.pick_place_can import PickPlaceCan
from caliper.envs.tasks.pick_place_tray import PickPlaceTray
from caliper.types import CaliperError

TASKS: dict[str, type[Task]] = {t.name: t for t in (Lift, PickPlaceTray, PickPlaceCan)}


def make_task(name: str) -> Task:
    """A task by its name.

    Raises:
        CaliperError: no such task; lists them.
    """
    if name not in TASKS:
        raise CaliperError(f"task '{name}' is unknown; choose one of: {', '.join(TASKS)}")
    return TASKS[name]()


__all__ = ["TASKS", "Lift", "PickPlaceCan", "PickPlaceTray", "Plan", "Task", "make_task"]
