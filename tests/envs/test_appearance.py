"""VisualAugmentation: each changes its share of the pixels by the amount it says, and nothing but pixels."""

import copy
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch

from caliper.envs.engines.batch import BatchEngine
from caliper.envs.render import make_renderer
from caliper.envs.robot.control import Control
from caliper.envs.scene.appearance import AppearanceRanges, Appearances, own_colours, rotations
from caliper.envs.sim import task_scene
from caliper.envs.tasks import TASKS
from tests.envs.conftest import CAMERAS, make_envs, random_actions

EVERYTHING = AppearanceRanges(shift=0.03, turn=0.05, light=0.3, colour=0.3)


@pytest.fixture
def env():
    """Envs of the lift, as the scene says before and after."""
    env = make_envs("lift", 2)
    yield env
    env.set_appearance(None)


def as_it_is(env):
    """The appearance that changes nothing, to be changed."""
    return Appearances(env.engine.model, env.device).draw(
        AppearanceRanges(), torch.zeros(env.num_envs).long()
    )


def wear(env, appearance):
    """As `set_appearance`, with a appearance made by hand."""
    env._appearance = appearance
    for renderer in env._renderers.values():
        renderer.dress(appearance)


def drawn(env, **changes):
    wear(env, replace(as_it_is(env), **changes))
    return env.observe().pixels


@pytest.mark.parametrize("task", TASKS)
def test_ranges_of_zero_change_no_bit(task):
    env = make_envs(task, 2)
    plain = env.observe().pixels
    assert torch.equal(drawn(env), plain)
    env.set_appearance(torch.arange(2), EVERYTHING)
    assert not torch.equal(env.observe().pixels, plain)
    env.set_appearance(None)
    assert torch.equal(env.observe().pixels, plain)


