"""Observations of the state: what a camera would have to show, as numbers."""

import pytest
import torch

from caliper.envs.observation.lowdim import STANDARD, robot_dim
from caliper.envs.observation.proprio import GRIP_CENTRE, GRIP_SCALE, POSE, bodies_dim
from caliper.envs.robot.robots import robot_facts
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import TASKS
from tests.envs.conftest import random_actions

OWN = robot_dim([STANDARD], robot_facts("panda"))
SIMS = ["batch", pytest.param("warp", marks=pytest.mark.slow)]


def privileged(task, sim="batch", n=2):
    return SimEnv(task, n, sim=sim, cameras=(), controller="osc_position", control_freq=10, privileged=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sim", SIMS)
def test_the_objects_pose_stands_behind_the_robots_own_state(task, sim):
    env = privileged(task, sim)
    env.step(random_actions(env, 1)[0])
    seen = env.observe().proprio  # (n, p)
    assert seen.shape == (2, env.spec.proprio) == (2, OWN + bodies_dim(env.task, True))
    pos, of_grip, columns = seen[:, OWN : OWN + POSE].split([3, 3, 6], 1)
    metres = pos.double() * GRIP_SCALE + torch.tensor(GRIP_CENTRE)
    torch.testing.assert_close(metres, env.object_pos.double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        of_grip.double() * GRIP_SCALE, (env.object_pos - env.grip_pos).double(), atol=1e-6, rtol=0
    )
    first, second = columns.split(3, 1)
    torch.testing.assert_close(first.double(), env.object_mat[:, :, 0].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(second.double(), env.object_mat[:, :, 1].double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_the_robots_own_state_is_what_a_policy_with_cameras_gets(task):
    env, plain = privileged(task), SimEnv(task, 2, cameras=(), controller="osc_position", control_freq=10)
    action = random_actions(env, 1)[0]
    a, b = env.step(action).obs.proprio, plain.step(action).obs.proprio
    assert torch.equal(a[:, :OWN], b) and b.shape[1] == OWN


def test_a_stored_state_gives_the_observation_back():
    env = privileged("pick_place_tray")
    for action in random_actions(env, 4):
        seen = env.step(action).obs.proprio
    state = env.get_state()
    other = privileged("pick_place_tray")
    other.set_state(state)
    torch.testing.assert_close(other.observe().proprio, seen, atol=1e-6, rtol=0)
