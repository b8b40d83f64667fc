"""The scripted expert: a pick-and-place state machine for all envs at once, with knobs that spoil it.

Where something on a slide covers the object (`ExpertParameters.opening`), it is moved aside first, as often
as it takes.

It reads the simulator's state (no images) and saturates its commands, because in robosuite's 'achieved'
goal mode small offsets stall in friction: hence a gain that saturates at 2 cm, tolerances of 12 mm
(`ExpertParameters.near` where a robot needs less), and time-outs.
"""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from caliper.envs.robot.robots import Robot, robot_facts
from caliper.envs.scripts.handles import turn_handle
from caliper.envs.scripts.hang import hang_tool
from caliper.envs.scripts.person import Person
from caliper.envs.scripts.phases import Phases
from caliper.envs.seeding import normal
from caliper.envs.sim import SimEnv
from caliper.envs.tasks.base import GAIN, ExpertParameters, HandleParameters, HangParameters, Opening

HOVER, DESCEND, CLOSE, LIFT, CARRY, LOWER, OPEN, RETREAT = range(8)
REACH, SINK, GRIP, SLIDE, FREE, RISE, RETURN = range(8, 15)  # the same for what covers the object
SPOKEN = ("osc_pose", "osc_position")  # controllers that read the script's actions
TOL, YAW_TOL, TURN_GAIN = 0.012, 0.08, 0.25  # TOL is of heights, and of where a slide ends
RETRY, DROPPED = 0.03, 0.10  # metres: the object moved away under the gripper; it was lost from it
CLOSE_TIME, OPEN_TIME, STALL_TIME = 0.4, 0.3, 1.25  # seconds
RETREAT_Z = 0.12
SLIPPED = 0.04  # metres: what is being moved aside was lost
HOME = 0.04  # metres from where the episode started: the gripper is back
SLIDE_TIME = 4.0  # seconds after which moving it aside is given up, to try again
ROTATION_NOISE = 0.3  # of the translation's


