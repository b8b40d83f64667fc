"""A compiled model as the flat arrays that the rasteriser's loops run over.

Meshes become clusters of 64 neighbouring faces, and groups of 16 clusters, stored lane by lane so that one
instruction works on many faces: a loop over a whole cluster or group has a fixed length and no gaps. What is
fewer is filled up with faces of no area and clusters of no radius.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import mujoco
import numpy as np
from numpy.typing import NDArray

from caliper.envs.scene.appearance import own_colours
from caliper.errors import CaliperError

PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = 0, 2, 3, 4, 5, 6, 7  # MuJoCo's numbers
FACES, CLUSTERS = 64, 16  # of a cluster, of a group
SLOT_BITS = 20  # a sample's name is its slot, shifted by these, and a face of it
_KNOWN = {PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH}
_CREASE = 0.8  # cosine beyond which a corner's normal is the face's own, as in MuJoCo's renderers
_NO_LIGHT = 0.3  # ambient light of a scene without any, as in MuJoCo Warp

Array = NDArray[Any]


class Tables(NamedTuple):
    """Slots are the geoms that can be seen, in the model's order; float32 and int32 unless said otherwise."""

    geom: Array  # (s,) index in the model
    kind: Array  # (s,)
    still: Array  # (s,) whether it never moves, bool
    size: Array  # (s, 3) half sizes, metres; 0 is an infinite plane's
    ball: Array  # (s, 4) bounding sphere in the geom's frame
    texture: Array  # (s, 3) first texel, width, height; -1 without
    wear: Array  # (s, 6, 4) by face: texture coordinates u, v = a + b x of the point hit, as b, a, b, a
    groups: Array  # (s, 2) first group of clusters, number of groups
    spheres: Array  # (groups * 7 * 16,) by group: x y z radius of 16 clusters, then their mean normals
    corners: Array  # (clusters * 9 * 64,) by cluster: x y z of 64 faces' first corners, second, third
    faces: Array  # (clusters * 64, 24) by face: three corners, three normals, three texture coordinates
    texels: Array  # (t,) red + 256 green + 65536 blue, uint32
    light_kind: Array  # (l,) 0 spot, 1 directional, 2 point; -1 off
    light_fade: Array  # (l, 5) attenuation constant, linear, quadratic; cosine of the cone, exponent
    glow: Array  # (2, 3) ambient light, the headlight's diffuse light
    near_lights: bool  # whether a light's direction depends on where it shines
    horizon: float  # 1 / metres from which nothing is seen


def tables(model: mujoco.MjModel, group: int) -> Tables:
    """The arrays of a model.

    Args:
        model: the scene.
        group: geom group that is drawn. Geoms of alpha 0 are not.

    Raises:
        CaliperError: a shape that the rasteriser does not know.
    """
    alpha = own_colours(model)[:, 3]
    slots = np.array([g for g in range(model.ngeom) if model.geom_group[g] == group and alpha[g] > 0], int)
    for g in slots:
        if model.geom_type[g] not in _KNOWN:
            kind = mujoco.mjtGeom(int(model.geom_type[g])).name.removeprefix("mjGEOM_").lower()
            raise CaliperError(f"the rasteriser draws no {kind} (geom '{model.geom(g).name}'); use sim=warp")
    textures, texels = _textures(model, slots)
    meshes = _meshes(model, slots)
    bodies = model.geom_bodyid[slots]
    kinds = np.where(model.light_active, model.light_type, -1)
    head = model.vis.headlight
    ambient = model.light_ambient[kinds >= 0].sum(0)
    ambient += head.ambient if head.active else (0.0 if model.nlight else _NO_LIGHT)
    cutoff = np.cos(np.radians(model.light_cutoff))
    fade = np.concatenate([model.light_attenuation, cutoff[:, None], model.light_exponent[:, None]], 1)
    beyond = float(model.vis.map.zfar * model.stat.extent)
    return Tables(
        geom=_i4(slots),
        kind=_i4(model.geom_type[slots]),
        still=np.array([is_still(model, b) for b in bodies], bool),
        size=_f4(model.geom_size[slots]).reshape(-1, 3),
        ball=_f4([_ball(model, int(g)) for g in slots]).reshape(-1, 4),
        texture=_i4([textures.get(_texture_of(model, int(g)), (-1, 0, 0)) for g in slots]).reshape(-1, 3),
        wear=_f4([_wear(model, int(g)) for g in slots]).reshape(-1, 6, 4),
        **meshes._asdict(),
        texels=texels,
        light_kind=_i4(kinds),
        light_fade=_f4(fade).reshape(-1, 5),
        glow=_f4([ambient, head.diffuse if head.active else np.zeros(3)]),
        near_lights=bool((kinds == 0).any() or (kinds == 2).any()),
        horizon=1 / beyond if beyond > 0 else 0.0,
    )


