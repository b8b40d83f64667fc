"""How much room MuJoCo Warp's envs have, for contacts and constraints, by the scene."""

from __future__ import annotations

import mujoco

# Room per env, shared by all of them, and constraint rows of each. Of 64 envs no one ever had more than
# 20 contacts, 81 rows, and 3 penetrating convex pairs of one kind (benchmarks/results/solver_tail.json).
CONTACTS, CONSTRAINTS, CONVEX = 48, 200, 8
ROOM = "room"  # a scene that needs more says so by three custom numbers of this name


def room(model: mujoco.MjModel) -> tuple[int, int, int]:
    """How many contacts, constraint rows and penetrating convex pairs each env of a scene has room for."""
    where = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, ROOM)
    if where < 0:
        return CONTACTS, CONSTRAINTS, CONVEX
    contacts, constraints, convex = model.numeric_data[model.numeric_adr[where] :][:3]
    return int(contacts), int(constraints), int(convex)
