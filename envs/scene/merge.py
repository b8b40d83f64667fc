"""One visual mesh per body: the same image for fewer rays' work.

robosuite's Panda wears some 50 small meshes of one colour each. Their bounding boxes overlap, so that a ray
asks many of them. Joined, with the colours in a palette texture, a body is asked once.
"""

from __future__ import annotations

from collections import defaultdict

import mujoco
import numpy as np

PATCH = 4  # pixels of the palette per colour and side, so that filtering never mixes two


def merge_visual_meshes(spec: mujoco.MjSpec, group: int) -> None:
    """Joins the untextured visual meshes of each body that has several, in place.

    Args:
        spec: the scene. Colliding geoms, other shapes and textured meshes stay as they are.
        group: geom group of the visual geoms.
    """
    model = spec.compile()
    bodies: dict[int, list[int]] = defaultdict(list)
    for g in range(model.ngeom):
        material = model.geom_matid[g]
        textured = material >= 0 and (model.mat_texid[material] >= 0).any()
        collides = model.geom_contype[g] or model.geom_conaffinity[g]
        visual = model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH and model.geom_group[g] == group
        if visual and not textured and not collides:
            bodies[int(model.geom_bodyid[g])].append(g)
    for body, geoms in bodies.items():
        if len(geoms) > 1:
            _merge(spec, model, body, geoms, group)
            for g in geoms:
                spec.delete(spec.geom(model.geom(g).name))
    used = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in used:
            spec.delete(mesh)


def _colour(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """The geom's own colour if it has one, else its material's: MuJoCo's rule. (3,) in [0, 1]."""
    colour, material = model.geom_rgba[geom], model.geom_matid[geom]
    if material >= 0 and (colour == (0.5, 0.5, 0.5, 1)).all():
        colour = model.mat_rgba[material]
    return np.array(colour[:3])


def _merge(spec: mujoco.MjSpec, model: mujoco.MjModel, body: int, geoms: list[int], group: int) -> None:
    """Adds one mesh geom to a body that looks like the given ones together."""
    name = model.body(body).name + "_look"
    palette = np.array([_colour(model, g) for g in geoms])
    strip = np.repeat((255 * palette + 0.5).astype(np.uint8)[None], PATCH, 0).repeat(PATCH, 1)  # h w c
    vertices: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    faces, face_normals = [], []
    for g in geoms:
        m = model.geom_dataid[g]
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[g])
        turn = rotation.reshape(3, 3)
        rows = slice(model.mesh_faceadr[m], model.mesh_faceadr[m] + model.mesh_facenum[m])
        faces.append(model.mesh_face[rows] + sum(len(v) for v in vertices))
        face_normals.append(model.mesh_facenormal[rows] + sum(len(n) for n in normals))
        of = slice(model.mesh_vertadr[m], model.mesh_vertadr[m] + model.mesh_vertnum[m])
        vertices.append(model.mesh_vert[of] @ turn.T + model.geom_pos[g])
        of = slice(model.mesh_normaladr[m], model.mesh_normaladr[m] + model.mesh_normalnum[m])
        normals.append(model.mesh_normal[of] @ turn.T)
    across = (np.arange(len(geoms)) + 0.5) / len(geoms)  # a geom's colour along the palette
    joined = spec.add_mesh(
        name=name,
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # of no weight, but it needs not be closed
        uservert=np.concatenate(vertices).ravel(),
        usernormal=np.concatenate(normals).ravel(),
        userface=np.concatenate(faces).ravel(),
        userfacenormal=np.concatenate(face_normals).ravel(),
        usertexcoord=np.stack([across, np.full_like(across, 0.5)], 1).ravel(),
        userfacetexcoord=np.repeat(np.arange(len(geoms)), 3 * np.array([len(f) for f in faces])),
    )
    texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D)
    texture.width, texture.height, texture.nchannel = strip.shape[1], strip.shape[0], 3
    texture.data = strip.tobytes()
    material = spec.add_material(name=name, specular=0.0, shininess=0.0, reflectance=0.0)
    material.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name
    spec.body(model.body(body).name).add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=joined.name,
        material=name,
        group=group,
        contype=0,
        conaffinity=0,
        mass=0.0,
    )
