"""What a policy may see besides square colour images: other sizes, depth, instances, and chosen numbers."""

import mujoco
import numpy as np
import pytest
import torch

from caliper.envs.observation.instances import instances
from caliper.envs.observation.lowdim import LENGTHS, quaternions
from caliper.envs.observation.stack import FrameStack
from caliper.envs.render import make_renderer
from caliper.envs.sim import SimEnv, task_scene
from caliper.errors import CaliperError
from tests.envs.conftest import make_envs, random_actions
from tests.oracle import make_oracle

CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview")
SIZES = ((24, 32), (16, 16), (24, 32))
SEES = {"cameras": CAMERAS, "size": SIZES, "depth": True, "segmentation": True}
NAMES = {f"{kind}{size}" for kind in ("pixels", "depth", "segmentation") for size in ("", "_16x16")}


def same(a, b):
    assert a.tensors.keys() == b.tensors.keys()
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


@pytest.fixture(params=["batch", "warp"])
def env(request):
    env = make_envs("lift", 2, sim=request.param, **SEES)
    env.step(random_actions(env, 1)[0])
    return env


def test_each_camera_has_its_size_and_every_kind(env):
    obs = env.observe()
    assert obs.images.keys() == NAMES == env.spec.planes.keys()
    for name, plane in env.spec.planes.items():
        assert obs.images[name].shape == (2, *plane.shape) and obs.images[name].dtype == plane.dtype
    for size, cameras in (((24, 32), (0, 2)), ((16, 16), (1,))):
        names = tuple(CAMERAS[i] for i in cameras)
        frames = make_renderer(env.engine, names, size, depth=True).frames()
        end = "" if size == SIZES[0] else "_16x16"
        assert torch.equal(obs.images[f"pixels{end}"], frames.rgb)
        depth = obs.images[f"depth{end}"]
        assert torch.equal(depth[:, :, 0], frames.depth.half())
        # To half a millimetre at a metre: float16 has eleven bits.
        assert ((depth[:, :, 0].float() - frames.depth).abs() <= frames.depth / 2048).all()
        number = instances(env.engine.model)[1]
        seen = obs.images[f"segmentation{end}"][:, :, 0].numpy()
        geoms = frames.geoms.numpy()
        assert np.array_equal(seen, np.where(geoms < 0, 0, number[geoms]))


@pytest.mark.gpu
def test_a_gpu_sees_depth_and_instances_as_the_cpu():
    """A ray tracer there, a rasteriser here: all but the pixels on edges."""
    here, there = make_envs("lift", 2, **SEES), make_envs("lift", 2, sim="warp", device="cuda", **SEES)
    here, there = here.observe().images, there.observe().images
    assert there.keys() == NAMES
    for name in NAMES:
        a, b = here[name].float(), there[name].cpu().float()
        within = {"pixels": 2, "depth": 0.002, "segmentation": 0}[name.split("_")[0]]
        assert ((a - b).abs() <= within).float().mean() > 0.995, name


def test_every_kind_is_the_same_live_and_replayed(env):
    """A live episode's observations, and those of its states in envs that did not live it."""
    other = SimEnv("lift", 2, threads=1, sim="warp" if env.engine.limits else "batch", horizon=4, **SEES)
    live = FrameStack(env, 2)
    env.horizon = 4
    live.reset(seeds=torch.tensor([3, 4]))
    for action in random_actions(env, 5):
        step = live.step(action)
        other.set_state(live.final_state)
        assert same(other.observe(), step.final_obs.newest(2))
        other.set_state(live.get_state())
        assert same(other.observe(), step.obs.newest(2))


def test_instances_of_a_scene():
    """By the names of the bodies: the arm, its gripper, the cube; table and floor are none."""
    model = task_scene("lift").model
    names, number = instances(model)
    assert names[0].startswith("robot0") and names[1].startswith("gripper0") and names[2] == "cube_main"
    assert len(names) == 3
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        start = {
            1: ("robot0", "fixed_mount0", "mount0"),
            2: ("gripper0",),
            3: ("cube",),
            0: ("table", "world"),
        }
        assert body.startswith(start[int(number[geom])]), body


