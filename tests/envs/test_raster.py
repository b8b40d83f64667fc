"""The rasteriser: the ray tracer's pixels, and each shape, light and texture by the numbers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numba
import numpy as np
import pytest
import torch
import warp as wp

from caliper.envs.render import compiled, make_renderer
from caliper.envs.render.compiled import COMPILED, draw, fingerprint
from caliper.envs.render.raster import Rasteriser
from caliper.envs.render.samples import OPTIONS, within
from caliper.envs.render.trace import RayTracer
from caliper.envs.scene.appearance import AppearanceRanges, Appearances
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from tests.envs.conftest import CAMERAS, make_envs, random_actions

ABOVE = '<camera name="above" pos="0 0 2" fovy="90"/>'  # appearances down; at distance d a side is 2 d long
HEADLIGHT = (0.2, 0.5)  # ambient, diffuse


class Still:
    """What a renderer needs of an engine, for n envs of a small scene that never moves."""

    def __init__(self, world, assets="", n=1):
        self.model = mujoco.MjModel.from_xml_string(f"""
            <mujoco><visual><headlight ambient="{HEADLIGHT[0]} {HEADLIGHT[0]} {HEADLIGHT[0]}"
            diffuse="{HEADLIGHT[1]} {HEADLIGHT[1]} {HEADLIGHT[1]}"/></visual>
            <default><geom group="1" rgba="1 .5 .25 1"/></default>
            <asset>{assets}</asset><worldbody>{world}</worldbody></mujoco>""")
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.num_envs, self.device, self.wp_device = n, torch.device("cpu"), wp.get_device("cpu")

    def pose_arrays(self):
        names = ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
        values = {k: torch.from_numpy(getattr(self.data, k)) for k in names}
        shape = {True: (-1, 3, 3), False: (-1, 3)}
        return {
            k: x.view(shape["xmat" in k])[None].repeat(self.num_envs, *[1] * len(shape["xmat" in k]))
            for k, x in values.items()
        }


def frames(world, size, assets="", **kwargs):
    """The first env's colours (h, w, 3), depth and geoms (h, w) from above."""
    drawn = make_renderer(Still(world, assets), ("above",), size, depth=True, **kwargs).frames()
    return drawn.rgb[0, 0].permute(1, 2, 0).numpy(), drawn.depth[0, 0].numpy(), drawn.geoms[0, 0].numpy()


# ---- against the ray tracer


def agreement(a, b):
    """Share of pixels (n, v, 3, h, w) within 2 of 255 in all colours."""
    return ((a.int() - b.int()).abs().amax(2) <= 2).float().mean()


def shift(a, b):
    """By how many pixels b lies right of and below a, to first order: the least-squares optical flow."""
    a, b = a.float(), b.float()
    across, down = (a[..., 2:] - a[..., :-2]) / 2, (a[..., 2:, :] - a[..., :-2, :]) / 2
    change = a - b
    right = (change[..., 1:-1] * across).sum() / across.square().sum()
    return right, (change[..., 1:-1, :] * down).sum() / down.square().sum()


@pytest.mark.parametrize("task", TASKS)
def test_pixels_are_the_ray_tracers(task):
    """Random states, appearances of their own, three cameras, a size that is not square."""
    env = make_envs(task, 2, cameras=())
    cameras = (*CAMERAS, "frontview")
    traced = RayTracer(env.engine, cameras, (48, 64), depth=True)
    drawn = Rasteriser(env.engine, cameras, (48, 64), depth=True)
    appearances = Appearances(env.engine.model, env.device)
    for seed, action in enumerate(random_actions(env, 9)):
        env.step(action)
        if seed % 3:
            continue
        if seed:
            appearance = appearances.draw(AppearanceRanges(0.03, 0.1, 0.4, 0.3), seed + torch.arange(2))
            traced.dress(appearance)
            drawn.dress(appearance)
        want, got = traced.frames(), drawn.frames()
        assert agreement(want.rgb, got.rgb) > 0.999
        assert (want.geoms == got.geoms).float().mean() > 0.999
        assert ((want.depth - got.depth).abs() < 1e-4).float().mean() > 0.999
        assert all(abs(offset) < 2e-3 for offset in shift(want.rgb, got.rgb))
    assert agreement(want.rgb, got.rgb.roll(1, -1)) < 0.95  # what a shift by a pixel would give


