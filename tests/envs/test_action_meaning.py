"""The words about an action are held to what the controller does with it."""

import json

import pytest
import torch

from caliper.envs.robot.action_meaning import AXES, action_json, action_meaning, action_table
from caliper.envs.sim import SimEnv
from caliper.errors import CaliperError


@pytest.fixture(scope="module", params=["osc_pose", "osc_position"])
def env(request):
    return SimEnv(
        "lift", 1, cameras=(), controller=request.param, control_freq=20, horizon=1 << 40, threads=1
    )


def goal(env, action):
    """The controller's goal right after an action, and the pose before it."""
    env.reset(seeds=torch.tensor([3]))
    pos, mat = env.grip_pos.clone(), env.grip_mat.clone()
    env.step(action)
    control = env.engine.controller
    base = env.engine.site_xpos[:, control.index.base_site]
    return (
        torch.as_tensor(control.goal_pos.numpy()) + base - pos,
        torch.as_tensor(control.goal_mat.numpy()) @ mat.transpose(1, 2),
    )


def test_there_is_an_entry_for_each_number(env):
    meaning = action_meaning(env.controller, env.control_freq)
    assert len(meaning["entries"]) == env.action_dim
    assert [entry["name"] for entry in meaning["entries"]][:3] == list(AXES)
    assert meaning["entries"][-1]["name"] == "gripper"
    assert json.loads(action_json(env.controller, env.control_freq)) == meaning
    assert action_table(env.controller, 20).count("\n") == env.action_dim + 3


def test_an_entry_of_one_is_what_it_says(env):
    for i, entry in enumerate(action_meaning(env.controller, env.control_freq)["entries"][:-1]):
        size, unit = entry["one"].split()
        for sign in (1.0, -1.0, 3.0):  # what lies outside is clipped
            action = torch.zeros(1, env.action_dim)
            action[0, i] = sign
            moved, turned = goal(env, action)
            expected = torch.zeros(3, dtype=torch.float64)
            expected[i % 3] = float(size) * max(-1.0, min(1.0, sign))
            if unit == "m":
                assert torch.allclose(moved[0], expected, atol=1e-9)
                assert torch.allclose(turned[0], torch.eye(3, dtype=torch.float64), atol=1e-9)
            else:
                skew = torch.zeros(3, 3, dtype=torch.float64)
                x, y, z = expected
                skew[0, 1], skew[0, 2], skew[1, 2] = -z, y, -x
                assert torch.allclose(turned[0], torch.linalg.matrix_exp(skew - skew.T), atol=1e-9)


def test_the_gripper_closes_above_zero_and_opens_below(env):
    def width(sign, steps):
        env.reset(seeds=torch.tensor([3]))
        action = torch.zeros(1, env.action_dim)
        action[0, -1] = sign
        for _ in range(steps):
            env.step(action)
        fingers = env.engine.qpos[0, env.engine.controller.index.finger_qpos]
        return float(fingers[0] - fingers[1]), env.engine.controller.memory["closing"][0].tolist()

    closed, command = width(1.0, 10)
    assert command == [-1.0, 1.0]  # from half open to an end takes 5 of the 10 steps of the whole way
    assert width(0.3, 5)[1] == command  # only the sign counts
    opened, other = width(-0.01, 5)
    assert other == [1.0, -1.0]
    assert closed < opened - 0.03
    assert width(0.0, 5)[1] == [0.0, 0.0]


def test_an_unknown_controller_is_refused():
    with pytest.raises(CaliperError, match="controller 'joint' is unknown"):
        action_meaning("joint", 20)