def test_a_hinge_makes_an_instance():
    """What has a joint anywhere in it is one, a door in its standing frame too; what stands still is not."""
    xml = """<mujoco><worldbody>
      <geom name="floor" type="plane" size="1 1 1"/>
      <body name="frame"><geom name="post" size=".1"/>
        <body name="door"><joint type="hinge"/><geom name="leaf" size=".1"/></body></body>
      <body name="bin"><geom name="wall" size=".1"/></body>
      <body name="ball" pos="1 0 0"><freejoint/><geom name="ball" size=".1"/></body>
    </worldbody></mujoco>"""
    names, number = instances(mujoco.MjModel.from_xml_string(xml))
    assert names == ("frame", "ball") and number.tolist() == [0, 1, 1, 0, 2]


def test_quaternions_of_rotations():
    """MuJoCo's own, x first and not negative."""
    draw = np.random.default_rng(0)
    given = draw.normal(size=(200, 4))
    given[:4] = np.eye(4)  # half turns, and none
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    matrices = np.empty((200, 9))
    for quat, mat in zip(given, matrices, strict=True):
        mujoco.mju_quat2Mat(mat, quat)
    ours = quaternions(torch.from_numpy(matrices).view(-1, 3, 3)).numpy()
    expected = given[:, [1, 2, 3, 0]]
    expected *= np.where(expected[:, :1] < 0, -1, 1)
    np.testing.assert_allclose(ours[4:], expected[4:], atol=1e-12)
    np.testing.assert_allclose(np.abs(ours[:4]), expected[:4], atol=1e-12)


def test_chosen_numbers_are_those_of_the_engine():
    keys = ("robot0_eef_pos", "standard", "robot0_joint_pos", "robot0_joint_vel", "robot0_gripper_qvel")
    env = SimEnv("lift", 2, threads=1, cameras=(), proprio=keys)
    plain = SimEnv("lift", 2, threads=1, cameras=())
    actions = random_actions(env, 3)
    for action in actions:
        told, standard = env.step(action).obs.proprio, plain.step(action).obs.proprio
    assert env.spec.proprio == told.shape[1] == 3 + 11 + 7 + 7 + 2
    model, index = env.engine.model, env.engine.controller.index
    fingers = [model.joint(f"gripper0_right_finger_joint{i}") for i in (1, 2)]
    expected = torch.cat(
        [
            env.grip_pos,
            standard,
            env.engine.qpos[:, torch.as_tensor(index.qpos)],
            env.engine.qvel[:, torch.as_tensor(index.dof)],
            env.engine.qvel[:, [int(joint.dofadr[0]) for joint in fingers]],
        ],
        1,
    )
    assert torch.equal(told, expected.float())
    assert told[:, 21:28].abs().min() > 1e-4  # the joints move


def test_unknown_numbers_are_refused():
    with pytest.raises(CaliperError, match=r"no 'robot0_joint'; choose from: standard, .*robot0_eef_quat"):
        SimEnv("lift", 1, cameras=(), proprio=("robot0_joint",))
    with pytest.raises(CaliperError, match="names a key twice"):
        SimEnv("lift", 1, cameras=(), proprio=("standard", "standard"))


@pytest.mark.slow
def test_robosuites_names_are_robosuites_numbers():
    """Both in the same states, along an episode of robosuite's own."""
    from tests.envs.conftest import start_like

    keys = tuple(key for key in LENGTHS if key != "standard")
    oracle = make_oracle("lift", "osc_pose", horizon=1 << 30, ignore_done=True)
    env = SimEnv("lift", 1, threads=1, cameras=(), proprio=keys)
    draw = np.random.default_rng(0)
    for _ in range(30):
        start_like(env, oracle)
        oracle.sim.forward()  # after a step its poses are those before the last substep
        theirs = oracle._get_observations(force_update=True)
        expected = np.concatenate([theirs[key] for key in keys])
        np.testing.assert_allclose(env.observe().proprio[0].numpy(), expected, atol=2e-5)
        oracle.step(draw.uniform(-1, 1, 7))