def test_an_antialiased_image_is_the_ray_tracers():
    env = make_envs("pick_place_can", 1, cameras=())
    want, got = (kind(env.engine, CAMERAS, 64, antialias=2).render() for kind in (RayTracer, Rasteriser))
    assert agreement(want, got) > 0.999


MESH = '<mesh name="tent" vertex="-1 -1 0  1 -1 0  1 1 0  -1 1 0  0 0 2" face="0 1 4  1 2 4  2 3 4  3 0 4"/>'
CHECKER = """<texture name="checker" type="2d" builtin="checker" width="8" height="8"
    rgb1="1 0 .2" rgb2="0 1 .4"/>"""
CUBE = '<texture name="cube" type="cube" builtin="gradient" width="8" height="48" rgb1="1 0 0" rgb2="0 0 1"/>'
MATERIALS = """<material name="checked" texture="checker" texrepeat="3 2"/>
    <material name="uniform" texture="checker" texrepeat="3 2" texuniform="true"/>
    <material name="cubed" texture="cube"/>"""


def test_everything_at_once_is_the_ray_tracers():
    """All shapes, textures and lights, a camera inside a box, one that sees to the horizon, alpha 0."""
    shapes = ("sphere", "capsule", "ellipsoid", "cylinder", "box")
    geoms = [
        f'<geom type="{kind}" size=".2 .15 .1" pos="{i - 2} {j - 1} .3" euler="{20 * i} {30 * j} 10" {skin}/>'
        for i, kind in enumerate(shapes)
        for j, skin in enumerate(("", 'material="checked"', 'material="uniform"', 'material="cubed"'))
    ]
    world = f"""{ABOVE.replace("0 0 2", ".01 .02 2")} <geom type="plane" size="0 0 1" material="uniform"/>
        <geom type="plane" size="1 0 1" pos="0 -3 .1" euler="0 20 0" material="checked"/>
        {"".join(geoms)} <geom type="mesh" mesh="tent" pos="0 -2 0" euler="0 0 30" material="checked"/>
        <geom type="box" size="3 3 3" rgba="1 1 1 0"/>
        <geom type="box" size=".3 .3 .3" pos="9 0 1" material="checked"/>
        <camera name="inside" pos="9.1 0 1.1" xyaxes="0 1 0 -.3 0 1"/>
        <camera name="low" pos="-3 -4 .5" xyaxes="1 -.7 0 0 .1 1"/>
        <light type="directional" dir=".3 .4 -.8" diffuse=".3 .2 .1" ambient=".05 0 .05"/>
        <light type="spot" pos="0 0 2" dir=".2 .1 -1" cutoff="40" exponent="3" diffuse=".5 .6 .7"
            attenuation="1 .1 .2"/>
        <light type="point" pos="-1 1 1" diffuse=".4 .1 .3" attenuation=".5 .3 .4"/>
        <light type="point" pos="0 0 1" diffuse="1 1 1" active="false"/>"""
    engine = Still(world, MESH + CHECKER + CUBE + MATERIALS)
    cameras = ("above", "inside", "low")
    want, got = (kind(engine, cameras, (60, 80), depth=True).frames() for kind in (RayTracer, Rasteriser))
    assert (want.geoms == got.geoms).float().mean() > 0.999
    assert ((want.depth - got.depth).abs() <= 1e-4 * want.depth).float().mean() > 0.999
    assert agreement(want.rgb, got.rgb) > 0.999
    assert len(torch.unique(got.geoms)) > 20 and (got.geoms[0, 2] == -1).any()


# ---- shapes, by their equations

SIZE = np.array([0.5, 0.4, 0.3])
SHAPES = {  # negative inside, and the outward normal's direction, of points (k, 3) in the geom's frame
    "sphere": lambda p: (np.linalg.norm(p, axis=1) - 0.5, p),
    "ellipsoid": lambda p: (np.linalg.norm(p / SIZE, axis=1) - 1, p / SIZE**2),
    "cylinder": lambda p: _cylinder(p),
    "capsule": lambda p: _capsule(p),
    "box": lambda p: (
        (abs(p) - SIZE).max(1),
        np.sign(p) * ((abs(p) - SIZE) == (abs(p) - SIZE).max(1, keepdims=True)),
    ),
}


