"""Which task of Caliper's a recording belongs to."""

from __future__ import annotations

from caliper.data.formats.recordings import Recording
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError, one_of

ROBOT = "Panda"


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
