"""Boxes whose size each episode draws: the fields of a model that follow from it, for each env its own.

A scene says so by a fixture, a mocap body without geoms (see `add_size`): the first three numbers of its pose
are the box's half sides. So they are part of a state, and whoever puts an env into a state gives it the size.
The scene is compiled with the largest box; its bounding volumes, which only sort out what cannot touch, stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from torch import Tensor

SIZE = "size of "  # a fixture's name: this, and the body whose size it holds
FIELDS = (
    *("geom_size", "body_mass", "body_inertia", "body_subtreemass"),
    *("body_invweight0", "dof_invweight0", "dof_M0"),
)


def add_size(spec: mujoco.MjSpec, body: str, half: float) -> None:
    """Lets each episode draw the size of a body that is one box on a free joint, compiled with half sides."""
    spec.worldbody.add_body(name=f"{SIZE}{body}", mocap=True, pos=[half] * 3)


def sized(model: mujoco.MjModel) -> dict[int, int]:
    """The bodies whose size is drawn, and the fixture (its number among them) that holds it."""
    names = {model.body(i).name: i for i in range(model.nbody)}
    holders = {name: int(model.body_mocapid[i]) for name, i in names.items() if model.body_mocapid[i] >= 0}
    found = (
        (names.get(name.removeprefix(SIZE)), at) for name, at in holders.items() if name.startswith(SIZE)
    )
    return {body: at for body, at in found if body is not None and model.body_geomnum[body]}


class Sizes:
    """Writes what follows from the sizes into fields."""

    def __init__(self, model: mujoco.MjModel, fields: Mapping[str, Tensor]) -> None:
        """Args: the scene; some or all of the `FIELDS`, of each env, (n, ...)."""
        self._fields = fields
        self._boxes = []
        for body, fixture in sized(model).items():
            geoms = np.flatnonzero(model.geom_bodyid == body)
            density = float(model.body_mass[body] / (8 * model.geom_size[geoms[0]].prod()))
            dof = int(model.body_dofadr[body])
            dofs = slice(dof, dof + 6)
            where = {"geom_size": slice(geoms[0], geoms[-1] + 1), "dof_invweight0": dofs, "dof_M0": dofs}
            self._boxes.append((fixture, density, [(name, where.get(name, body)) for name in fields]))

    def fit(self, mocap_pos: Tensor) -> None:
        """Args: places of the fixtures, (n, m, 3). Written in place, without waiting for the device."""
        for fixture, density, places in self._boxes:
            half = mocap_pos[:, fixture]
            mass, square = 8 * density * half.prod(1, keepdim=True), half**2
            inertia = mass / 3 * (square.sum(1, keepdim=True) - square)
            lightness = torch.cat([1 / mass, (1 / inertia).mean(1, keepdim=True)], 1)
            values = {
                "geom_size": half[:, None],
                "body_mass": mass[:, 0],
                "body_inertia": inertia,
                "body_subtreemass": mass[:, 0],
                "body_invweight0": lightness,
                "dof_invweight0": lightness.repeat_interleave(3, 1),
                "dof_M0": torch.cat([mass.expand(-1, 3), inertia], 1),
            }
            for name, at in places:
                self._fields[name][:, at] = values[name].to(self._fields[name].dtype)
