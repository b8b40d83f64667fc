import numpy as np
import pytest
import torch

from caliper.envs.scene.reach import unreachable
from caliper.envs.scene.scenes import ROBOTS
from caliper.envs.scripts.experts import Expert
from caliper.envs.sim import SimEnv, task_scene


@pytest.fixture(scope="module")
def model():
    return task_scene("lift").model


@pytest.fixture(scope="module")
def states():
    """States of an episode of random actions, (n, s)."""
    env = SimEnv("lift", 2, cameras=(), seed=3)
    env.reset()
    rows = [env.get_state()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        env.step(2 * torch.rand(2, env.action_dim, generator=generator) - 1)
        rows.append(env.get_state())
    return torch.cat(rows).numpy()


def at(model, joint):
    return 1 + model.joint(joint).qposadr[0]


def test_what_the_simulation_reaches_is_reachable(model, states):
    assert unreachable(model, states) is None
    assert unreachable(model, states.astype(np.float32).astype(float)) is None  # as other tools store them


@pytest.mark.parametrize("robot", ROBOTS)
def test_what_a_script_does_is_reachable_with_every_robot(robot):
    """The gripper opens as far as it goes, and closes on the cube."""
    env = SimEnv("lift", 2, cameras=(), robot=robot, threads=1)
    zero, rows = torch.zeros(2, dtype=torch.float64), [env.get_state()]
    expert = Expert(env, zero, zero)
    for _ in range(60):
        env.step(expert.act())
        rows.append(env.get_state())
    assert unreachable(env.engine.model, torch.cat(rows).numpy()) is None


def changed(states, row, column, value):
    states = states.copy()
    states[row, column] = value
    return states


def test_joints_beyond_their_limits_are_found_with_their_row(model, states):
    low, high = model.joint("robot0_joint2").range
    column = at(model, "robot0_joint2")
    assert unreachable(model, changed(states, 7, column, high + 0.01)) is None  # limits are springs
    row, said = unreachable(model, changed(states, 7, column, high + 1))
    assert row == 7 and said.startswith("robot0_joint2 is at ") and f"{low:.4g} and {high:.4g}" in said
    assert unreachable(model, changed(states, 0, slice(1, None), 1e30))[0] == 0


def test_rotations_must_have_length_one(model, states):
    free = next(model.joint(j) for j in range(model.njnt) if model.jnt_type[j] == 0)
    first = 1 + free.qposadr[0] + 3
    assert unreachable(model, changed(states, 5, slice(first, first + 4), 0)) == (
        5, f"the quaternion of {free.name} has the length 0"
    )  # fmt: skip
    assert unreachable(model, changed(states, 5, slice(first, first + 4), 1))[0] == 5


def test_far_and_fast_bodies_are_found(model, states):
    free = next(model.joint(j) for j in range(model.njnt) if model.jnt_type[j] == 0)
    assert "m away" in unreachable(model, changed(states, 2, 1 + free.qposadr[0], 500))[1]
    row, said = unreachable(model, changed(changed(states, 9, -1, 1e5), 4, -1, -1e5))
    assert row == 4 and said == "a speed is 1e+05 m/s or rad/s"
