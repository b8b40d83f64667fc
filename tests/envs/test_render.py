"""Images: the right way up, of the right things, the same however they are drawn."""

import mujoco
import numpy as np
import pytest
import torch

from caliper.envs.render import make_renderer
from caliper.envs.scene import scenes
from caliper.envs.tasks import TASKS, make_task
from tests.envs.conftest import CAMERAS, make_envs, random_actions


def project(env, camera, points, size):
    """Pixels (row, column) at which a camera sees points (k, 3) of env 0, by the pinhole's equations."""
    model, data = env.engine.model, mujoco.MjData(env.engine.model)
    data.qpos[:] = env.engine.qpos[0].numpy()
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    cam = model.camera(camera).id
    local = (points - data.cam_xpos[cam]) @ data.cam_xmat[cam].reshape(3, 3)  # x right, y up, z backwards
    assert (local[:, 2] < 0).all()
    focal = size / 2 / np.tan(np.radians(model.cam_fovy[cam]) / 2)
    column = size / 2 + focal * local[:, 0] / -local[:, 2]
    row = size / 2 - focal * local[:, 1] / -local[:, 2]
    return np.stack([row, column], 1)


def redness(image):
    """How much red exceeds the other two channels, (h, w), of an image (3, h, w)."""
    p = image.int()
    return p[0] - torch.maximum(p[1], p[2])


@pytest.mark.parametrize("camera", [*CAMERAS, "showcase"])
def test_the_cube_is_red_where_the_camera_should_see_it(camera):
    size = 128
    env = make_envs("lift", 1, cameras=())
    state = env.get_state()
    cube = int(env.engine.model.body("cube_main").jntadr[0])
    at = 1 + env.engine.model.jnt_qposadr[cube]
    shift = {"agentview": (0.05, 0.12), "robot0_eye_in_hand": (0.03, 0.03), "showcase": (0.1, -0.1)}[camera]
    state[0, at : at + 2] = torch.tensor(shift, dtype=torch.float64)  # off the image's axes of symmetry
    env.set_state(state)
    red = redness(env.render((camera,), size)[0, 0])
    row, column = project(env, camera, env.object_pos.numpy(), size)[0]
    assert abs(row - size / 2) > 3 or abs(column - size / 2) > 3
    assert red[int(row), int(column)] > 50
    rows, columns = torch.nonzero(red > 40, as_tuple=True)
    assert 8 < len(rows) < size * size / 8  # the cube, not the room
    assert (rows.float().mean() - row).abs() < 4 and (columns.float().mean() - column).abs() < 4


def test_up_is_up():
    """The agent's camera sees the robot's base above, the table's near edge below."""
    env = make_envs("lift", 1, cameras=())
    image = env.render(("agentview",), 64)[0, 0].float().mean(0)
    assert image[-16:].mean() > image[:16].mean() + 20  # the table is light, the room behind is dark


@pytest.mark.parametrize("size", [16, 48, 64, 84, 100])
def test_any_size(size):
    env = make_envs("lift", 2, cameras=())
    images = env.render(CAMERAS, size)
    assert images.shape == (2, 2, 3, size, size)
    assert images.float().std() > 20


def test_sizes_agree():
    env = make_envs("lift", 1, cameras=())
    small, large = env.render(("agentview",), 32), env.render(("agentview",), 128)
    shrunk = torch.nn.functional.avg_pool2d(large[0].float(), 4)
    assert (shrunk - small[0]).abs().mean() < 6


def test_drawing_some_envs_anew_equals_drawing_all():
    n = 4
    env = make_envs("lift", n)
    before = env.observe().pixels
    mask = torch.zeros(n, dtype=torch.bool)
    mask[2] = True
    env.reset(mask=mask, seeds=torch.full((n,), 77))
    partial = env._renderer(env.spec.cameras, env.spec.size).render(mask)
    assert torch.equal(partial, env.observe().pixels)
    assert torch.equal(partial[~mask], before[~mask]) and not torch.equal(partial[mask], before[mask])


def test_other_envs_resets_change_nothing():
    """Envs that end at other times, drawn in the same chunks."""
    many, one = make_envs("lift", 3, horizon=3), make_envs("lift", 1, horizon=3)
    actions = random_actions(many, 5)
    state = many.state_dict()
    state["steps"] = torch.tensor([0, 1, 2])
    many.load_state_dict(state)
    one.reset(seeds=torch.tensor([0]))
    for k, action in enumerate(actions[:3]):
        a, b = many.step(action), one.step(action[:1])
        assert torch.equal(a.final_obs.pixels[0], b.final_obs.pixels[0])
        assert torch.equal(many.final_state[0], one.final_state[0])
        assert a.truncated.tolist() == [k == 2, k == 1, k == 0]


@pytest.mark.parametrize("task", TASKS)
def test_joined_meshes_look_like_the_many(task, monkeypatch):
    """The scene before joining, drawn at the same state, gives the same image to the odd edge pixel."""
    from caliper.envs.engines.batch import BatchEngine
    from caliper.envs.robot.control import Control

    env = make_envs(task, 1, cameras=())
    for action in random_actions(env, 3):
        env.step(action)
    monkeypatch.setattr(scenes, "merge_visual_meshes", lambda *args: None)
    many = scenes.build(make_task(task).scene)
    assert many.hash == env.scene_hash and many.model.ngeom > env.engine.model.ngeom + 30
    for field in ("body_mass", "body_inertia", "body_ipos", "dof_M0", "jnt_range"):
        assert np.array_equal(getattr(many.model, field), getattr(env.engine.model, field))
    engine = BatchEngine(many.model, 1, Control(), 1)
    for name in ("qpos", "mocap_pos", "mocap_quat"):
        getattr(engine, name).copy_(getattr(env.engine, name))
    engine.refresh()
    cameras = (*CAMERAS, "showcase")
    want, got = make_renderer(engine, cameras, 64).render(), env._renderer(cameras, 64).render()
    assert ((want.int() - got.int()).abs() > 2).float().mean() < 1e-3


def test_light_never_burns_out():
    env = make_envs("lift", 1, cameras=())
    assert (env.render(CAMERAS, 64) == 255).float().mean() < 0.01
