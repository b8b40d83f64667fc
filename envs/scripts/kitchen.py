"""The script of Franka Kitchen: an operator that does one task after the other.

A stand-in for the people whose demonstrations the published data is. Each task is a few targets of the
gripper, relative to where the handle, knob or switch is now; the next one comes when the gripper is there, or
after some time. A task that is not done at the end of its script is tried again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caliper.envs.scripts.kitchen_arm import Arm, Array, Move, facing, turn_to

OPEN, CLOSE = 1.0, -1.0
TRIES = 3  # of a task
PATIENCE = 40  # control steps for a target
TURN_TOL = 0.2  # radians
PARTIAL_SHARE = 0.25  # of the episodes of kind partial that do the wanted tasks in their order
TASKS_AN_EPISODE = 4  # otherwise, as in the published data
# Radians and metres at which a task is done, each near its goal; the environment is content within 0.3.
DOOR_OPEN, SLID, BURNER_ON, LIGHT_ON, KETTLE_THERE = -0.72, 0.36, -0.82, -0.6, 0.71
DOOR_AHEAD = 0.25  # radians on the door's arc: where the next target is
KNOB_AHEAD = 1.0  # radians on the knob's arc
BESIDE_KNOB = -0.035, -0.045, 0.03  # metres from a knob's middle: the tip is at its upper half
AHEAD = 0.08  # metres by which a push's target is ahead
SLIPPED = 0.06  # metres: the handle is not in the hand any more
BASE = np.array([0.0, -0.122, 0.075])  # from the kettle's middle to where it is pushed
KETTLE_GOAL = np.array([-0.23, 0.75, 1.62])
FINGERTIP = 0.055  # metres beyond the middle between the fingers


@dataclass(frozen=True)
class Script:
    """How a task is done.

    Attributes:
        moves: the targets, one for each control step.
        done: whether it is done.
    """

    moves: Callable[[Arm], Iterator[Move]]
    done: Callable[[Arm], bool]


def _beside(place: Array, right: float, ahead: float, up: float) -> Array:
    offset: Array = np.array([right, ahead, up])
    return place + offset


def _reach(
    arm: Arm, place: Array, turn: Array, fingers: float, tol: float, turn_tol: float = TURN_TOL
) -> Iterator[Move]:
    """Goes to a place until it is `tol` metres away."""
    arm.forget()
    for _ in range(PATIENCE):
        if np.linalg.norm(arm.place - place) < tol and np.linalg.norm(turn_to(arm.turn, turn)) < turn_tol:
            return
        yield Move(place, turn, fingers)


def _hold(arm: Arm, turn: Array, fingers: float, steps: int) -> Iterator[Move]:
    """Stays, and opens or closes the fingers."""
    place = arm.place
    for _ in range(steps):
        yield Move(place, turn, fingers)


def _microwave(arm: Arm) -> Iterator[Move]:
    """Holds the handle, which stands upright, and pulls along the door's arc."""
    turn = facing(0.5, 0.45)
    ahead = turn[:, 2]
    handle = arm.site("microhandle_site")
    yield from _reach(arm, handle - 0.12 * ahead, turn, OPEN, 0.04)
    yield from _reach(arm, handle + 0.01 * ahead, turn, OPEN, 0.015)
    yield from _hold(arm, turn, CLOSE, 4)
    hinge = arm.data.joint("microwave").xanchor.copy()
    sin, cos = math.sin(-DOOR_AHEAD), math.cos(-DOOR_AHEAD)
    for _ in range(PATIENCE):
        handle = arm.site("microhandle_site")
        lost = np.linalg.norm(handle + 0.01 * ahead - arm.place) > SLIPPED
        if arm.joint("microwave") < DOOR_OPEN or lost:
            break
        x, y, z = handle - hinge
        yield Move(_beside(hinge, cos * x - sin * y, sin * x + cos * y, z) + 0.01 * ahead, turn, CLOSE)
    yield from _hold(arm, turn, OPEN, 2)
    yield from _reach(arm, arm.place - 0.12 * ahead, turn, OPEN, 0.05)


def _kettle(arm: Arm) -> Iterator[Move]:
    """Comes down before it, and pushes low with the fingers apart, so that it neither tips nor turns."""
    turn = facing(-0.1, 0.6)
    kettle, tip = arm.data.body("kettle"), FINGERTIP * turn[:, 2]
    before = kettle.xpos + BASE - tip
    yield from _reach(arm, _beside(before, 0, -0.05, 0.2), turn, OPEN, 0.08, 0.4)
    yield from _reach(arm, _beside(before, 0, -0.03, 0), turn, OPEN, 0.03)
    for _ in range(PATIENCE):
        if kettle.xpos[1] > KETTLE_THERE:
            break
        way = KETTLE_GOAL - kettle.xpos
        way[2] = 0  # it may have been lifted a little
        push = kettle.xpos + BASE - tip + AHEAD * way / np.linalg.norm(way)
        push[2] = (KETTLE_GOAL + BASE - tip)[2]
        yield Move(push, turn, OPEN)
    yield from _reach(arm, _beside(arm.place, 0, -0.08, 0.12), turn, OPEN, 0.05)


