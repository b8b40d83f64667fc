"""The script of ToolHang: stand the hook's rod in its stand, then hang the tool on the hook.

Both lie on the table. The rod is held at a slant: upright, 90 degrees later, the gripper is at a slant to the
other side, so that the arm can follow. The tool's hole goes over the hook's upright end from above; then the
tool is tilted, outer end down, which brings the hole around the corner onto the bar, and let go.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caliper.envs.scripts.phases import Phases
from caliper.envs.scripts.turns import apply, limited, turn_between
from caliper.envs.sim import SimEnv
from caliper.envs.tasks.base import HangParameters, Point

# With the rod, then with the tool. The first four of both are the same.
REACH, SINK, GRIP, LIFT, CARRY, AIM, INSERT, LET_GO, LEAVE = range(9)
TOOL, TOOL_GRIP, TOOL_LIFT, TOOL_CARRY, TOOL_AIM, COVER, TILT, DROP, BACK = 9, *range(11, 19)
STEP, TURN = 0.02, 0.25  # metres and radians at which a command saturates, at 20 Hz
BRISK, CALM = 0.6, 0.4  # of these, with something in the hand, and where it has to fit
HOVER = 0.08  # metres before the grasp point at which the gripper aligns
SLANT = math.radians(45)  # of the gripper to the rod
ROD_Z, TOOL_Z = 1.19, 1.15  # heights of the gripper from which on it carries
TOL, TURN_TOL = 0.008, 0.1  # metres and radians, to grasp
NEAR, NEAR_TURN = 0.02, 0.2  # to be carried far enough
FIT, FIT_TURN = 0.002, 0.06  # to begin to insert
REACH_TIME, AIM_TIME, EASE_TIME = 4.0, 0.5, 1.0  # seconds after which more will do; in which it doubles
MISSED = 0.006  # metres from the hole's axis: the rod is not in it
LOST = 0.06  # metres from the grasp point: it is not in the hand
ABOVE = 0.02  # metres above the mouth at which to aim
INSIDE = 0.015  # metres below the mouth, from where on the walls hold the tip
UNDER = 0.006  # metres above the floor that will do
COVERED, TILTED = math.radians(20), math.radians(50)  # by how much the tool's outer end is down
CLOSE_TIME, OPEN_TIME, STALL_TIME, INSERT_TIME, FIT_TIME = 0.4, 0.3, 1.25, 4.0, 2.0  # seconds
REST_TIME = 0.35  # seconds after which what swings has come to rest
BACK_OFF = 0.12  # metres by which the gripper leaves
Move = tuple[Tensor, Tensor]  # where the gripper is to be, metres, and by what to turn it, both (n, 3)


def hang_tool(
    env: SimEnv, plan: HangParameters, phases: Phases, off: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `caliper.envs.scripts.handles.turn_handle`."""
    hand = Hand(env, phases)
    moves = _stand_up(hand, plan, off) + _hang_up(hand, plan, off)
    way, turn = (phases.choose([move[i] for move in moves]) for i in range(2))
    phase = phases.phase
    pace = torch.ones(len(phase), dtype=torch.float64, device=env.device)
    for some, share in (((LIFT, CARRY, TOOL_LIFT, TOOL_CARRY), BRISK), ((COVER, TILT, DROP), CALM)):
        pace = torch.where(_any_of(phase, some), share, pace)
    way = hand.pos + limited(way - hand.pos, hand.step * pace)
    closed = (phase >= GRIP) & (phase <= INSERT) | (phase >= TOOL_GRIP) & (phase <= TILT)
    return way, limited(turn, TURN * pace), closed