class Expert:
    """Acts in a `SimEnv`; one phase and one clock per env, restarted with the env's episode."""

    def __init__(
        self, env: SimEnv, noise: Tensor, bias: Tensor, stage: str | None = None, operator: str = "script"
    ) -> None:
        """Prepares for the episodes that run in `env`.

        Args:
            env: the envs.
            noise: (n,), standard deviation of the Gaussian noise on the translation, in units of the action.
            bias: (n,), metres by which the episode's grasp point is off, in a direction drawn from its seed.
            stage: the stage of the task after which to stop; None for the whole task.
            operator: "script", always at full speed, or "person", see `caliper.envs.scripts.person`.
        """
        self.env, self.stage = env, stage
        self.person = Person(env) if operator == "person" else None
        self.noise, self.bias = noise.to(env.device), bias.to(env.device)
        self.phases = Phases(env.num_envs, env.control_freq, env.device)
        self._grasp = torch.tensor(env.task.plan.grasp, dtype=torch.float64, device=env.device)
        turns = getattr(env.task.plan, "turn", None) is not None
        self._middle = wrist_middle(env.engine.model, robot_facts(env.task.robot)) if turns else 0.0

    @property
    def finished(self) -> Tensor:
        """Where the stage to stop after is over and the gripper back where it started, bool (n,)."""
        back: Tensor = (self.env.grip_pos.double() - self.phases.home).norm(dim=1) < HOME
        return back & (self.phases.phase == RETURN)

    def act(self) -> Tensor:
        """Actions for the envs as they are now, float32 (n, a) in [-1, 1]."""
        env, plan, person = self.env, self.env.task.plan, self.person
        grip, pace = env.grip_pos.double(), torch.ones_like(self.noise)
        if person is not None:
            person.tick(self.phases.phase)
            pace = person.pace
        self.phases.tick(env.steps == 0, grip, pace)
        angle = 2 * math.pi * normal(env.seeds, 1, stream=3)[:, 0]
        off = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1) * self.bias[:, None]
        if isinstance(plan, HandleParameters):
            (way, turn, closed), gain = turn_handle(env, plan, self.phases, off), GAIN
        elif isinstance(plan, HangParameters):
            (way, turn, closed), gain = hang_tool(env, plan, self.phases, off), GAIN
        else:
            (way, turn, closed), gain = self._pick_and_place(plan, off), plan.gain
        move = _at_most((way - grip) / (gain * 20 / env.control_freq), pace)
        eps = normal(env.seeds, 6, stream=16 + env.steps) if person is None else person.noise()
        eps = eps * self.noise[:, None]
        arm = move + eps[:, :3]
        if env.action_dim == 7:
            arm = torch.cat([arm, _at_most(turn / TURN_GAIN, pace) + ROTATION_NOISE * eps[:, 3:]], 1)
        if person is not None:
            arm = person.follow(arm)
        return torch.cat([arm, torch.where(closed, 1.0, -1.0).double()[:, None]], 1).clamp(-1, 1).float()

    def _pick_and_place(self, plan: ExpertParameters, off: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `caliper.envs.scripts.handles.turn_handle`."""
        env, phases = self.env, self.phases
        go, phase, seconds = phases.go, phases.before, phases.seconds
        grip, obj = env.grip_pos.double(), env.object_pos.double()
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=env.device)
        grasp = obj + (env.object_mat.double() @ self._grasp) + off
        yaw_error = self._yaw_error(plan)
        flat = (grasp - grip)[:, :2].norm(dim=1)

        carried = obj - grip
        go((phase == HOVER) & (flat < plan.near) & (yaw_error.abs() < YAW_TOL), DESCEND)
        near = (flat < plan.near) & ((grasp - grip)[:, 2].abs() < TOL)
        go((phase == DESCEND) & (near | (seconds > STALL_TIME)), CLOSE)
        go((phase == DESCEND) & (flat > RETRY), HOVER)
        closed = (seconds >= CLOSE_TIME) & ~env.gripper_behind
        go((phase == CLOSE) & closed, LIFT)
        lost = carried.norm(dim=1) > DROPPED
        go((phase == LIFT) & lost & (seconds > 0.15), HOVER)
        if plan.target is not None:
            target = self._target(plan)
            over = (obj - target)[:, :2].norm(dim=1)
            short = self._turn_error(plan)
            turned = short.abs() < plan.turn_tol
            if plan.turn is not None:  # go where the gripper will be then: turning last, the arm overreaches
                carried = _turned(carried, short)
            go((phase == LIFT) & ~lost & (grip[:, 2] > plan.carry_z - 0.02), CARRY)
            go((phase == CARRY) & (over < plan.target_tol) & turned, LOWER)
            go((phase == CARRY) & lost, HOVER)
            low = (obj - target)[:, 2].abs() < TOL
            go((phase == LOWER) & (low | (seconds > STALL_TIME)), OPEN)
            go((phase == OPEN) & (seconds >= OPEN_TIME), RETREAT)
            go((phase == RETREAT) & (seconds > 1.0), HOVER)  # it missed: try again
        else:
            target = obj
        uncover_ways = self._uncover(plan.opening, plan.near, yaw_error, off) if plan.opening else []
        # Waypoint of each phase.
        above = torch.where((phases.phase == CARRY)[:, None], target - carried, phases.hold)
        above = torch.cat([above[:, :2], torch.full_like(above[:, 2:], plan.carry_z)], 1)
        way = phases.choose(
            [
                grasp + plan.hover * up,
                grasp,
                phases.hold,
                above,
                above,
                target - carried,
                phases.hold,
                phases.hold + RETREAT_Z * up,
                *uncover_ways,
            ]
        )
        phase = phases.phase
        turn = torch.zeros_like(way)
        turn[:, 2] = torch.where(_any_of(phase, HOVER, DESCEND, REACH, SINK), yaw_error, 0.0)
        if plan.turn is not None:
            turn[:, 2] += torch.where(_any_of(phase, CARRY, LOWER), self._turn_error(plan), 0.0)
        if plan.level:
            ahead = env.grip_mat.double()[:, :, 2]  # where the gripper points; down is (0, 0, -1)
            turn[:, :2] = torch.stack([-ahead[:, 1], ahead[:, 0]], 1)
        return way, turn, (phase >= CLOSE) & (phase <= LOWER) | (phase == GRIP) | (phase == SLIDE)

    def _uncover(self, opening: Opening, near: float, yaw_error: Tensor, off: Tensor) -> list[Tensor]:
        """The first stage: makes its transitions, gives the waypoints of its phases, each (n, 3)."""
        go, phase, seconds = self.phases.go, self.phases.before, self.phases.seconds
        grip, body = self.env.grip_pos.double(), self.env.now.pos(opening.body).double()
        covered, knob = body[:, 0] < opening.free_x, body + off
        up = torch.tensor([0.0, 0.0, opening.hover], dtype=torch.float64, device=grip.device)
        flat = (knob - grip)[:, :2].norm(dim=1)
        go((phase == HOVER) & covered, REACH)
        go((phase == REACH) & (flat < near) & (yaw_error.abs() < YAW_TOL), SINK)
        low = (flat < near) & ((knob - grip)[:, 2].abs() < TOL)
        go((phase == SINK) & (low | (seconds > STALL_TIME)), GRIP)
        go((phase == SINK) & (flat > RETRY), REACH)
        go((phase == GRIP) & (seconds >= CLOSE_TIME) & ~self.env.gripper_behind, SLIDE)
        slipped = (body - grip)[:, :2].norm(dim=1) > SLIPPED
        there = body[:, 0] > opening.to_x - TOL
        go((phase == SLIDE) & (there | slipped | (seconds > SLIDE_TIME)), FREE)
        go((phase == FREE) & (seconds >= OPEN_TIME), RISE)
        left = (phase == RISE) & (((grip - self.phases.hold - up)[:, 2] > -TOL) | (seconds > STALL_TIME))
        go(left, HOVER)
        if self.stage is not None:
            go((left | (phase == HOVER)) & ~covered, RETURN)
        hold = self.phases.hold
        to = hold.clone()
        to[:, 0] = opening.to_x + (grip - body)[:, 0]
        return [knob + up, knob, hold, to, hold, hold + up, self.phases.home]

    def _yaw_error(self, plan: ExpertParameters) -> Tensor:
        """Angle from the fingers' axis to the nearest equivalent angle of the object, radians, (n,)."""
        env, symmetry = self.env, plan.symmetry
        if (symmetry is None and plan.turn is None) or env.action_dim != 7:
            return torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
        obj, grip = env.object_mat.double(), env.grip_mat.double()
        if plan.opening is not None:
            uncovering = _any_of(self.phases.phase, REACH, SINK)
            obj = torch.where(uncovering[:, None, None], env.now.mat(plan.opening.body).double(), obj)
        if plan.turn is not None:
            held = _grasp_turn(_yaw(obj, 0) - self._middle, plan.turn - self._middle)
            return held - _wrapped(_yaw(grip, 1) - self._middle)
        assert symmetry is not None
        error = _yaw(obj, 0) - _yaw(grip, 1)
        return torch.remainder(error + symmetry / 2, symmetry) - symmetry / 2

    def _target(self, plan: ExpertParameters) -> Tensor:
        """Where the object's centre has to be when the gripper lets go, metres, (n, 3)."""
        env = self.env
        if isinstance(plan.target, str):
            up = torch.tensor([0.0, 0.0, plan.release_z], dtype=torch.float64, device=env.device)
            return env.now.pos(plan.target).double() + up
        at = [*(plan.target or (0.0, 0.0)), plan.release_z]
        return torch.tensor(at, dtype=torch.float64, device=env.device).expand(env.num_envs, 3)

    def _turn_error(self, plan: ExpertParameters) -> Tensor:
        """Angle by which the held object still has to turn, radians, (n,); 0 if any angle will do.

        The way round is that on which the wrist does not run into its limits.
        """
        env, turn = self.env, plan.turn
        if turn is None or env.action_dim != 7:
            return torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
        grip = _yaw(env.grip_mat.double(), 1) - self._middle
        short = turn - _yaw(env.object_mat.double(), 0)
        return _wrapped(grip + short) - _wrapped(grip)


def wrist_middle(model: mujoco.MjModel, robot: Robot) -> float:
    """The gripper's angle about the vertical where the last joint is in the middle of its range, radians.

    The rest of the arm is at rest; so is a joint without a range.
    """
    data = mujoco.MjData(model)
    for name, angle in zip(robot.joints, robot.posture, strict=True):
        data.joint(name).qpos = angle
    last = model.joint(robot.joints[-1])
    if last.limited:
        data.joint(last.id).qpos = last.range.mean()
    mujoco.mj_kinematics(model, data)
    fingers = data.site(robot.grip_site).xmat.reshape(3, 3)[:, 1]
    return math.atan2(fingers[1], fingers[0])


def _grasp_turn(yaw: Tensor, to: float) -> Tensor:
    """Which way round to hold what has to be turned later, so that the wrist's range allows both.

    Args:
        yaw: of the object, from the middle of that range, radians, (n,).
        to: what it has to be turned to, likewise.

    Returns:
        The gripper's angle from the middle, (n,).
    """
    ways = torch.stack([yaw, yaw + math.pi], 1)
    ways, ends = _wrapped(ways), _wrapped(ways + to - yaw[:, None])
    best = (ways**2 + ends**2).argmin(1, keepdim=True)
    return ways.gather(1, best)[:, 0]


def _at_most(command: Tensor, pace: Tensor) -> Tensor:
    """Commands (n, k) between minus and plus the pace (n,)."""
    return torch.minimum(torch.maximum(command, -pace[:, None]), pace[:, None])


def _any_of(phase: Tensor, *wanted: int) -> Tensor:
    return torch.stack([phase == p for p in wanted]).any(0)


def _yaw(mat: Tensor, column: int) -> Tensor:
    """Angle of a column of rotations (n, 3, 3) about the vertical, radians, (n,)."""
    return torch.atan2(mat[:, 1, column], mat[:, 0, column])


def _turned(vector: Tensor, angle: Tensor) -> Tensor:
    """Vectors (n, 3) turned about the vertical by angles (n,)."""
    x, y, z = vector.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], 1)


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