def _cylinder(p):
    side, end = np.hypot(p[:, 0], p[:, 1]) - 0.5, abs(p[:, 2]) - 0.4
    normal = np.where((side > end)[:, None], p * (1, 1, 0), np.sign(p) * (0, 0, 1))
    return np.maximum(side, end), normal


def _capsule(p):
    beyond = p - np.clip(p[:, 2], -0.4, 0.4)[:, None] * (0, 0, 1)
    return np.linalg.norm(beyond, axis=1) - 0.5, beyond


@pytest.mark.parametrize("kind", SHAPES)
def test_a_shape_is_where_its_equation_says(kind):
    """Depth, outline and the headlight's shading of a turned geom, from the surface's equation alone."""
    size, engine = 40, Still(f'{ABOVE}<geom type="{kind}" size=".5 .4 .3" pos=".1 -.2 .3" euler="40 25 10"/>')
    drawn = make_renderer(engine, ("above",), size, depth=True).frames()
    depth, geoms, rgb = drawn.depth[0, 0].double().numpy(), drawn.geoms[0, 0].numpy(), drawn.rgb[0, 0].numpy()
    turn, centre = engine.data.geom_xmat[0].reshape(3, 3), engine.data.geom_xpos[0]
    rows, columns = np.mgrid[:size, :size]
    ray = np.stack([(columns + 0.5) / size * 2 - 1, 1 - (rows + 0.5) / size * 2, -np.ones((size, size))], -1)

    def inside(far):
        return SHAPES[kind]((np.array([0, 0, 2]) + far[..., None] * ray - centre).reshape(-1, 3) @ turn)

    hit = geoms.ravel() == 0
    assert 50 < hit.sum() < 800 and (geoms.ravel()[~hit] == -1).all() and (depth.ravel()[~hit] == 0).all()
    nearest = np.min([inside(np.full((size, size), far))[0] for far in np.linspace(0.5, 3, 500)], axis=0)
    assert (hit == (nearest < 0))[abs(nearest) > 1e-3].all()
    surface, normal = inside(depth)
    assert abs(surface[hit]).max() < 1e-5
    before = np.min([inside(depth - back)[0] for back in np.linspace(0.01, 1, 50)], axis=0)
    assert (before[hit] > 0).all()  # it is the first of the surface's two points
    normal = (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)) @ turn.T
    light = HEADLIGHT[0] + HEADLIGHT[1] * np.maximum(normal[:, 2], 0)
    want = 255 * light[:, None] * (1, 0.5, 0.25)
    wrong = abs(want - rgb.reshape(3, -1).T)[hit] > 1.01
    assert wrong.mean() < 0.005  # on a box's edge either face may be seen


@pytest.mark.parametrize(("size", "columns"), [("1 0 1", (2, 6)), ("0 0 1", (0, 8)), (".7 1 1", (3, 5))])
def test_a_plane_ends_where_it_should(size, columns):
    """Eight pixels over four metres: centres at -1.75, -1.25, ... 1.75."""
    rgb, depth, geoms = frames(f'{ABOVE}<geom type="plane" size="{size}"/>', 8)
    want = np.full(8, -1)
    want[slice(*columns)] = 0
    assert (geoms[3] == want).all() and np.allclose(depth[3], np.where(want == 0, 2, 0))
    assert (rgb[3] == np.where(want[:, None] == 0, (178, 89, 44), 0)).all()  # .7 of the colour, cut off


def test_a_plane_has_no_back():
    assert (frames(f'{ABOVE}<geom type="plane" size="1 1 1" euler="180 0 0"/>', 4)[2] == -1).all()


def test_a_mesh_of_four_faces():
    """A tent of half width 1 and height 2, one metre below the camera; its slope: y = (depth - 1) / 2."""
    rgb, depth, geoms = frames(f'{ABOVE}<geom type="mesh" mesh="tent" pos="0 0 -1"/>', 9, MESH)
    assert np.argwhere(geoms == 0).tolist() == [[i, j] for i in (3, 4, 5) for j in (3, 4, 5)]
    assert depth[4, 4] == pytest.approx(1, abs=1e-5)
    assert depth[3, 4] == pytest.approx(0.5 / (0.5 - 2 / 9), abs=1e-5)  # where y is 2 / 9 of the depth
    light = HEADLIGHT[0] + HEADLIGHT[1] / np.sqrt(5)
    assert rgb[3, 4].tolist() == [int(255 * light * c) for c in (1, 0.5, 0.25)]


