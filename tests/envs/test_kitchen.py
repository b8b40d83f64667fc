"""Franka Kitchen's operator: the arm's inverse kinematics, what an episode does, how often it succeeds."""

import math

import gymnasium
import mujoco
import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")

from caliper.config.compose import compose
from caliper.envs.gymnasium_env import GymnasiumEnv, flatten
from caliper.envs.scripts.kitchen import SCRIPTS, draw_tasks
from caliper.envs.scripts.kitchen_arm import Arm, damped, facing, turn_to
from caliper.rollout.collect_kitchen import play_one

FOUR = ["microwave", "kettle", "light switch", "slide cabinet"]
NOISE = 0.2


def make(tasks=FOUR, **kwargs):
    task = compose(["task=kitchen"]).task
    given = task.kwargs | {"tasks_to_complete": tasks} | kwargs
    return GymnasiumEnv(task.env_id, 1, given, task.dense, task.horizon)


def test_which_way_a_gripper_points():
    """Columns: up, right, ahead; x is to the right in the kitchen, y ahead, z up."""
    up, right, ahead = np.eye(3)[[2, 0, 1]]
    np.testing.assert_allclose(facing(0, 0).T, [up, right, ahead], atol=1e-12)
    np.testing.assert_allclose(facing(math.pi / 2, 0).T, [up, ahead, -right], atol=1e-12)  # to the left
    np.testing.assert_allclose(facing(0, math.pi / 2).T, [ahead, right, -up], atol=1e-12)  # down
    np.testing.assert_allclose(turn_to(facing(0.2, 0), facing(0.5, 0)), [0, 0, 0.3], atol=1e-12)


def test_a_step_of_the_inverse_leans_only_where_the_gripper_does_not_notice():
    jacobian = np.eye(6, 7)  # the seventh joint moves nothing
    way, lean = np.array([0.1, 0, 0, 0, 0, -0.2]), np.array([0, 1.0, 0, 0, 0, 0, 0.5])
    expected = [0.1 / 1.001, 1 - 1 / 1.001, 0, 0, 0, -0.2 / 1.001, 0.5]
    np.testing.assert_allclose(damped(jacobian, way, lean), expected, atol=1e-12)


def test_the_arm_reaches_what_it_aims_at_and_carries_its_weight():
    env = make().envs[0]
    arm = Arm(env)
    place, turn = arm.site("slide_site") - [0.08, 0.12, 0], facing(0, 0.4)
    joints = arm.posture(arm.rest, place, turn, 60)
    there = mujoco.MjData(env.model)
    there.qpos[:7] = joints
    mujoco.mj_forward(env.model, there)
    np.testing.assert_allclose(there.site("end_effector").xpos, place, atol=2e-3)
    assert np.linalg.norm(turn_to(there.site("end_effector").xmat.reshape(3, 3), turn)) < 0.02
    # The first joint's spring is 870, its damper 100: in 0.08 s it makes 1 - exp(-0.696) of what it is told,
    # and an action of 1 tells it 0.16. The second one holds up the arm besides: here 16.357 of 870 * 0.16.
    still, move = arm.data.qpos[:7].copy(), np.array([0.04, 0, 0, 0, 0, 0, 0])
    action = arm.towards(still + move, -1)
    np.testing.assert_allclose(action[:2], [0.04 / (1 - math.exp(-0.696)) / 0.16, 16.357 / 139.2], atol=1e-4)
    assert action[7:].tolist() == [-1, -1]
    assert arm.towards(still + 100 * move, 1)[0] == pytest.approx(0.95)  # far away: as fast as it may


def test_what_an_episode_does():
    rng = np.random.default_rng(0)
    drawn = {
        kind: [draw_tasks(kind, FOUR, rng) for _ in range(400)] for kind in ("complete", "partial", "mixed")
    }
    assert all(tasks == FOUR for tasks in drawn["complete"])
    assert 70 < sum(tasks == FOUR for tasks in drawn["partial"]) < 130  # a quarter, and some by chance
    for tasks in drawn["mixed"]:
        assert len(set(tasks)) == 4 and set(tasks) < set(SCRIPTS) and set(tasks) != set(FOUR)
    assert {name for tasks in drawn["mixed"] for name in tasks} == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("task", SCRIPTS)
def test_the_operator_does_each_task(task):
    """At least 80 % of 50 seeds, with noise, and not only for a moment: it is done where the script ends.

    Measured: 50 of 50 each, but the kettle 46.
    """
    env = make([task], terminate_on_tasks_completed=False)
    done = sum(play_one(env, "complete", [task], seed, NOISE).rewards[-1] for seed in range(50))
    assert done >= 40


@pytest.mark.slow
def test_all_four_in_a_row_and_the_same_in_gymnasiums_own_hands():
    env = make()
    recording = play_one(env, "complete", FOUR, 3, NOISE)
    again = play_one(env, "complete", FOUR, 3, NOISE)
    assert np.array_equal(recording.obs, again.obs) and np.array_equal(recording.actions, again.actions)
    assert recording.terminals[-1] and recording.rewards[-1] == 4 and len(recording.actions) < 280
    kwargs = compose(["task=kitchen"]).task.kwargs
    own = gymnasium.make("FrankaKitchen-v1", disable_env_checker=True, **kwargs)
    seen, rewards = [flatten(own.reset(seed=3)[0])], []
    for action in recording.actions:
        obs, reward, terminated, _, _ = own.step(action.astype(np.float64))
        seen.append(flatten(obs))
        rewards.append(reward)
    assert np.array_equal(np.stack(seen), recording.obs) and rewards == recording.rewards.tolist()
    assert terminated