class Hand:
    """The gripper as it is, what it is to do next, and how to say so."""

    def __init__(self, env: SimEnv, phases: Phases) -> None:
        """Args: the envs; the clockwork, ticked."""
        self.env, self.now, self.phases = env, env.now, phases
        self.pos, self.mat = env.now.grip_pos.double(), env.now.grip_mat.double()
        self.up = self.vector((0.0, 0.0, 1.0))
        self.step = STEP * 20 / env.control_freq
        self.stay = (phases.hold, torch.zeros_like(self.up))

    def vector(self, numbers: Point) -> Tensor:
        """The same three numbers for each env, (n, 3)."""
        row = torch.tensor(numbers, dtype=torch.float64, device=self.pos.device)
        return row.expand(len(self.pos), 3)

    def pose(self, body: str) -> tuple[Tensor, Tensor]:
        """Position (n, 3) and rotation (n, 3, 3) of a body."""
        return self.now.pos(body).double(), self.now.mat(body).double()

    def at(self, body: str, point: Point) -> Tensor:
        """A point of a body, in its frame, as it is in the world, (n, 3)."""
        pos, mat = self.pose(body)
        return pos + apply(mat, self.vector(point))

    def carry(self, mat: Tensor, point: Tensor, to_mat: Tensor, to: Tensor) -> Move:
        """Turns what is held, whose rotation is `mat`, and brings its point to another."""
        turn = to_mat @ mat.transpose(1, 2)
        return to + apply(turn, self.pos - point), turn_between(mat, to_mat)

    def take(self, first: int, point: Tensor, mat: Tensor, level: Tensor, height: float) -> list[Move]:
        """Phases `first` to `first` + 3: align before a point, go there, close, lift.

        Args:
            first: of the phases.
            point: where the gripper is to be, (n, 3).
            mat: the rotation it is to have, (n, 3, 3).
            level: by what to turn what is held to keep it level, (n, 3).
            height: of the gripper to lift to.
        """
        env, phases = self.env, self.phases
        go, phase, seconds = phases.go, phases.before, phases.seconds
        ahead, gap, turn = mat[:, :, 2], point - self.pos, turn_between(self.mat, mat)
        beside = (gap - (gap * ahead).sum(1, keepdim=True) * ahead).norm(dim=1)
        eased = _eased(seconds, REACH_TIME)
        aligned = (beside < TOL * eased) & (turn.norm(dim=1) < TURN_TOL * eased)
        go((phase == first) & aligned, first + 1)
        arrived = (gap.norm(dim=1) < TOL) | (seconds > STALL_TIME)
        go((phase == first + 1) & arrived, first + 2)
        go((phase == first + 2) & (seconds > CLOSE_TIME) & ~env.gripper_behind, first + 3)
        go((phase == first + 3) & (height - self.pos[:, 2] < NEAR), first + 4)
        go((phase > first + 2) & (phase < first + 6) & (gap.norm(dim=1) > LOST), first)
        high = torch.cat([phases.hold[:, :2], torch.full_like(point[:, 2:], height)], 1)
        return [(point - HOVER * ahead, turn), (point, turn), self.stay, (high, level)]

    def fits(self, gap: Tensor, turn: Tensor) -> Tensor:
        """Whether something may go in, bool (n,): `gap` and `turn` are what it is off by, (n, 3) each."""
        seconds = self.phases.seconds
        eased = _eased(seconds, AIM_TIME)
        exact: Tensor = (gap.norm(dim=1) < FIT * eased) & (turn.norm(dim=1) < FIT_TURN * eased)
        return exact & (seconds > REST_TIME)


def _stand_up(hand: Hand, plan: HangParameters, off: Tensor) -> list[Move]:
    """The rod's phases: makes their transitions, says what to do in each."""
    go, phase, seconds = hand.phases.go, hand.phases.before, hand.phases.seconds
    _, mat = hand.pose(plan.frame)
    held, tip = hand.at(plan.frame, plan.rod), hand.now.site(plan.tip).double()
    mouth, floor = hand.at(plan.stand, plan.mouth), hand.at(plan.stand, plan.floor)
    upright = _upright(hand, plan)
    turn = turn_between(mat, upright)
    gap, deep = floor - tip, (tip - floor)[:, 2] < UNDER
    flat = gap * hand.vector((1.0, 1.0, 0.0))
    standing = (gap.norm(dim=1) < 3 * UNDER) & (turn.norm(dim=1) < NEAR_TURN)
    above = mouth + ABOVE * hand.up
    go((phase == REACH) & standing, TOOL)
    along = _horizontal(mat[:, :, 2])
    level = turn_between(mat, torch.stack([torch.linalg.cross(along, hand.up), -hand.up, along], 2))
    moves = hand.take(REACH, held + off, _slanted(mat), level, ROD_Z)
    there = ((above - tip).norm(dim=1) < NEAR) & (turn.norm(dim=1) < NEAR_TURN)
    go((phase == CARRY) & there, AIM)
    go((phase == AIM) & hand.fits(flat, turn), INSERT)
    go((phase == INSERT) & (flat.norm(dim=1) > MISSED), AIM)
    go((phase == INSERT) & (deep | (seconds > INSERT_TIME)), LET_GO)
    go((phase == LET_GO) & (seconds > OPEN_TIME), LEAVE)
    away = (hand.pos - hand.phases.hold).norm(dim=1) > BACK_OFF - NEAR
    left = (phase == LEAVE) & (away | (seconds > STALL_TIME))
    go(left & standing, TOOL)
    go(left & ~standing, REACH)
    sink = (gap - UNDER * hand.up).clamp(min=-CALM * hand.step) * hand.up
    enter = hand.carry(mat, tip, upright, tip + flat + sink)
    # Once it is in, the walls guide the rod: the gripper goes straight down and does not turn.
    slant = _slanted(upright)
    keep = turn_between(hand.mat, slant)
    down = hand.pos + (mouth - held) * hand.vector((1.0, 1.0, 0.0)) + sink
    inside = (tip[:, 2] < mouth[:, 2] - INSIDE)[:, None]
    insert = torch.where(inside, down, enter[0]), torch.where(inside, keep, enter[1])
    carry = hand.carry(mat, tip, upright, above)
    leave = hand.phases.hold - BACK_OFF * slant[:, :, 2]
    return [*moves, carry, carry, insert, (hand.phases.hold, keep), (leave, keep)]