def stretched(t: Tables, sizes: Array) -> Array:
    """How boxes of other sizes (n, s, 3) wear their textures, as `Tables.wear`, (n, s, 6, 4).

    For boxes whose texture is stretched over each face; one that repeats by the metre is not made for this.
    """
    wear = np.repeat(t.wear[None], len(sizes), 0)
    for face in range(6):
        for at, axis in zip((0, 2), ((1, 2), (0, 2), (0, 1))[face // 2], strict=True):
            wear[:, :, face, at] *= np.where(
                t.kind == BOX, t.size[:, axis] / np.maximum(sizes[..., axis], 1e-6), 1
            )
    return wear


def is_still(model: mujoco.MjModel, body: int) -> bool:
    """Whether a body is fixed to the env for good."""
    root = model.body_weldid[body]
    while body != 0 and model.body_mocapid[body] < 0:
        body = model.body_parentid[body]
    return bool(root == 0 and body == 0)


def _f4(values: Any) -> Array:
    return np.ascontiguousarray(values, np.float32)


def _i4(values: Any) -> Array:
    return np.ascontiguousarray(values, np.int32)


def _texture_of(model: mujoco.MjModel, geom: int) -> int:
    material = model.geom_matid[geom]
    return int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]) if material >= 0 else -1


def _textures(model: mujoco.MjModel, slots: Array) -> tuple[dict[int, tuple[int, int, int]], Array]:
    """The textures that geoms wear, as (first texel, width, height), and all texels, (t,).

    A cube's six images lie one below the other in one tall image, as MuJoCo Warp samples them.
    """
    where, parts, count = {}, [np.zeros(0, np.uint32)], 0
    for t in sorted({_texture_of(model, int(g)) for g in slots} - {-1}):
        h, w, c = int(model.tex_height[t]), int(model.tex_width[t]), int(model.tex_nchannel[t])
        texels = model.tex_data[model.tex_adr[t] :][: h * w * c].reshape(-1, c)[:, :3]
        where[t] = (count, w, h)
        channels = np.pad(texels, ((0, 0), (0, 3 - texels.shape[1]))).astype(np.uint32)
        parts.append(channels @ np.array([1, 1 << 8, 1 << 16], np.uint32))
        count += h * w
    return where, np.ascontiguousarray(np.concatenate(parts))


