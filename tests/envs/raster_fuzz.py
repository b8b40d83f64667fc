"""Shows the rasteriser whatever might lead it out of its arrays; run with NUMBA_BOUNDSCHECK=1, which says so.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=FOLDER python tests/envs/raster_fuzz.py SCENES TASK...

Small scenes of all shapes, then tasks with their own meshes, in poses no physics would reach: sizes and
distances over many powers of ten, cameras inside of geoms, exactly in their faces and along their axes,
lenses from a pinhole to almost half of the env, images of 1 to 40 pixels that are not square.
"""

import sys
from functools import cache

import mujoco
import numpy as np
import torch
import warp as wp

from caliper.envs.render import raster
from caliper.envs.render.raster import Rasteriser
from caliper.envs.scene.appearance import AppearanceRanges, Appearances
from caliper.envs.sim import task_scene

KINDS = ("plane", "sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")
NAMES = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
ASSETS = """<mesh name="tent" vertex="-1 -1 0  1 -1 0  1 1 0  -1 1 0  0 0 2"
        face="0 1 4  1 2 4  2 3 4  3 0 4"/>
    <texture name="flat" type="2d" builtin="checker" width="5" height="3" rgb1="1 0 0" rgb2="0 1 0"/>
    <texture name="cube" type="cube" builtin="gradient" width="4" height="24" rgb1="1 0 0" rgb2="0 0 1"/>
    <material name="flat" texture="flat" texrepeat="3 2"/>
    <material name="uniform" texture="flat" texrepeat="1e5 2" texuniform="true"/>
    <material name="cube" texture="cube"/>"""


class Posed:
    """What a renderer needs of an engine, with poses for anybody to set, float32."""

    def __init__(self, model, n):
        self.model, self.num_envs = model, n
        self.device, self.wp_device = torch.device("cpu"), wp.get_device("cpu")
        self.data = mujoco.MjData(model)
        self.poses = {}
        self.settle()

    def settle(self):
        """The poses that the model's joints give."""
        mujoco.mj_forward(self.model, self.data)
        for name in NAMES:
            x = np.asarray(getattr(self.data, name), np.float32)
            x = x.reshape(len(x), 3, 3) if "xmat" in name else x
            self.poses[name] = torch.from_numpy(x)[None].repeat(self.num_envs, *[1] * x.ndim)

    def pose_arrays(self):
        return self.poses


def power(rng, low, high, size=None):
    """Numbers of either sign over many powers of ten; some are 0."""
    x = 10 ** rng.uniform(low, high, size) * rng.choice([-1, 1], size)
    return np.where(rng.random(size) < 0.1, 0, x)


def turn(rng):
    """A rotation: along the axes, almost so, or any; now and then none at all."""
    how = rng.integers(5)
    if how == 0:
        return np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    if how == 1:
        return np.eye(3)[rng.permutation(3)] + power(rng, -20, -5, (3, 3))
    if how == 2 and rng.random() < 0.1:
        return power(rng, -8, 6, (3, 3)) * (rng.random() < 0.7)
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def small_scene(rng):
    """A few geoms of any shape and size, two cameras, three lamps."""
    appearances = ("", *(f'material="{name}"' for name in ("flat", "uniform", "cube")))
    geoms = ""
    kinds = KINDS if rng.random() < 0.5 else rng.choice(KINDS, 1)
    for _ in range(rng.integers(1, 6)):
        kind = rng.choice(kinds)
        size = np.clip(
            10 ** rng.uniform(-6 if rng.random() < 0.3 else -1, rng.choice([0.5, 4]), 3), 1e-6, 1e4
        )
        if kind == "plane":
            size[:2] *= rng.random(2) < 0.5
        shape = 'mesh="tent"' if kind == "mesh" else f'size="{size[0]} {size[1]} {size[2]}"'
        geoms += f'<geom group="1" type="{kind}" {shape} {rng.choice(appearances)}/>'
    angles = 10 ** rng.uniform(-2, 1, 2) * rng.choice([1, 17.5], 2)
    cameras = "".join(f'<camera name="{i}" fovy="{min(a, 179)}"/>' for i, a in enumerate(angles))
    lamps = "".join(f'<light type="{kind}" dir="0 0 -1"/>' for kind in ("spot", "point", "directional"))
    return mujoco.MjModel.from_xml_string(
        f"<mujoco><asset>{ASSETS}</asset><worldbody>{geoms}{cameras}{lamps}</worldbody></mujoco>"
    )