@pytest.mark.parametrize("sim", ["batch", "warp"])
def test_nothing_but_pixels_changes(sim):
    """Two equal runs of a few steps, one of them under other augmentation."""
    env = make_envs("lift", 2, sim=sim, horizon=3)
    runs = []
    for seeds in (None, torch.tensor([4, 5])):
        env.reset(seeds=torch.arange(2))
        env.set_appearance(seeds, EVERYTHING)
        runs.append([(env.step(action), env.final_state) for action in random_actions(env, 4)])
    env.set_appearance(None)
    for (a, state), (b, other) in zip(*runs, strict=True):
        assert torch.equal(state, other)
        for name in ("reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(a.obs.proprio, b.obs.proprio)
        for i in range(2):
            for view in range(2):
                assert not torch.equal(a.final_obs.pixels[i, view], b.final_obs.pixels[i, view])


def test_a_renderer_made_later_wears_the_look(env):
    env.set_appearance(torch.arange(2), EVERYTHING)
    late = env.render(("sideview",), 40)
    env.set_appearance(None)
    plain = env.render(("sideview",), 40)
    env.set_appearance(torch.arange(2), EVERYTHING)
    assert torch.equal(env.render(("sideview",), 40), late) and not torch.equal(late, plain)


def test_an_appearance_depends_on_its_seed_alone():
    many, one = make_envs("lift", 4), make_envs("lift", 1)
    many.reset(seeds=torch.zeros(4).long())
    many.set_appearance(torch.arange(4), EVERYTHING)
    images = many.observe().pixels
    many.set_appearance(None)
    for seed in range(4):
        one.set_appearance(torch.tensor([seed]), EVERYTHING)
        assert torch.equal(one.observe().pixels[0], images[seed])
    one.set_appearance(None)
    assert len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_moved_camera_sees_what_it_would_see_from_there(env, camera):
    """Against a scene whose model has the camera there: on a stand, and on the robot's hand."""
    shift, turn = torch.tensor([0.03, -0.02, 0.04]), torch.tensor([0.05, -0.1, 0.2])
    model = copy.copy(env.engine.model)
    cam, matrix, more = model.camera(camera).id, np.zeros(9), np.zeros(4)
    mujoco.mju_quat2Mat(matrix, model.cam_quat[cam])
    model.cam_pos[cam] += matrix.reshape(3, 3) @ shift.double().numpy()
    mujoco.mju_axisAngle2Quat(more, (turn / turn.norm()).double().numpy(), float(turn.norm()))
    mujoco.mju_mulQuat(model.cam_quat[cam], model.cam_quat[cam].copy(), more)
    engine = BatchEngine(model, 2, Control(), 1)
    engine.qpos.copy_(env.engine.qpos)
    engine.refresh()
    want = make_renderer(engine, (camera,), 64).render()
    plain = env.render((camera,), 64)
    appearance = as_it_is(env)
    appearance.shift[:, cam] = shift
    appearance.turn[:, cam] = rotations(turn)
    wear(env, appearance)
    got = env.render((camera,), 64)
    assert ((got.int() - want.int()).abs() > 2).float().mean() < 2e-3
    assert ((plain.int() - want.int()).abs() > 2).float().mean() > 0.1


def test_half_the_light_is_half_the_image(env):
    plain, half = drawn(env).float(), torch.full((2,), 0.5)
    assert (drawn(env, headlight=half, lamps=half).float() - plain / 2).abs().max() <= 1
    by_lamps, by_headlight = drawn(env, headlight=half).float(), drawn(env, lamps=half).float()
    assert (by_lamps + by_headlight - 1.5 * plain).abs().max() <= 2
    assert (by_lamps - by_headlight).abs().mean() > 5  # they are not the same light


def test_each_env_has_its_own_light(env):
    factors = torch.tensor([1.0, 0.5])
    images, plain = drawn(env, headlight=factors, lamps=factors), drawn(env)
    assert torch.equal(images[0], plain[0]) and not torch.equal(images[1], plain[1])


@pytest.mark.parametrize("geom", ["cube_g0_vis", "gripper0_right_hand_visual"])
def test_a_tinted_surface_changes_alone(env, geom):
    """With a textured material, and with a colour of its own."""
    plain = drawn(env).float()
    appearance = as_it_is(env)
    appearance.tint[:, env.engine.model.geom(geom).id, 0] = 0.25
    wear(env, appearance)
    tinted = env.observe().pixels.float()
    assert torch.equal(tinted[:, :, 1:], plain[:, :, 1:])  # only red was to change
    changed = tinted[:, :, 0] != plain[:, :, 0]
    assert 0 < changed.float().mean() < 0.4
    red = plain[:, :, 0][changed]
    assert (tinted[:, :, 0][changed] - red / 4).abs().max() <= 1


def test_draws_stay_within_their_ranges_and_apart():
    model = task_scene("pick_place_tray").model
    augmentation = Appearances(model, torch.device("cpu"))
    seeds = torch.arange(200)
    appearance = augmentation.draw(EVERYTHING, seeds)
    angle = torch.arccos((appearance.turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
    relative = (appearance.headlight, appearance.lamps, appearance.tint)
    offsets = [(appearance.shift, 0.03), *((part - 1, 0.3) for part in relative)]
    for offset, strength in offsets:
        assert offset.abs().max() <= strength + 1e-6 and offset.std() > strength / 2
        assert offset.mean().abs() < strength / 5
    assert 0.05 < angle.max() <= 0.05 * 3**0.5 + 1e-3
    assert not torch.equal(appearance.headlight, appearance.lamps)
    alone = augmentation.draw(AppearanceRanges(colour=0.3), seeds)
    assert (
        torch.equal(alone.tint, appearance.tint) and (alone.headlight == 1).all() and (alone.shift == 0).all()
    )
    walls = [model.geom(name).id for name in ("wall_rear_visual", "wall_left_visual")]
    tray = [model.geom(name).id for name in ("tray_floor_visual", "tray_far_visual")]
    for a, b in (walls, tray):
        assert torch.equal(appearance.tint[:, a], appearance.tint[:, b])
    assert not torch.equal(appearance.tint[:, walls[0]], appearance.tint[:, tray[0]])


def test_rotations():
    vectors = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, torch.pi / 2], [0.3, -0.2, 0.1]])
    got = rotations(vectors)
    torch.testing.assert_close(got[0], torch.eye(3))
    torch.testing.assert_close(got[1] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]))
    torch.testing.assert_close(got[2] @ got[2].T, torch.eye(3))
    torch.testing.assert_close(got[2] @ vectors[2], vectors[2])


def test_own_colours_are_the_materials_where_geoms_have_none():
    model = task_scene("lift").model
    colours = own_colours(model)
    cube, torso = model.geom("cube_g0_vis").id, model.geom("fixed_mount0_torso_vis").id
    assert colours[cube, :3].tolist() == [1, 1, 1]
    np.testing.assert_allclose(colours[torso, :3], [0.2, 0.2, 0.2])
    assert (colours[:, 3] < 1).all()  # (0.5, 0.5, 0.5, 1) would mean the material's colour again