def test_a_camera_before_a_mesh_that_passes_it_and_in_a_box():
    """What crosses the camera's plane is cut off there and nowhere else."""
    world = (
        f'{ABOVE}<geom type="box" size="3 3 3" pos="0 0 1"/><geom type="mesh" mesh="tent" pos="0 .8 1.5"/>'
    )
    _, depth, geoms = frames(world, 16, MESH)
    assert geoms[0, 8] == 1 and geoms[15, 0] == 0
    assert depth[15, 0] == pytest.approx(3 / (15 / 16), abs=1e-5)  # a side of the box, from within
    assert depth[0, 8] == pytest.approx(0.05 / (15 / 16 + 1 / 2), abs=1e-5)  # the tent's slope, 5 cm away


def test_what_has_alpha_0_is_not_there():
    world = f'{ABOVE}<geom type="plane" size="0 0 1"/><geom type="box" size="1 1 .5" rgba="1 1 1 0"/>'
    assert (frames(world, 4)[2] == 0).all()


def test_of_equally_near_geoms_the_later_is_seen():
    sizes = ("1 1 .5", ".4 .4 .5", "1 1 .5")
    world = ABOVE + "".join(f'<geom type="box" size="{size}"/>' for size in sizes)
    assert set(np.unique(frames(world, 8)[2])) == {-1, 2}


# ---- lights and textures, by hand

PLANE = f'{ABOVE}<geom type="plane" size="0 0 1" rgba="1 1 1 1"/>'


@pytest.mark.parametrize(
    ("light", "strength"),
    [
        ('type="directional" dir=".6 0 -.8"', lambda x, y: 0.8),
        ('type="directional" dir=".6 0 .8"', lambda x, y: 0.0),
        ('type="point" pos="0 0 1"', lambda x, y: (x * x + y * y + 1) ** -0.5),
        ('type="point" pos="0 0 1" attenuation="0 0 2"', lambda x, y: (x * x + y * y + 1) ** -1.5 / 2),
        (
            'type="spot" pos="0 0 1" dir="0 0 -1" cutoff="50" exponent="2"',
            lambda x, y: (x * x + y * y + 1) ** -1.5 * (x * x + y * y < np.tan(np.radians(50)) ** 2),
        ),
        ('type="directional" dir="0 0 -1" active="false"', lambda x, y: 0.0),
    ],
)
def test_a_light_on_a_plane(light, strength):
    """Beside the headlight's .7, at the pixels' places on the floor."""
    rgb = frames(f'{PLANE}<light {light} diffuse=".1 .2 .3" ambient="0 0 0"/>', 8)[0]
    for row, column in ((3, 4), (0, 0), (6, 3), (2, 7)):
        x, y = (column - 3.5) / 2, (3.5 - row) / 2
        want = [int(255 * (0.7 + c * strength(x, y)) + 1e-4) for c in (0.1, 0.2, 0.3)]
        assert np.abs(rgb[row, column].astype(int) - want).max() <= 1


def test_light_is_cut_off_at_white():
    rgb = frames(f'{PLANE}<light type="directional" dir="0 0 -1" diffuse=".2 .3 9"/>', 4)[0]
    assert (rgb == (int(0.9 * 255), 255, 255)).all()


def test_a_flat_texture_texel_by_texel():
    """A box's top of four metres under four pixels: each sees the middle of a texel."""
    assets = f"{CHECKER.replace('8', '4')}<material name='m' texture='checker'/>"
    world = f'{ABOVE}<geom type="box" size="2 2 1" pos="0 0 -1" material="m" rgba=".5 .5 .5 1"/>'
    engine = Still(world, assets)
    texels = engine.model.tex_data.reshape(4, 4, 3)
    rgb = make_renderer(engine, ("above",), 4).render()[0, 0].permute(1, 2, 0).numpy()
    assert (np.abs(rgb - texels * 0.7) <= 1).all() and len(np.unique(texels.reshape(-1, 3), axis=0)) == 2


