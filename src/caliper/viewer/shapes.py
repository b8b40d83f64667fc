"""What the browser is sent of a scene: its visible geoms as coloured meshes, once, and its bodies' poses."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray

from caliper.importing.scene import put_fixtures

Array = NDArray[np.float64]
Colour = tuple[float, float, float, float]

VISUAL = 1  # the group of geoms that cameras see
GEOM = mujoco.mjtGeom
FLOOR = 3.0  # half the side of a plane that has no end, m


def meshes(model: mujoco.MjModel) -> dict[tuple[int, Colour], trimesh.Trimesh]:
    """The visible geoms, those of one body and colour in one mesh, in the body's frame.

    A texture is told by its mean colour: the free view is for looking around, the policy's own images stand
    beside it.
    """
    parts = defaultdict(list)
    for g in range(model.ngeom):
        colour = _colour(model, g)
        if model.geom_group[g] == VISUAL and colour[3] > 0:
            shape = _shape(model, g)
            placed = np.eye(4)
            mujoco.mju_quat2Mat(matrix := np.empty(9), model.geom_quat[g])
            placed[:3, :3], placed[:3, 3] = matrix.reshape(3, 3), model.geom_pos[g]
            parts[int(model.geom_bodyid[g]), colour].append(shape.apply_transform(placed))
    return {key: _joined(shapes, key[1]) for key, shapes in parts.items()}


class Poses:
    """Where the bodies are in a state."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Takes the scene."""
        self._model, self._data = model, mujoco.MjData(model)

    def of(self, state: Array) -> tuple[Array, Array]:
        """Positions (bodies, 3) and quaternions (bodies, 4), w first, in the world.

        Args:
            state: (s,), a row of [time, qpos, qvel, poses of fixtures].
        """
        model, data = self._model, self._data
        data.qpos[:] = state[1 : 1 + model.nq]
        put_fixtures(data, state)
        mujoco.mj_kinematics(model, data)
        return data.xpos.copy(), data.xquat.copy()


def _colour(model: mujoco.MjModel, geom: int) -> Colour:
    """Red, green, blue and opacity, in [0, 1]."""
    material = int(model.geom_matid[geom])
    rgba = np.array(model.geom_rgba[geom] if material < 0 else model.mat_rgba[material], float)
    texture = -1 if material < 0 else int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture >= 0:
        channels, first = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
        texels = int(model.tex_width[texture]) * int(model.tex_height[texture])
        data = model.tex_data[first : first + texels * channels].reshape(texels, channels)
        rgba[:3] *= data[:, :3].mean(0) / 255
    r, g, b, a = (round(float(x), 3) for x in rgba)
    return r, g, b, a


def _shape(model: mujoco.MjModel, geom: int) -> trimesh.Trimesh:
    """A geom in its own frame."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == GEOM.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom]))
    if kind == GEOM.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(3, size[0])
    if kind == GEOM.mjGEOM_ELLIPSOID:
        return trimesh.creation.icosphere(3).apply_scale(size)
    if kind == GEOM.mjGEOM_CAPSULE:
        return trimesh.creation.capsule(2 * size[1], size[0])
    if kind == GEOM.mjGEOM_CYLINDER:
        shape = trimesh.creation.cylinder(size[0], 2 * size[1], 48)
    elif kind == GEOM.mjGEOM_PLANE:
        x, y = (side if side > 0 else FLOOR for side in size[:2])
        shape = trimesh.creation.box((2 * x, 2 * y, 0.002))
        shape.apply_translation((0, 0, -0.001))
    else:
        shape = trimesh.creation.box(2 * size)
    shape.unmerge_vertices()  # edges stay sharp
    return shape


def _mesh(model: mujoco.MjModel, mesh: int) -> trimesh.Trimesh:
    """A mesh of the model with the normals that MuJoCo gives it."""
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    faces = model.mesh_face[first : first + count]
    normals = model.mesh_facenormal[first : first + count]
    return trimesh.Trimesh(
        model.mesh_vert[model.mesh_vertadr[mesh] :][faces].reshape(-1, 3),
        np.arange(3 * count).reshape(-1, 3),
        vertex_normals=model.mesh_normal[model.mesh_normaladr[mesh] :][normals].reshape(-1, 3),
        process=False,
    )


def _joined(shapes: list[Any], colour: Colour) -> trimesh.Trimesh:
    counts = np.cumsum([0, *(len(shape.vertices) for shape in shapes)])
    material = trimesh.visual.material.PBRMaterial(
        # What glTF calls a base colour is linear light.
        baseColorFactor=[*(round(255 * x**2.2) for x in colour[:3]), round(255 * colour[3])],
        metallicFactor=0.0,
        roughnessFactor=0.7,
        alphaMode="BLEND" if colour[3] < 1 else "OPAQUE",
    )
    return trimesh.Trimesh(
        np.concatenate([shape.vertices for shape in shapes]),
        np.concatenate([shape.faces + first for shape, first in zip(shapes, counts, strict=False)]),
        vertex_normals=np.concatenate([shape.vertex_normals for shape in shapes]),
        visual=trimesh.visual.TextureVisuals(material=material),
        process=False,
    )
