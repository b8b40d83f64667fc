"""Recorded actions beside recorded states: does the one lead to the other in the installed scene?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from caliper.data.dataset import Dataset, Episode
from caliper.envs.robot.robots import robot_facts
from caliper.envs.sim import SimEnv
from caliper.utils.early import stop_if_told

NUM_ENVS = 32
ARM, OBJECT = 0.02, 0.005  # rad and m: farther off, a demo has left its states

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the actions of one demo lead to, from its first state, each action under the state reached so far.

    Attributes:
        demo: its name in the file.
        arm: largest error of a joint of the arm after each action, rad (t,).
        object: distance of the object from where it was recorded, m (t,). Both are shorter than the demo if
            the task was solved earlier than recorded.
        solved: number of actions after which the task was solved, or None.
        recorded: the same as the file says.
    """

    demo: str
    arm: Array
    object: Array
    solved: int | None
    recorded: int | None

    @property
    def left(self) -> int | None:
        """The first action after which a joint is off by more than `ARM`, or the object by `OBJECT`."""
        off = np.flatnonzero(~((self.arm <= ARM) & (self.object <= OBJECT)))  # NaN is off, too
        return int(off[0]) + 1 if len(off) else None

    def __str__(self) -> str:
        t, at = len(self.arm), self.left
        most = f"joints within {self.arm.max():.2g} rad, object within {1000 * self.object.max():.2g} mm"
        if at is None:
            way = f"follows its {t} states ({most})"
        else:
            arm, mm = self.arm[at - 1], 1000 * self.object[at - 1]
            way = (
                f"leaves its states at action {at} of {t} (a joint {arm:.2g} rad off, the object {mm:.2g} mm)"
            )
        outcome = "not solved" if self.solved is None else f"solved after {self.solved}"
        if self.solved != self.recorded:
            was = "not solved" if self.recorded is None else f"solved after {self.recorded}"
            return f"{way}; {outcome}, recorded as {was}"
        return f"{way}; {outcome}, as recorded"


def replay_actions(dataset: Dataset) -> Iterator[Replayed]:
    """Runs every demo's actions open loop in the installed scene.

    The null space is pulled to the joint angles of the first state, as in Caliper's own episodes; what leaves
    its states so is tried with robosuite's rest posture, as recordings of robosuite may need it.

    Args:
        dataset: of an installed task, which it fits (see `Dataset.check`).
    """
    meta, demos = dataset.meta, list(zip(dataset.demos, dataset.episodes, strict=True))
    env = SimEnv(
        meta.task,
        min(NUM_ENVS, len(demos)),
        cameras=(),
        controller=meta.controller,
        control_freq=meta.control_freq,
        horizon=1 << 40,
        robot=meta.robot,
        draw_size=meta.draw_size,
    )
    for first in range(0, len(demos), env.num_envs):
        stop_if_told()
        chunk = demos[first : first + env.num_envs]
        found = _run(env, chunk, rest=False)
        again = [i for i, result in enumerate(found) if result.left is not None]
        if again:
            for i, other in zip(again, _run(env, [chunk[i] for i in again], rest=True), strict=True):
                if other.left is None or other.left > (found[i].left or 0):
                    found[i] = other
        yield from found


def _run(env: SimEnv, demos: Sequence[tuple[str, Episode]], rest: bool) -> list[Replayed]:
    model, index, n = env.engine.model, env.engine.controller.index, len(demos)
    body = model.body(env.task.object_body)
    arm, at = 1 + index.qpos, 1 + int(model.jnt_qposadr[body.jntadr[0]])
    free = model.jnt_type[body.jntadr[0]] == mujoco.mjtJoint.mjJNT_FREE
    end = at + (
        3 if free else 1
    )  # of what turns on a hinge, the angle: metres on an arc of one metre's radius
    _put(env, [episode.states[0] for _, episode in demos], rest)
    arms: list[list[float]] = [[] for _ in demos]
    objects: list[list[float]] = [[] for _ in demos]
    solved: list[int | None] = [None] * n
    for t in range(max(len(episode) for _, episode in demos)):
        action = torch.zeros(env.num_envs, env.action_dim, dtype=torch.float64)
        running = [i for i, (_, e) in enumerate(demos) if t < len(e) and solved[i] is None]
        for i in running:
            action[i] = torch.as_tensor(demos[i][1].actions[t])
        success = env.step(action.to(env.device)).success.cpu()
        reached = env.final_state.cpu().numpy()  # (n, s)
        for i in running:
            episode = demos[i][1]
            expected = episode.states[t + 1] if t + 1 < len(episode) else episode.final_state
            arms[i].append(float(np.abs(reached[i, arm] - expected[arm]).max()))
            objects[i].append(float(np.linalg.norm(reached[i, at:end] - expected[at:end])))
            if success[i]:
                solved[i] = t + 1
    return [
        Replayed(name, np.array(a), np.array(o), done, len(episode) if episode.success else None)
        for (name, episode), a, o, done in zip(demos, arms, objects, solved, strict=True)
    ]


def _put(env: SimEnv, states: Sequence[Array], rest: bool) -> None:
    """Begins an episode in each env from a state, with nothing left of what was before."""
    rows = torch.as_tensor(np.stack(states))  # (n, s)
    state, n, nq, nv = env.state_dict(), len(states), env.engine.model.nq, env.engine.model.nv
    for name in ("ctrl", "warmstart", "steps", *env.engine.controller.memory):
        state[name].zero_()
    state["qpos"][:n], state["qvel"][:n] = rows[:, 1 : 1 + nq], rows[:, 1 + nq : 1 + nq + nv]
    if env.engine.model.nmocap:
        fixtures = rows[:, 1 + nq + nv :].view(n, -1, 7)
        state["mocap_pos"][:n], state["mocap_quat"][:n] = fixtures[..., :3], fixtures[..., 3:]
    joints = rows[:, 1 + env.engine.controller.index.qpos]
    if "posture" in state:
        posture = torch.tensor(robot_facts(env.task.robot).posture, dtype=joints.dtype)
        state["posture"][:n] = posture.expand(n, -1) if rest else joints
    env.load_state_dict(state)