def test_a_cube_texture_is_a_strip_of_six():
    """24 rows of texels under four pixels: each sees the middle between two rows."""
    assets = CUBE.replace('"8"', '"4"').replace('"48"', '"24"') + "<material name='m' texture='cube'/>"
    world = f'{ABOVE}<geom type="box" size="2 2 1" pos="0 0 -1" material="m" rgba=".5 .5 .5 1"/>'
    engine = Still(world, assets)
    strip = engine.model.tex_data.reshape(24, 4, 3).astype(float)
    want = 0.7 * (strip[[2, 8, 14, 20]] + strip[[3, 9, 15, 21]]) / 2
    rgb = make_renderer(engine, ("above",), 4).render()[0, 0].permute(1, 2, 0).numpy()
    assert (np.abs(rgb - want) <= 1).all() and np.ptp(want) > 50


def test_what_cannot_be_drawn_is_named():
    field = '<hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/>'
    with pytest.raises(CaliperError, match="hfield \\(geom 'hills'"):
        make_renderer(Still(f'{ABOVE}<geom name="hills" type="hfield" hfield="h"/>', field), ("above",), 8)
    with pytest.raises(CaliperError, match="'below' is not in the scene; choose one of: above"):
        make_renderer(Still(PLANE), ("below",), 8)
    with pytest.raises(CaliperError, match="depth=True"):
        make_renderer(Still(PLANE), ("above",), 8).frames()


# ---- the same bits


def test_bits_depend_neither_on_threads_nor_on_other_envs():
    env = make_envs("lift", 4, cameras=())
    for action in random_actions(env, 3):
        env.step(action)
    one, three = (Rasteriser(env.engine, CAMERAS, 64, threads).render() for threads in (1, 3))
    assert torch.equal(one, three)
    alone = make_envs("lift", 1, cameras=())
    for world in range(4):
        alone.set_state(env.get_state()[world : world + 1])
        assert torch.equal(alone.render(CAMERAS, 64)[0], one[world])


def test_compiled_loops_round_alike_in_all_their_forms():
    """A fused multiply-add in one form of a loop alone made single pixels depend on where the arrays lay."""
    assert OPTIONS["fastmath"] <= {"nsz", "nnan"}


def test_bits_do_not_depend_on_what_was_drawn_before():
    """Layers of what is still are kept; appearances come and go, and a camera is moved."""
    env = make_envs("lift", 2, cameras=())
    old = Rasteriser(env.engine, CAMERAS, 48)
    appearances = Appearances(env.engine.model, env.device)
    images = []
    for seed in (0, 3, 3, 4):
        env.step(random_actions(env, 1, seed)[0])
        appearance = appearances.draw(
            AppearanceRanges(0.03, 0.1, 0.4, 0.3) if seed else AppearanceRanges(), seed + torch.arange(2)
        )
        old.dress(appearance)
        new = Rasteriser(env.engine, CAMERAS, 48)
        new.dress(appearance)
        images.append(old.render())
        assert torch.equal(images[-1], new.render()) and torch.equal(images[-1], old.render())
    assert not torch.equal(images[0], images[1])
    engine = Still(f'{PLANE}<geom type="box" size=".5 .5 .5"/>')
    renderer = make_renderer(engine, ("above",), 16)
    first = renderer.render()
    engine.data.cam_xpos[0, 0] = 0.5
    assert torch.equal(renderer.render(), make_renderer(engine, ("above",), 16).render())
    assert not torch.equal(renderer.render(), first)


def test_only_the_envs_asked_for_are_drawn():
    env = make_envs("lift", 3, cameras=())
    renderer = Rasteriser(env.engine, CAMERAS, 32)
    first = renderer.render()
    env.step(random_actions(env, 1)[0])
    second = renderer.render(torch.tensor([True, False, True]))
    everything = Rasteriser(env.engine, CAMERAS, 32).render()
    assert torch.equal(second[1], first[1]) and torch.equal(second[::2], everything[::2])
    assert not torch.equal(everything[1], first[1])


# ---- the compiled code


