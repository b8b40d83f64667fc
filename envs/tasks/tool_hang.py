"""ToolHang: put a hook's rod into its stand, hang a wrench on the hook (robosuite's own scene and test)."""

from __future__ import annotations

import math

import mujoco
import torch
from torch import Tensor

from caliper.envs.engines.room import ROOM
from caliper.envs.scene.scenes import compose, load_robosuite, mounted
from caliper.envs.situation import Situation
from caliper.envs.tasks.base import HangParameters, Task, add_camera, spread, upright

TABLE_Z = 0.8
STAND = (-0.08, 0.0, 0.881)  # the stand's origin, which robosuite never moves; metres
FRAME, TOOL = (-0.04, -0.24, 0.8415), (0.04, -0.2, 0.841)  # the middles of where these start, 3 cm up
SPREAD, TURN = 0.02, math.pi / 18  # robosuite's: metres along x and y; radians
FRAME_TURN, TOOL_TURN = -math.pi / 2 + math.pi / 6, -math.pi / 2 - math.pi / 9
THICK, HOLE = 0.0075, 0.0105  # the frame's rods; the inner radius of the wrench's hole
RING = 8  # boxes of which the hole's rim is made
VIEW = {
    "pos": [0.4837275266036987, 0.2505579098815722, 1.2639379055124524],
    "quat": [0.39713290333747864, 0.27807527780532837, 0.5016612410545349, 0.7164464592933655],
}  # robosuite's


