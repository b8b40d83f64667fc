"""How much memory MuJoCo Warp's envs take, told without allocating them.

What an env holds is read off one that is made on the CPU. What a physics step takes besides, while it runs,
is nearly all for penetrating convex pairs: MuJoCo Warp 4.0 sets room aside for each of the largest number of
them at once (`convex` per env), whether there are any or not.
"""

from __future__ import annotations

import dataclasses

import mujoco
import mujoco_warp as mjw
import warp as wp
from mujoco_warp._src.types import MJ_MAX_EPAFACES, MJ_MAX_EPAHORIZON

FLOAT, VEC3 = 4, 12  # bytes; an int is as long as a float


def env_bytes(model: mujoco.MjModel, contacts: int, constraints: int, convex: int) -> tuple[int, int]:
    """Bytes that each env of a scene holds, and those that a physics step takes besides while it runs.

    Args:
        model: the scene.
        contacts: room for contacts, per env.
        constraints: room for rows of constraints, per env.
        convex: room for penetrating convex pairs of one kind, per env.
    """
    with wp.ScopedDevice("cpu"):
        put = mjw.put_model(model)
        one, two = (
            mjw.make_data(model, nworld=n, nconmax=contacts, njmax=constraints, nccdmax=convex)
            for n in (1, 2)
        )
    # Of the simplex that grows around the penetration: vertices, faces, horizon.
    vertices = (10 + 2 * put.opt.ccd_iterations) * (VEC3 + FLOAT)
    faces = (6 + MJ_MAX_EPAFACES * put.opt.ccd_iterations) * (2 * FLOAT + VEC3)
    # Of the contact surface of two faces: its polygons, and the edges that meet in a vertex.
    sides, edges = max(put.npolygonmax, 16), max(put.nmeshdegmax, 3)
    surface = sides * (7 * VEC3 + FLOAT) + edges * (3 * VEC3 + 2 * FLOAT)
    each = vertices + faces + MJ_MAX_EPAHORIZON * FLOAT + surface
    return _held(two) - _held(one), convex * each


def _held(data: mjw.Data) -> int:
    parts = (data, data.contact, data.efc)
    values = (getattr(part, field.name) for part in parts for field in dataclasses.fields(part))
    return sum(value.capacity for value in values if isinstance(value, wp.array))