def test_code_from_other_sources_is_never_found(tmp_path, monkeypatch):
    """The number in the cache's key covers all that is compiled, and is the one of the code that runs."""
    folder = Path(compiled.__file__).parent
    imported, todo = set(), ["compiled.py"]
    while todo:
        if (name := todo.pop()) in imported:
            continue
        imported.add(name)
        for node in ast.walk(ast.parse((folder / name).read_text())):
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and module.startswith("caliper.envs.render."):
                todo.append(f"{module.rsplit('.')[-1]}.py")
    assert imported == set(COMPILED)
    before = fingerprint()
    for name in COMPILED:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    assert fingerprint() == before
    for name in COMPILED:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
        assert fingerprint() != before
        before = fingerprint()


def test_one_signature_serves_every_engine():
    """Each would cost its own compilation."""
    for sim in ("batch", "warp"):
        env = make_envs("lift", 2, sim=sim, cameras=())
        env.render(CAMERAS, 32)
        env.set_appearance(torch.arange(2), AppearanceRanges(0.03, 0.1, 0.4, 0.3))
        env.render(CAMERAS, 32)
        env.set_appearance(None)
    assert len(draw.signatures) == 1


def test_without_a_cache_it_works_and_says_what_it_costs(monkeypatch):
    njit = numba.njit

    def without_cache(*args, cache=False, **kwargs):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **kwargs)

    monkeypatch.setattr(compiled.numba, "njit", without_cache)
    with pytest.warns(UserWarning, match="compiled anew by every process .* NUMBA_CACHE_DIR"):
        function = compiled.compiled(1)
    assert function.py_func.__name__ == "draw"


@pytest.mark.parametrize("broken", [[0], [1], [0, 1]])
def test_an_env_that_blew_up_has_no_image_and_spoils_no_other(broken):
    """Poses that are not finite would lead compiled code outside of its arrays."""
    env, whole = (SimEnv("lift", 2, size=16, threads=1) for _ in range(2))
    for world, value in zip(broken, (float("nan"), 1e30), strict=False):
        env.engine.pose_arrays()["geom_xpos"][world] = value
    images, expected = env.observe().pixels, whole.observe().pixels
    for world in range(2):
        if world in broken:
            assert not images[world].any()
        else:
            assert torch.equal(images[world], expected[world])


def _checked(scenes, *tasks, cache):
    """Draws what might lead compiled code out of its arrays, compiled so that it says so."""
    script = Path(__file__).with_name("raster_fuzz.py")
    env = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, script, str(scenes), *tasks], check=True, env=env)


@pytest.mark.slow
def test_every_index_is_within_its_array(tmp_path):
    """Compiled code asks nothing; here it does. One scene's last clusters are not full."""
    _checked(40, "pick_covered", cache=tmp_path)


@pytest.mark.slow
def test_every_index_is_within_its_array_in_every_task(tmp_path):
    _checked(1000, *TASKS, cache=tmp_path)


@pytest.mark.parametrize("value", [1e12, -1e12, float("inf"), float("-inf"), float("nan")])
def test_rows_and_columns_are_of_the_image_whatever_overflowed(value):
    assert within(np.float32(2.5), np.float32(4), 9) == (3, 5)
    assert within(np.float32(0), np.float32(99), 9) == (0, 9)
    for low, high in ((value, 4), (2.5, value), (value, value)):
        first, end = within(np.float32(low), np.float32(high), 9)
        assert first >= 0 and end <= 9


def test_a_cylinder_that_lies_along_the_rows():
    """All columns of a row meet it or none does; rounding puts the border some billions of columns away."""
    engine = Still(f'{ABOVE}<geom type="cylinder" size=".4 1" euler="0 90 0"/>')
    want = make_renderer(engine, ("above",), 20, depth=True).frames().geoms
    middle = engine.data.geom_xmat.copy()
    rng = np.random.default_rng(0)
    for noise in np.repeat(10.0 ** np.arange(-12, -6), 5):
        engine.data.geom_xmat[:] = middle + noise * rng.normal(size=middle.shape)
        got = make_renderer(engine, ("above",), 20, depth=True).frames().geoms
        assert torch.equal(got, want)
    assert (want[0, 0, 8:12, 5:15] == 0).all() and (want[0, 0, :8] == -1).all()