def _hang_up(hand: Hand, plan: HangParameters, off: Tensor) -> list[Move]:
    """The tool's phases, likewise."""
    go, phase, seconds = hand.phases.go, hand.phases.before, hand.phases.seconds
    tool = hand.env.task.object_body
    _, mat = hand.pose(tool)
    side = mat[:, 2, 2].sign()  # it is the same either way up
    mat = mat * torch.stack([torch.ones_like(side), side, side], 1)[:, None]
    hole, upright = hand.now.site(plan.hole).double(), _upright(hand, plan)
    over, around, hung = (hand.at(plan.frame, point) for point in (plan.over, plan.around, plan.hung))
    grasp = _columns(-mat[:, :, 1], -mat[:, :, 2])
    along = _horizontal(mat[:, :, 0])
    level = turn_between(mat, torch.stack([along, torch.linalg.cross(hand.up, along), hand.up], 2))
    moves = hand.take(TOOL, hand.at(tool, plan.grasp) + off, grasp, level, TOOL_Z)
    covered, tilted = (_sloped(upright, angle) for angle in (COVERED, TILTED))
    turn = turn_between(mat, covered)
    near = ((over - hole).norm(dim=1) < NEAR) & (turn.norm(dim=1) < NEAR_TURN)
    go((phase == TOOL_CARRY) & near, TOOL_AIM)
    go((phase == TOOL_AIM) & hand.fits(over - hole, turn), COVER)
    down = (around - hole).norm(dim=1) < 2 * FIT
    go((phase == COVER) & down, TILT)
    go((phase == COVER) & (seconds > FIT_TIME), TOOL_AIM)
    turned = turn_between(mat, tilted).norm(dim=1) < TURN_TOL
    go((phase == TILT) & (turned | (seconds > FIT_TIME)), DROP)
    go((phase == DROP) & (seconds > OPEN_TIME), BACK)
    go((phase == BACK) & (seconds > STALL_TIME), REACH)  # it missed: look at what stands where, and try again
    carry = hand.carry(mat, hole, covered, over)
    still = torch.zeros_like(hole)
    back = hand.phases.hold - BACK_OFF * hand.mat[:, :, 2]
    # It presses on while slow fingers open: an arm that stops springs back, the tool still in its hand.
    hang = hand.carry(mat, hole, tilted, hung)
    return [*moves, carry, carry, hand.carry(mat, hole, covered, around), hang, hang, (back, still)]


def _upright(hand: Hand, plan: HangParameters) -> Tensor:
    """The rod's rotation when it stands, (n, 3, 3)."""
    heading = hand.vector(plan.heading)
    return torch.stack([torch.linalg.cross(heading, hand.up), heading, hand.up], 2)


def _slanted(rod: Tensor) -> Tensor:
    """How to hold a rod: its rotation (n, 3, 3) to the gripper's, which is at a slant to it."""
    ahead = math.cos(SLANT) * rod[:, :, 1] - math.sin(SLANT) * rod[:, :, 2]
    return _columns(rod[:, :, 0], ahead)


def _sloped(upright: Tensor, angle: float) -> Tensor:
    """Rotation of a tool that leads away from the standing hook's end, its outer end down by an angle."""
    out, up = -upright[:, :, 0], upright[:, :, 2]
    along = math.cos(angle) * out - math.sin(angle) * up
    across = torch.linalg.cross(up, out)
    return torch.stack([along, across, torch.linalg.cross(along, across)], 2)


def _columns(fingers: Tensor, ahead: Tensor) -> Tensor:
    """The gripper's rotation (n, 3, 3), from where its fingers are and where it points."""
    return torch.stack([fingers, torch.linalg.cross(ahead, fingers), ahead], 2)


def _horizontal(vector: Tensor) -> Tensor:
    """Unit vectors (n, 3) along the horizontal parts."""
    flat = vector * torch.tensor([1.0, 1.0, 0.0]).to(vector)
    return torch.nn.functional.normalize(flat, dim=1)


def _eased(seconds: Tensor, after: float) -> Tensor:
    """How many times as much is tolerated, (n,), so that noise cannot keep a script waiting for ever."""
    eased: Tensor = 1 + (seconds - after).clamp(min=0) / EASE_TIME
    return eased


def _any_of(phase: Tensor, wanted: tuple[int, ...]) -> Tensor:
    return torch.stack([phase == p for p in wanted]).any(0)