def displace(engine, rng, share):
    """Moves some geoms and all cameras, each camera to somewhere awkward of a geom."""
    model, poses = engine.model, engine.poses
    for i in range(engine.num_envs):
        positions, rotations = poses["geom_xpos"][i].numpy(), poses["geom_xmat"][i].numpy()
        for g in range(model.ngeom):
            if rng.random() < share:
                positions[g] = power(rng, -40 if rng.random() < 0.2 else -3, rng.choice([0, 5.9]), 3)
                rotations[g] = turn(rng)
        visible = np.flatnonzero(model.geom_group == 1)
        for c in range(model.ncam):
            g = rng.choice(visible)
            size = model.geom_size[g]
            place = rng.choice([0, 1e-7, 0.5, 1, 1 + 1e-7, 1.01, 3, 1000], 3) * rng.choice([-1, 1], 3)
            if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH and rng.random() < 0.5:
                mesh = model.geom_dataid[g]
                vertex = model.mesh_vertadr[mesh] + rng.integers(model.mesh_vertnum[mesh])
                local = model.mesh_vert[vertex] * rng.choice([1, 1, 0.5])
            else:
                local = place * size
            if rng.random() < 0.1:
                local = local + power(rng, -40, -6, 3)
            poses["cam_xpos"][i, c] = torch.from_numpy(positions[g] + rotations[g] @ local)
            axes = rotations[g] @ turn(rng) if rng.random() < 0.7 else turn(rng)
            poses["cam_xmat"][i, c] = torch.from_numpy(np.asarray(axes, np.float32))
        poses["light_xpos"][i] = torch.from_numpy(power(rng, -3, 5.9, (model.nlight, 3)))


def show(model, rng, share):
    """Draws a scene twice, so that the second time what is still comes from its layer."""
    n = int(rng.integers(1, 3))
    engine = Posed(model, n)
    cameras = tuple(
        model.camera(int(c)).name for c in rng.choice(model.ncam, min(2, model.ncam), replace=False)
    )
    size = tuple(map(int, rng.integers(1, 41, 2)))
    renderer = Rasteriser(engine, cameras, size, antialias=int(rng.integers(1, 4)), depth=True)
    if rng.random() < 0.3:
        appearance = Appearances(model, engine.device).draw(
            AppearanceRanges(0.03, 0.1, 0.4, 0.3), torch.arange(n)
        )
        renderer.dress(appearance)
    if rng.random() < 0.9:
        displace(engine, rng, share)
    renderer.frames()
    if rng.random() < 0.5:
        displace(engine, rng, 0.1 * share)
    return renderer.frames()


def main():
    raster.tables = cache(raster.tables)  # half a second each, for the tasks
    scenes = int(sys.argv[1])
    for what in ("small scenes", *sys.argv[2:]):
        seen = 0
        for seed in range(scenes):
            rng = np.random.default_rng(seed)
            model, share = (
                (small_scene(rng), 0.8) if what == "small scenes" else (task_scene(what).model, 0.05)
            )
            try:
                seen += bool((show(model, rng, share).geoms >= 0).any())
            except IndexError as error:
                sys.exit(f"{what}, seed {seed}: {error}")
        print(f"{what}: {scenes} times, something to see in {seen}")
        assert seen > scenes // 2


if __name__ == "__main__":
    main()
