"""What tasks are judged by: contacts, joints and fixtures, by name; and the angles of the scripts."""

import math

import pytest
import torch

from caliper.envs.engines.room import CONSTRAINTS, CONTACTS, CONVEX, room
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scripts.experts import _grasp_turn, wrist_middle
from caliper.envs.scripts.handles import _about, _towards
from caliper.envs.scripts.hang import _slanted, _sloped
from caliper.envs.scripts.turns import apply, limited, turn_between
from caliper.envs.seeding import uniform
from caliper.envs.sim import task_scene
from caliper.envs.tasks import make_task
from caliper.envs.tasks.stack import APART, LARGE, SMALL, SPREAD, pads
from tests.envs.conftest import make_envs, usual


def put(env, states, joint, pos, quat=(1.0, 0, 0, 0)):
    at = 1 + int(env.engine.model.joint(joint).qposadr[0])
    states[:, at : at + 3] = torch.tensor(pos, dtype=torch.float64)
    states[:, at + 3 : at + 7] = torch.tensor(quat, dtype=torch.float64)


@pytest.mark.parametrize("sim", ["batch", pytest.param("warp", marks=pytest.mark.slow)])
def test_cubes_touch_when_one_lies_on_the_other(sim):
    env = make_envs("stack", 2, sim=sim, cameras=(), **usual("stack"))
    for gap, touching in ((-1e-4, True), (1e-4, False)):
        states = env.get_state()
        put(env, states, "cubeB_joint0", (0.0, 0.0, 0.8 + LARGE))
        put(env, states, "cubeA_joint0", (0.0, 0.0, 0.8 + 2 * LARGE + SMALL + gap))
        env.set_state(states)
        env.engine.refresh()  # poses alone have no contacts
        assert env.now.touching("cubeA_main", "cubeB_main").tolist() == [touching] * 2
        assert not env.now.touching("cubeA_main", pads("panda")[0]).any()
        assert env.solved().tolist() == [touching] * 2


def test_a_cube_between_both_fingers_is_not_stacked():
    env = make_envs("stack", 2, cameras=(), **usual("stack"))
    states = env.get_state()
    grip = env.now.grip_pos[0].tolist()
    put(env, states, "cubeA_joint0", grip)
    put(env, states, "cubeB_joint0", (grip[0], grip[1], grip[2] - SMALL - LARGE + 1e-4))
    fingers = 1 + env.engine.controller.index.finger_qpos
    for opening, held in ((0.04, False), (0.005, True)):
        states[:, fingers] = torch.tensor([opening, -opening], dtype=torch.float64)
        env.set_state(states)
        left, right = (env.now.touching("cubeA_main", pad) for pad in pads("panda"))
        both = left & right
        assert both.tolist() == [held] * 2
        assert env.solved().tolist() == [not held] * 2


def test_cubes_start_apart():
    task = make_task("stack")
    poses = task.place(uniform(torch.arange(5000), task.draws, stream=2))
    a, b = (poses[f"{name}_main"][:, :2] for name in ("cubeA", "cubeB"))
    assert (a - b).norm(dim=1).min() > APART
    assert max(a.abs().max(), b.abs().max()) <= SPREAD


def test_each_env_has_its_own_door_which_its_state_knows():
    env = make_envs("door", 2, cameras=(), **usual("door"))
    where = env.now.pos("Door_main").clone()
    assert (where[0] - where[1]).abs().max() > 1e-3
    state = env.get_state()
    assert state.shape[1] == env.state_dim == task_scene("door").state_dim == 1 + 11 + 11 + 7
    torch.testing.assert_close(state[:, -7:-4], where)
    env.set_state(state.flip(0))
    torch.testing.assert_close(env.now.pos("Door_main"), where.flip(0))
    hinge = 1 + int(env.engine.model.joint("Door_hinge").qposadr[0])
    for angle, solved in ((0.29, False), (0.31, True)):
        state[:, hinge] = angle
        env.set_state(state)
        assert env.now.joint("Door_hinge").tolist() == [angle] * 2
        assert env.solved().tolist() == [solved] * 2