def _ball(model: mujoco.MjModel, geom: int) -> tuple[float, float, float, float]:
    """Centre and radius of a sphere around a geom, in its frame."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    if kind == MESH:
        mesh = model.mesh(model.geom_dataid[geom])
        points = model.mesh_vert[int(mesh.vertadr[0]) :][: int(mesh.vertnum[0])].astype(float)
        centre = (points.min(0) + points.max(0)) / 2
        return (*centre, np.linalg.norm(points - centre, axis=1).max())
    if kind == PLANE:
        return (0.0, 0.0, 0.0, np.hypot(*size[:2]) if (size[:2] > 0).all() else 1e9)
    radius = {
        SPHERE: size[0],
        CAPSULE: size[0] + size[1],
        ELLIPSOID: size.max(),
        CYLINDER: np.hypot(size[0], size[1]),
        BOX: np.linalg.norm(size),
    }
    return (0.0, 0.0, 0.0, float(radius[kind]))


def _wear(model: mujoco.MjModel, geom: int) -> Array:
    """How a geom's faces wear their texture, (6, 4); of a round geom, its repeats in row 0. MuJoCo's rules.

    Faces are -x +x -y +y -z +z. u runs along y, x, x and v along z, z, y of the geom's frame.
    """
    material, size, kind = model.geom_matid[geom], model.geom_size[geom], int(model.geom_type[geom])
    wear = np.zeros((6, 4))
    if material < 0:
        return wear
    repeat = model.mat_texrepeat[material].astype(float)
    uniform = bool(model.mat_texuniform[material])
    if kind == PLANE:
        endless = size[:2] <= 0
        scale = np.where(endless, 1.0, np.maximum(size[:2], 1e-6))
        if uniform:
            repeat = repeat * np.where(endless, 1.0, size[:2])
        slope = 0.5 * repeat / scale * (1, -1)
        at_0 = np.where(endless, 0.0, 0.5) * repeat - (0.5 if endless.any() else 0.0)
        wear[5] = slope[0], at_0[0], slope[1], at_0[1]
    elif kind == BOX:
        if uniform:
            repeat = repeat * size[:2]
        for face in range(6):
            u, v = ((1, 2), (0, 2), (0, 1))[face // 2]
            sign_u = -1 if face in (0, 3) else 1
            sign_v = 1 if face == 4 else -1
            slope = 0.5 * repeat / np.maximum(size[[u, v]], 1e-6) * (sign_u, sign_v)
            wear[face] = slope[0], repeat[0] / 2, slope[1], repeat[1] / 2
    else:
        if uniform and kind != MESH:
            radii = size[:2] if kind == ELLIPSOID else size[[0, 0]]
            repeat = repeat * radii
        wear[0] = repeat[0], 0, repeat[1], 0
    return wear


class _Meshes(NamedTuple):
    """Clusters of all meshes, as in `Tables`; geoms that wear the same mesh in the same way share them."""

    groups: Array
    spheres: Array
    corners: Array
    faces: Array


# Of each model, by how its geoms wear their meshes: the envs of a run are drawn by several renderers.
_MADE: WeakKeyDictionary[mujoco.MjModel, dict[tuple[Any, ...], _Meshes]] = WeakKeyDictionary()


def _meshes(model: mujoco.MjModel, slots: Array) -> _Meshes:
    worn = tuple(_worn(model, int(g)) if model.geom_type[g] == MESH else None for g in slots)
    made = _MADE.setdefault(model, {})
    if worn not in made:
        made[worn] = _cluster(model, slots, worn)
    return made[worn]


def _worn(model: mujoco.MjModel, geom: int) -> tuple[Any, ...]:
    """All that tells one geom's faces from another's: its mesh, size, material and how often that repeats."""
    material = model.geom_matid[geom]
    repeat = model.mat_texrepeat[material].tobytes() if material >= 0 else b""
    uniform = material >= 0 and bool(model.mat_texuniform[material])
    return int(model.geom_dataid[geom]), int(material), model.geom_size[geom].tobytes(), repeat, uniform


def _cluster(model: mujoco.MjModel, slots: Array, worn: tuple[Any, ...]) -> _Meshes:
    known: dict[Any, tuple[int, int]] = {None: (0, 0)}  # first group and number of groups
    total = 0
    spheres, corners, faces = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 24))]
    for geom, key in zip(slots, worn, strict=True):
        if key in known:
            continue
        own = mesh_faces(model, int(geom))
        parts = split(own[:, :9].reshape(-1, 3, 3))
        groups = -(-len(parts) // CLUSTERS)
        if groups * CLUSTERS * FACES > 1 << SLOT_BITS:
            name = model.geom(geom).name
            raise CaliperError(f"the mesh of geom '{name}' has over a million faces; simplify it")
        laid = np.zeros((groups * CLUSTERS, FACES, 24))
        for i, part in enumerate(parts):
            laid[i, : len(part)] = own[part]
            laid[i, len(part) :, :9] = np.tile(own[part[0], :3], 3)
        ball = np.zeros((groups * CLUSTERS, 7))
        ball[:, 3] = -1
        ball[: len(parts)] = _spheres(laid[: len(parts), :, :9].reshape(-1, FACES, 3, 3))
        spheres.append(ball.reshape(groups, CLUSTERS, 7).transpose(0, 2, 1).ravel())
        corners.append(laid[..., :9].transpose(0, 2, 1).ravel())
        faces.append(laid.reshape(-1, 24))
        known[key] = total, groups
        total += groups
    flat = (_f4(np.concatenate(parts)) for parts in (spheres, corners, faces))
    return _Meshes(_i4([known[key] for key in worn]).reshape(-1, 2), *flat)


def mesh_faces(model: mujoco.MjModel, geom: int) -> Array:
    """Corners (9), normals (9) and texture coordinates (6) of the faces with an area of a geom's mesh."""
    mesh = int(model.geom_dataid[geom])
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] :][model.mesh_face[rows]].astype(float)  # f 3 3
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-20)
    normals = model.mesh_normal[model.mesh_normaladr[mesh] :][model.mesh_facenormal[rows]].astype(float)
    flat = flat[:, None].repeat(3, 1)
    normals = np.where((normals * flat).sum(-1, keepdims=True) < _CREASE, flat, normals)
    repeat = _wear(model, geom)[0, [0, 2]]
    size = model.geom_size[geom, :2]
    scale = np.where(size > 0, size, 1.0)
    if model.geom_matid[geom] >= 0 and model.mat_texuniform[model.geom_matid[geom]]:
        scale = np.ones(2)
    uv = corners[..., :2] * (0.5, -0.5) * repeat / scale - 0.5  # of a mesh without coordinates of its own
    if model.mesh_texcoordadr[mesh] >= 0:
        index = model.mesh_facetexcoord[rows]
        own = model.mesh_texcoord[model.mesh_texcoordadr[mesh] :][np.maximum(index, 0)] * repeat
        uv = np.where((index >= 0).all(1)[:, None, None], own, uv)
    faces: Array = np.concatenate([x.reshape(len(corners), -1) for x in (corners, normals, uv)], axis=1)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    kept: Array = faces[edges.min(1) > 0]
    return kept


def split(corners: Array) -> list[Array]:
    """Indices of faces (f, 3, 3) in parts of at most `FACES` neighbours, near parts in order."""
    centres = corners.mean(1)
    todo, done = [np.arange(len(centres))], []
    while todo:
        part = todo.pop()
        if len(part) <= FACES:
            done.append(part)
            continue
        own = centres[part]
        order = np.argsort(own[:, np.ptp(own, axis=0).argmax()], kind="stable")
        half = max(FACES, len(part) // 2 // FACES * FACES)
        todo += [part[order[half:]], part[order[:half]]]
    return done


def _spheres(corners: Array) -> Array:
    """Centre, radius and mean normal of clusters of faces (k, f, 3, 3), as (k, 7)."""
    points = corners.reshape(len(corners), -1, 3)
    centre = (points.min(1) + points.max(1)) / 2
    radius = 1.001 * np.linalg.norm(points - centre[:, None], axis=2).max(1) + 1e-6
    normal = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    return np.concatenate([centre, radius[:, None], normal], 1)