def _light(arm: Arm) -> Iterator[Move]:
    """Pushes the switch to the left."""
    turn, switch = facing(0, 0.4), arm.site("light_site")
    yield from _reach(arm, _beside(switch, 0.07, -0.12, 0), turn, CLOSE, 0.05)
    yield from _reach(arm, _beside(switch, 0.07, -0.03, 0), turn, CLOSE, 0.02)
    for _ in range(15):
        if arm.joint("light_switch") < LIGHT_ON:
            break
        yield Move(_beside(switch, -0.12, -0.03, 0), turn, CLOSE)
    yield from _reach(arm, _beside(switch, -0.1, -0.15, 0), turn, CLOSE, 0.05)


def _slide(arm: Arm) -> Iterator[Move]:
    """Pushes the handle to the right."""
    turn, handle = facing(0, 0.4), arm.site("slide_site")
    yield from _reach(arm, _beside(handle, -0.08, -0.12, 0), turn, CLOSE, 0.05)
    yield from _reach(arm, _beside(handle, -0.08, -0.02, 0), turn, CLOSE, 0.02)
    for _ in range(PATIENCE):
        if arm.joint("slide_cabinet") > SLID:
            break
        yield Move(_beside(arm.site("slide_site"), 0.04, -0.02, 0), turn, CLOSE)
    yield from _reach(arm, _beside(arm.place, -0.05, -0.12, 0), turn, CLOSE, 0.05)


def _burner(number: int) -> Script:
    """Pushes the upper half of a knob to the right, which turns it."""
    joint = f"knob_Joint_{number}"

    def moves(arm: Arm) -> Iterator[Move]:
        turn, knob = facing(0, 0.3), arm.site(f"knob{number}_site")
        left, before, up = BESIDE_KNOB
        yield from _reach(arm, _beside(knob, left - 0.02, before - 0.08, up), turn, CLOSE, 0.04)
        yield from _reach(arm, _beside(knob, left - 0.02, before, up), turn, CLOSE, 0.015)
        for _ in range(PATIENCE):
            if done(arm):
                break
            angle = KNOB_AHEAD - arm.joint(joint)
            sin, cos = math.sin(angle), math.cos(angle)
            x, z = cos * left + sin * up, cos * up - sin * left
            yield Move(_beside(knob, x, before, z), turn, CLOSE)
        yield from _reach(arm, _beside(arm.place, -0.02, -0.1, 0), turn, CLOSE, 0.05)

    def done(arm: Arm) -> bool:
        return arm.joint(joint) < BURNER_ON

    return Script(moves, done)


SCRIPTS = {
    "microwave": Script(_microwave, lambda arm: arm.joint("microwave") < DOOR_OPEN + 0.05),
    "kettle": Script(_kettle, lambda arm: bool(arm.data.body("kettle").xpos[1] > KETTLE_THERE - 0.05)),
    "bottom burner": _burner(2),
    "top burner": _burner(4),
    "light switch": Script(_light, lambda arm: arm.joint("light_switch") < LIGHT_ON),
    "slide cabinet": Script(_slide, lambda arm: arm.joint("slide_cabinet") > SLID - 0.05),
}


class Operator:
    """Who does some tasks in one kitchen, from the beginning of an episode on."""

    def __init__(self, env: Any, tasks: Sequence[str]) -> None:
        """Args: the kitchen of gymnasium-robotics, just reset; names of `SCRIPTS`, in their order."""
        self._arm = Arm(env)
        self._moves = self._work(tasks)

    def act(self) -> Array | None:
        """The next action (9,), or None where all is done that can be."""
        move = next(self._moves, None)
        return None if move is None else self._arm.act(move)

    def _work(self, tasks: Sequence[str]) -> Iterator[Move]:
        for task in tasks:
            for _ in range(TRIES):
                yield from SCRIPTS[task].moves(self._arm)
                if SCRIPTS[task].done(self._arm):
                    break


def draw_tasks(kind: str, wanted: Sequence[str], rng: np.random.Generator) -> list[str]:
    """What an episode does, in which order.

    Args:
        kind: complete, the wanted tasks; partial, them in a quarter of the episodes and else any four that
            there is a script for; mixed, any four, but never all that are wanted.
        wanted: tasks that the environment counts.
        rng: of the episode.
    """
    if kind == "complete" or (kind == "partial" and rng.random() < PARTIAL_SHARE):
        return list(wanted)
    names = list(SCRIPTS)
    while True:
        drawn = [names[i] for i in rng.permutation(len(names))[:TASKS_AN_EPISODE]]
        if kind == "partial" or not set(wanted) <= set(drawn):
            return drawn
