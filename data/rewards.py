"""Which rewards a file may hold, and what makes of them the one convention that everything else relies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from caliper.data.dataset import Episode
from caliper.errors import CaliperError

# The values of data.rewards, and which rewards each is for.
CONVENTIONS = {
    "success": "1 on the step that met the success test, 0 on the others",
    "step_cost": "0 on the step that met the success test, -1 on the others",
    "flag": "any; not read, but made from the episodes' attribute success",
}
_LEVELS = {"success": (0.0, 1.0), "step_cost": (-1.0, 0.0)}


def convention(rewards: Sequence[NDArray[np.float32]]) -> str | None:
    """The convention that a file's rewards, (t,) each, follow: success, step_cost, or None.

    All zero counts as success: episodes without any.
    """
    values = set(np.unique(np.concatenate([np.unique(r) for r in rewards])).tolist())
    return next((name for name, levels in _LEVELS.items() if values <= set(levels)), None)


def odd_one(rewards: NDArray[np.float32], name: str) -> int | None:
    """The first step whose reward is not one of a convention, or None."""
    rows = np.flatnonzero(~np.isin(rewards, _LEVELS[name])) if name in _LEVELS else np.zeros(0, int)
    return int(rows[0]) if len(rows) else None


def converted(episodes: Sequence[Episode], demos: Sequence[str], given: str, where: str) -> list[Episode]:
    """Episodes whose rewards are 1 on the step that met the success test, and 0 on the others.

    Args:
        episodes: with rewards as recorded.
        demos: what each is called in its file.
        given: the convention of the recorded rewards, of `CONVENTIONS`.
        where: what they were read from, for messages.

    Raises:
        CaliperError: a reward is not of that convention, or the flags of an episode say another thing than
            its rewards; names the first episode and row.
    """
    made = []
    found = convention([e.rewards for e in episodes])
    for episode, demo in zip(episodes, demos, strict=True):
        row = odd_one(episode.rewards, given)
        if row is not None:
            fix = (
                f"all are of the convention {found}: set data.rewards={found}"
                if found
                else "set data.rewards=flag to use the episodes' success flags instead"
            )
            reward = float(str(episode.rewards[row]))  # the shortest that is this one: .9999999 is not 1
            raise CaliperError(
                f"{where}: the reward in {demo}, row {row}, is {reward:.9g}, but rewards must be "
                f"{CONVENTIONS[given]}; {fix}"
            )
        rewards = episode.rewards + np.float32(given == "step_cost")
        if given == "flag":
            rewards = np.zeros_like(rewards)
            rewards[-1] = episode.success
        if fault := contradiction(rewards, episode.success, episode.terminated):
            raise CaliperError(
                f"{where}: in {demo} {fault}; fix it, or, if its flags are right, set data.rewards=flag"
            )
        made.append(replace(episode, rewards=rewards))
    return made


def contradiction(rewards: NDArray[np.float32], success: bool, terminated: bool) -> str | None:
    """Where an episode's flags and its rewards, 1 on success and 0 else, exclude each other."""
    met = np.flatnonzero(rewards == 1)
    if success and not len(met):
        return "the attribute success is true, but no reward says so"
    if len(met) and not success:
        return f"the attribute success is false, but the reward in row {met[0]} says success"
    if terminated and rewards[-1] != 1:
        return "the attribute terminated is true, but the last reward does not say success"
    return None
