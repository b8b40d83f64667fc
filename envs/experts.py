"""The scripted expert: a pick-and-place state machine for all envs at once, with knobs that spoil it.

Where something on a slide covers the object (`Plan.opening`), it is moved aside first, as often as it takes.

It reads the simulator's state (no images) and saturates its commands, because in robosuite's 'achieved'
goal mode small offsets stall in friction: hence a gain that saturates at 2 cm, tolerances of 12 mm, and
time-outs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from caliper.envs.seeding import normal
from caliper.envs.sim import SimEnv

HOVER, DESCEND, CLOSE, LIFT, CARRY, LOWER, OPEN, RETREAT = range(8)
REACH, SINK, GRIP, SLIDE, FREE, RISE, RETURN = range(8, 15)  # the same for what covers the object
SPOKEN = ("osc_pose", "osc_position")  # controllers that read the script's actions
GAIN = 0.02  # metres of error at which the command saturates, at 20 Hz
TOL, YAW_TOL, YAW_GAIN = 0.012, 0.08, 0.25
RETRY, DROPPED = 0.03, 0.10  # metres: the object moved away under the gripper; it was lost from it
CLOSE_TIME, OPEN_TIME, STALL_TIME = 0.4, 0.3, 1.25  # seconds
RETREAT_Z = 0.12
SLIPPED = 0.04  # metres: what is being moved aside was lost
HOME = 0.04  # metres from where the episode started: the gripper is back
SLIDE_TIME = 4.0  # seconds after which moving it aside is given up, to try again
ROTATION_NOISE = 0.3  # of the translation's


class Expert:
    """Acts in a `SimEnv`; one phase and one clock per env, restarted with the env's episode."""

    def __init__(self, env: SimEnv, noise: Tensor, bias: Tensor, stage: str | None = None) -> None:
        """Prepares for the episodes that run in `env`.

        Args:
            env: the envs.
            noise: (n,), standard deviation of the Gaussian noise on the translation, in units of the action.
            bias: (n,), metres by which the episode's grasp point is off, in a direction drawn from its seed.
            stage: the stage of the task after which to stop; None for the whole task.
        """
        self.env, self.stage = env, stage
        self.noise, self.bias = noise.to(env.device), bias.to(env.device)
        opening = env.task.plan.opening
        self.cover = env.engine.model.body(opening.body).id if opening else None
        n, device = env.num_envs, env.device
        self.phase = torch.zeros(n, dtype=torch.long, device=device)
        self.clock = torch.zeros(n, dtype=torch.long, device=device)
        self.hold = torch.zeros(n, 3, dtype=torch.float64, device=device)
        self.home = torch.zeros_like(self.hold)

    @property
    def finished(self) -> Tensor:
        """Where the stage to stop after is over and the gripper back where it started, bool (n,)."""
        back: Tensor = (self.env.grip_pos.double() - self.home).norm(dim=1) < HOME
        return back & (self.phase == RETURN)

    def act(self) -> Tensor:
        """Actions for the envs as they are now, float32 (n, a) in [-1, 1]."""
        env, plan, freq = self.env, self.env.task.plan, self.env.control_freq
        fresh = env.steps == 0
        self.phase, self.clock = self.phase.masked_fill(fresh, HOVER), self.clock.masked_fill(fresh, 0)
        grip, obj = env.grip_pos.double(), env.object_pos.double()
        self.home = torch.where(fresh[:, None], grip, self.home)
        angle = 2 * math.pi * normal(env.seeds, 1, stream=3)[:, 0]
        off = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1) * self.bias[:, None]
        grasp = obj + off
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=env.device)
        yaw_error = self._yaw_error()
        flat = (grasp - grip)[:, :2].norm(dim=1)

        def go(where: Tensor, to: int) -> None:
            self.clock.masked_fill_(where, 0)
            self.phase.masked_fill_(where, to)
            self.hold.copy_(torch.where(where[:, None], grip, self.hold))

        # Transitions, each env at most one per step: decided on the phase at the start of the step.
        phase = self.phase.clone()
        self.clock += 1
        seconds = self.clock / freq
        carried = obj - grip
        go((phase == HOVER) & (flat < TOL) & (yaw_error.abs() < YAW_TOL), DESCEND)
        near = (flat < TOL) & ((grasp - grip)[:, 2].abs() < TOL)
        go((phase == DESCEND) & (near | (seconds > STALL_TIME)), CLOSE)
        go((phase == DESCEND) & (flat > RETRY), HOVER)
        closed = (seconds >= CLOSE_TIME) & ~env.gripper_behind
        go((phase == CLOSE) & closed, LIFT)
        lost = carried.norm(dim=1) > DROPPED
        go((phase == LIFT) & lost & (seconds > 0.15), HOVER)
        if plan.target is not None:
            target = torch.tensor([*plan.target, plan.release_z], dtype=torch.float64, device=env.device)
            over = (obj - target)[:, :2].norm(dim=1)
            go((phase == LIFT) & ~lost & (grip[:, 2] > plan.carry_z - 0.02), CARRY)
            go((phase == CARRY) & (over < plan.target_tol), LOWER)
            go((phase == CARRY) & lost, HOVER)
            low = (obj[:, 2] - plan.release_z).abs() < TOL
            go((phase == LOWER) & (low | (seconds > STALL_TIME)), OPEN)
            go((phase == OPEN) & (seconds >= OPEN_TIME), RETREAT)
            go((phase == RETREAT) & (seconds > 1.0), HOVER)  # it missed: try again
        else:
            target = obj
        uncover_ways = self._uncover(go, phase, seconds, yaw_error, off)
        # Waypoint of each phase.
        above = torch.where((self.phase == CARRY)[:, None], target - carried, self.hold)
        above = torch.cat([above[:, :2], torch.full_like(above[:, 2:], plan.carry_z)], 1)
        ways = torch.stack(
            [
                grasp + plan.hover * up,
                grasp,
                self.hold,
                above,
                above,
                target - carried,
                self.hold,
                self.hold + RETREAT_Z * up,
                *uncover_ways,
            ],
            1,
        )  # (n, phases, 3)
        way = ways.gather(1, self.phase[:, None, None].expand(-1, 1, 3))[:, 0]
        move = torch.clamp((way - grip) / (GAIN * 20 / freq), -1, 1)
        turning = (self.phase == HOVER) | (self.phase == DESCEND)
        turning |= (self.phase == REACH) | (self.phase == SINK)
        turn = torch.zeros_like(move)
        turn[:, 2] = torch.where(turning, torch.clamp(yaw_error / YAW_GAIN, -1, 1), 0.0)
        eps = normal(env.seeds, 6, stream=16 + env.steps) * self.noise[:, None]
        holds = (self.phase >= CLOSE) & (self.phase <= LOWER) | (self.phase == GRIP) | (self.phase == SLIDE)
        parts = [move + eps[:, :3]]
        if env.action_dim == 7:
            parts.append(turn + ROTATION_NOISE * eps[:, 3:])
        parts.append(torch.where(holds, 1.0, -1.0).double()[:, None])
        return torch.cat(parts, 1).clamp(-1, 1).float()

    def _uncover(
        self,
        go: Callable[[Tensor, int], None],
        phase: Tensor,
        seconds: Tensor,
        yaw_error: Tensor,
        off: Tensor,
    ) -> list[Tensor]:
        """The first stage: makes its transitions, gives the waypoints of its phases, each (n, 3)."""
        opening, grip = self.env.task.plan.opening, self.env.grip_pos.double()
        if opening is None:
            return []
        body = self.env.engine.xpos[:, self.cover].double()
        covered, knob = body[:, 0] < opening.free_x, body + off
        up = torch.tensor([0.0, 0.0, opening.hover], dtype=torch.float64, device=grip.device)
        flat = (knob - grip)[:, :2].norm(dim=1)
        go((phase == HOVER) & covered, REACH)
        go((phase == REACH) & (flat < TOL) & (yaw_error.abs() < YAW_TOL), SINK)
        low = (flat < TOL) & ((knob - grip)[:, 2].abs() < TOL)
        go((phase == SINK) & (low | (seconds > STALL_TIME)), GRIP)
        go((phase == SINK) & (flat > RETRY), REACH)
        go((phase == GRIP) & (seconds >= CLOSE_TIME) & ~self.env.gripper_behind, SLIDE)
        slipped = (body - grip)[:, :2].norm(dim=1) > SLIPPED
        there = body[:, 0] > opening.to_x - TOL
        go((phase == SLIDE) & (there | slipped | (seconds > SLIDE_TIME)), FREE)
        go((phase == FREE) & (seconds >= OPEN_TIME), RISE)
        left = (phase == RISE) & (((grip - self.hold - up)[:, 2] > -TOL) | (seconds > STALL_TIME))
        go(left, HOVER)
        if self.stage is not None:
            go((left | (phase == HOVER)) & ~covered, RETURN)
        to = self.hold.clone()
        to[:, 0] = opening.to_x + (grip - body)[:, 0]
        return [knob + up, knob, self.hold, to, self.hold, self.hold + up, self.home]

    def _yaw_error(self) -> Tensor:
        """Angle from the fingers' axis to the nearest equivalent angle of the object, radians, (n,)."""
        symmetry, env = self.env.task.plan.symmetry, self.env
        if symmetry is None or env.action_dim != 7:
            return torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
        obj, grip = env.object_mat.double(), env.grip_mat.double()
        if self.cover is not None:
            uncovering = (self.phase == REACH) | (self.phase == SINK)
            cover = env.engine.xmat[:, self.cover].view(-1, 3, 3).double()
            obj = torch.where(uncovering[:, None, None], cover, obj)
        error = torch.atan2(obj[:, 1, 0], obj[:, 0, 0]) - torch.atan2(grip[:, 1, 1], grip[:, 0, 1])
        return torch.remainder(error + symmetry / 2, symmetry) - symmetry / 2