class ToolHang(Task):
    """Solved when the hook stands in the stand and the wrench hangs on the hook, let go."""

    name = "tool_hang"
    object_body = "tool_root"
    observed = ("frame_root", "stand_root")
    draws = 6
    recorded_as = ("ToolHang",)
    plan = HangParameters(
        stand="stand_root",
        frame="frame_root",
        mouth=(0, 0.045, 0.08),
        floor=(0, 0.045, -0.07),
        rod=(0.04375, 0, 0.0525),
        grasp=(0, 0, 0),
        tip="frame_tip_site",
        hole="tool_hole1_center",
        heading=(-1, 0, 0),  # the hook then points to the robot's right, where the wrench comes from
        over=(-0.04375, 0, 0.122),
        around=(-0.04375, 0, 0.094),
        hung=(-0.036, 0, 0.081),
    )

    def __init__(self, start: str | None = None, robot: str = "panda") -> None:
        """See `Task`."""
        super().__init__(start, robot)
        self.fingers = finger_geoms(robot)
        self.contacts = (
            ("tool_hole1_root", "frame_horizontal_frame"),
            *(("tool_root", finger) for finger in self.fingers),
        )

    def compose(self) -> mujoco.MjSpec:
        """See `Task`."""
        load_robosuite()
        from robosuite.models.arenas import TableArena
        from robosuite.models.objects import HookFrame, RatchetingWrenchObject, StandWithMount

        arena = TableArena(
            table_full_size=(0.8, 0.8, 0.05), table_friction=(1, 0.005, 0.0001), table_offset=(0, 0, TABLE_Z)
        )
        arena.set_camera(camera_name="agentview", **VIEW)
        hard = {"solref": (0.02, 1.0), "solimp": (0.998, 0.998, 0.001)}
        stand = StandWithMount(
            name="stand",
            size=(0.12, 0.14, 0.16),
            mount_location=(0.0, 0.045),
            mount_width=0.012,
            wall_thickness=0.001,
            base_thickness=0.01,
            initialize_on_side=False,
            add_hole_vis=True,
            density=50000.0,
            **hard,
        )
        frame = HookFrame(
            name="frame",
            frame_length=0.095,
            frame_height=0.18,
            frame_thickness=THICK,
            hook_height=0.012,
            grip_location=0.06 - THICK / 2,
            grip_size=(0.0127, 0.03175),
            tip_size=(0.0127, 0.001, 0.00325, 0.01905),
            density=500.0,
            **hard,
        )
        tool = RatchetingWrenchObject(
            name="tool",
            handle_size=(0.0825, 0.00875, 0.0016),
            outer_radius_1=0.0175,
            inner_radius_1=HOLE,
            height_1=0.0035,
            outer_radius_2=0.015,
            inner_radius_2=0.01,
            height_2=0.0035,
            ngeoms=RING,
            grip_size=(0.015, 0.04),
            density=2000.0,
            friction=(0.95, 0.3, 0.1),
            **hard,
        )
        spec = compose(arena, [stand, frame, tool], (-0.56, 0, 0), self.robot)
        # The rod's tip is 51 boxes, which touch the stand's walls with up to 153 contacts in 473 rows.
        spec.add_numeric(name=ROOM, size=3, data=[224, 700, 64])
        add_camera(spec, "showcase", (0.75, 0.6, 1.4), (-0.05, -0.05, 0.92))
        return spec

    def place(self, uniform: Tensor) -> dict[str, Tensor]:
        """See `Task`. Frame and wrench within 2 cm and 10 degrees of the usual, the stand where it is."""
        middles = (*FRAME[:2], *TOOL[:2])
        frame_x, frame_y, tool_x, tool_y = (
            middle + spread(uniform[:, i], -SPREAD, SPREAD) for i, middle in enumerate(middles)
        )
        half = (FRAME_TURN + spread(uniform[:, 4], -TURN, TURN)) / 2
        p, m = (half.cos() + half.sin()) / 2, (half.cos() - half.sin()) / 2  # on its side
        height = torch.full_like(frame_x, FRAME[2])
        tool_yaw = TOOL_TURN + spread(uniform[:, 5], -TURN, TURN)
        still = torch.zeros_like(frame_x)
        return {
            "stand_root": upright(still + STAND[0], still + STAND[1], STAND[2], still),
            "frame_root": torch.stack([frame_x, frame_y, height, p, -p, -m, m], 1),
            "tool_root": upright(tool_x, tool_y, TOOL[2], tool_yaw),
        }

    def success(self, now: Situation) -> Tensor:
        """See `Task`. robosuite's test."""
        return self.assembled(now) & self.hung(now)

    def assembled(self, now: Situation) -> Tensor:
        """Whether the rod is deep in the stand, between its walls, and the stand upright, bool (n,)."""
        base, foot = now.geom("stand_base"), now.site("frame_mount_site")
        shaft = now.site("stand_mount_site") - base
        vertical = torch.acos(shaft[:, 2] / shaft.norm(dim=1)) < math.pi / 18
        deep = (now.site("frame_tip_site") - base).norm(dim=1) < 0.05
        rod = now.site("frame_intersection_site") - foot
        walls = [now.geom(f"stand_wall{i}") - foot for i in range(4)]
        within = _between(rod, walls[0], walls[2]) & _between(rod, walls[1], walls[3])
        stands: Tensor = vertical & deep & within
        return stands

    def hung(self, now: Situation) -> Tensor:
        """Whether the wrench's first hole is around the hook's bar and the gripper is off, bool (n,)."""
        held = torch.stack([now.touching("tool_root", finger) for finger in self.fingers]).any(0)
        touches = now.touching("tool_hole1_root", "frame_horizontal_frame")
        end = now.site("frame_hang_site")
        bar = now.site("frame_intersection_site") - end
        length = bar.norm(dim=1, keepdim=True)
        hole = now.site("tool_hole1_center") - end
        along = (hole * bar).sum(1, keepdim=True) / length
        near = (hole - along * bar / length).norm(dim=1) < HOLE - THICK / 2
        rim = [now.geom(f"tool_hole1_hc_{i}") - end for i in (0, RING // 2)]
        share = (along / length)[:, 0]
        around = near & _between(bar, *rim) & (share > 0.05) & (share < 1)
        hangs: Tensor = around & touches & ~held
        return hangs


def _between(line: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Whether a line through the origin passes between two points, all (n, 3), as robosuite asks it."""
    a, b = torch.linalg.cross(one, line), torch.linalg.cross(other, line)
    apart: Tensor = (a * b).sum(1) < 0
    return apart


def finger_geoms(robot: str) -> list[str]:
    """What robosuite's gripper of a robot touches things with."""
    groups = mounted(robot)[1].important_geoms.values()
    return sorted({geom for group in groups for geom in group})
