"""Tasks by name."""

from caliper.envs.tasks.base import ExpertParameters, HandleParameters, HangParameters, Opening, Task
from caliper.envs.tasks.door import Door
from caliper.envs.tasks.lift import Lift
from caliper.envs.tasks.nut_assembly import NutAssemblyRound, NutAssemblySquare
from caliper.envs.tasks.pick_covered import PickCovered
from caliper.envs.tasks.pick_place_bread import PickPlaceBread
from caliper.envs.tasks.pick_place_can import PickPlaceCan
from caliper.envs.tasks.pick_place_cereal import PickPlaceCereal
from caliper.envs.tasks.pick_place_milk import PickPlaceMilk
from caliper.envs.tasks.pick_place_tray import PickPlaceTray
from caliper.envs.tasks.stack import Stack
from caliper.envs.tasks.tool_hang import ToolHang
from caliper.errors import CaliperError, one_of

TASKS: dict[str, type[Task]] = {
    t.name: t
    for t in (
        Lift,
        PickPlaceTray,
        PickPlaceCan,
        PickPlaceMilk,
        PickPlaceBread,
        PickPlaceCereal,
        Stack,
        NutAssemblySquare,
        NutAssemblyRound,
        Door,
        ToolHang,
        PickCovered,
    )
}


def make_task(name: str, start: str | None = None, robot: str = "panda", draw_size: bool = False) -> Task:
    """A task by its name, of a robot, whose episodes start in one of its ways; None for the usual.

    Raises:
        CaliperError: no such task, no such start, or no size to draw.
    """
    if name not in TASKS:
        raise CaliperError(f"task '{name}' is unknown; {one_of(TASKS, name)}")
    kind = TASKS[name]
    if not draw_size:
        return kind(start, robot)  # a task of one's own may know no more
    if kind.sizes is None:
        able = ", ".join(other.name for other in TASKS.values() if other.sizes is not None)
        raise CaliperError(f"task '{name}' draws no sizes; set task.draw_size=false (true is for {able})")
    return kind(start, robot, draw_size=True)


__all__ = [
    "TASKS",
    "Door",
    "ExpertParameters",
    "HandleParameters",
    "HangParameters",
    "Lift",
    "NutAssemblyRound",
    "NutAssemblySquare",
    "Opening",
    "PickCovered",
    "PickPlaceBread",
    "PickPlaceCan",
    "PickPlaceCereal",
    "PickPlaceMilk",
    "PickPlaceTray",
    "Stack",
    "Task",
    "ToolHang",
    "make_task",
]