@pytest.mark.parametrize("sim", ["batch", pytest.param("warp", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("raised", "along", "down", "assembled", "hung"),
    [
        (0.0, 0.011, 0.0060, True, True),
        (0.0, 0.011, 0.0055, True, False),  # the hole's rim does not touch the bar
        (0.0, 0.003, 0.0060, True, False),  # not far enough on it
        (0.0, -0.005, 0.0060, True, False),  # beside its end
        (0.025, 0.011, 0.0060, False, True),  # the rod is not deep enough in the stand
    ],
)
def test_a_wrench_hangs_with_its_hole_around_the_bar(sim, raised, along, down, assembled, hung):
    """The hook points along the world's -y; `along` counts from the bar's end, metres."""
    env = make_envs("tool_hang", 2, sim=sim, cameras=(), **usual("tool_hang"))
    states, half = env.get_state(), math.sqrt(0.5)
    put(env, states, "stand_joint0", (-0.08, 0.0, 0.88))
    rod = (-0.08, 0.045, 0.812 + raised + 0.13445)  # where it would be, if it were in the frame's middle
    put(env, states, "frame_joint0", (rod[0], rod[1] - 0.04375, rod[2]), (half, 0, 0, half))
    hole = (rod[0], rod[1] - 0.04375 - 0.0475 + along, rod[2] + 0.08625 - down)
    put(env, states, "tool_joint0", (hole[0], hole[1], hole[2] - 0.09353), (0.5, 0.5, 0.5, -0.5))
    env.set_state(states)
    env.engine.refresh()
    assert env.task.assembled(env.now).tolist() == [assembled] * 2
    assert env.task.hung(env.now).tolist() == [hung] * 2
    assert env.solved().tolist() == [assembled and hung] * 2


def test_a_scene_says_how_much_room_it_needs():
    assert room(task_scene("lift").model) == (CONTACTS, CONSTRAINTS, CONVEX)
    assert room(task_scene("nut_assembly_round").model) == (96, 400, 24)
    assert room(task_scene("tool_hang").model) == (224, 700, 64)


def test_a_nut_is_held_so_that_the_wrist_can_turn_it():
    """Angles count from the middle of the Panda's wrist, 45 degrees; its ends are 2.9 rad away."""
    middle = wrist_middle(task_scene("nut_assembly_round").model, robot_facts("panda"))
    assert middle == pytest.approx(math.pi / 4, abs=0.01)
    middle = math.pi / 4
    yaw = torch.linspace(-math.pi, math.pi, 721, dtype=torch.float64) - middle
    way = _grasp_turn(yaw, math.pi - middle)
    end = torch.remainder(way + (math.pi - middle) - yaw + math.pi, 2 * math.pi) - math.pi
    assert way.abs().max() < 2.4 and end.abs().max() < 2.4
    # Already where it belongs: the gripper as at the start, 45 degrees from the middle.
    torch.testing.assert_close(way[-1:], torch.tensor([-math.pi / 4], dtype=torch.float64))


def test_rotations_of_rod_and_wrench():
    up, quarter = torch.tensor([[0.0, 0, 1]]), torch.tensor([math.pi / 2])
    rod = torch.eye(3)[None]
    across, ahead = _slanted(rod)[0, :, 0], _slanted(rod)[0, :, 2]
    torch.testing.assert_close(across, torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(ahead, torch.tensor([0.0, 0.5**0.5, -(0.5**0.5)]))
    level, sunk = (_sloped(rod, angle)[0] for angle in (0.0, math.pi / 2))
    torch.testing.assert_close(level, torch.diag(torch.tensor([-1.0, -1, 1])))  # away from the bar's end
    torch.testing.assert_close(sunk[:, 0], torch.tensor([0.0, 0, -1]), atol=1e-6, rtol=0)
    assert torch.det(_slanted(rod)) > 0.99 and torch.det(sunk) > 0.99
    turned = _about(up, quarter)
    torch.testing.assert_close(turn_between(rod, turned), up)
    torch.testing.assert_close(apply(turned, torch.tensor([[1.0, 0, 0]])), torch.tensor([[0.0, 1, 0]]))
    short = limited(torch.tensor([[3.0, 0, 4], [0.0, 0.1, 0], [0.0, 0, 0]]), torch.ones(3))
    torch.testing.assert_close(short, torch.tensor([[0.6, 0, 0.8], [0.0, 0.1, 0], [0.0, 0, 0]]))


def test_rotations_of_the_handle():
    up, quarter = torch.tensor([[0.0, 0, 1]]), torch.tensor([math.pi / 2])
    turned = _about(up, quarter) @ torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1, 0]]))
    handle = torch.eye(3)[None]
    # Points along the handle's y with its second column along x: nothing to do. Then off by 0.1 rad about z.
    grip = torch.tensor([[[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]])
    torch.testing.assert_close(_towards(grip, handle), torch.zeros(1, 3))
    error = _towards(_about(up, torch.tensor([-0.1])) @ grip, handle)
    torch.testing.assert_close(error, torch.tensor([[0.0, 0, math.sin(0.1)]]))
