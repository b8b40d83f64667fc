"""Both engines against robosuite's own environments, and against each other."""

from typing import Any

import numpy as np
import pytest
import torch
import warp as wp
from scipy.stats import ks_2samp

from caliper.envs.robot.robots import POSTURE_NOISE, robot_facts
from caliper.envs.seeding import normal, uniform
from caliper.envs.tasks import make_task
from tests.envs.conftest import (
    clean_expert,
    make_envs,
    random_actions,
    spoiled_expert,
    start_like,
    usual,
)
from tests.oracle import ENVIRONMENTS, arm_controller, joint_state, put_state

TORQUE, JOINT = 0.05, 1e-4  # N m, rad
# The can's scene on `warp` follows from the can's on `batch` and `batch` against `warp`.
CASES: list[Any] = [
    ("lift", "osc_pose", "batch"),
    ("lift", "osc_pose", "warp"),
    ("lift", "osc_position", "batch"),
    ("lift", "osc_position", "warp"),
    ("pick_place_can", "osc_pose", "batch"),
    *(
        pytest.param(task, "osc_pose", "batch", marks=pytest.mark.slow)
        for task in ENVIRONMENTS
        if task not in ("lift", "pick_place_can")
    ),
]


def record(oracle, model, steps, every):
    """Runs robosuite under random actions and keeps what its controller saw and answered."""
    arm, rng, rows = arm_controller(oracle), np.random.default_rng(1), []
    answer = arm.run_controller

    def listening():
        torques = answer()
        qpos, qvel = joint_state(oracle, model)
        rows.append((qpos, qvel, arm.goal_pos.copy(), arm.goal_ori.copy(), arm.initial_joint, torques.copy()))
        return torques

    arm.run_controller = listening
    for _ in range(steps):
        oracle.step(rng.uniform(-1, 1, oracle.action_dim))
    arm.run_controller = answer
    return [torch.as_tensor(np.array(column)) for column in zip(*rows[::every], strict=True)]


@pytest.mark.parametrize(("task", "controller", "sim"), CASES)
def test_torques_equal_robosuites(task, controller, sim, oracle):
    n = 20 if sim == "batch" else 2
    env = make_envs(task, n, sim=sim, controller=controller, cameras=())
    model, control = env.engine.model, env.engine.controller
    theirs = oracle(task, controller)
    rows = record(theirs, model, 16, every=10 if sim == "batch" else 80)  # 40 or 5 substeps
    clipped, worst = 0, 0.0
    limits = torch.as_tensor(model.actuator_ctrlrange[control.index.motors])
    for start in range(0, len(rows[0]) - n + 1, n):
        qpos, qvel, pos, mat, posture, torques = (r[start : start + n] for r in rows)
        env.engine.qpos.copy_(qpos)
        env.engine.qvel.copy_(qvel)
        env.engine.refresh()
        wp.to_torch(control.goal_pos).copy_(pos)
        wp.to_torch(control.goal_mat).copy_(mat)
        wp.to_torch(control.posture).copy_(posture)
        control.apply()
        want = torch.clamp(torques, limits[:, 0], limits[:, 1])
        clipped += int((want != torques).sum())
        worst = max(worst, float((env.engine.ctrl[:, control.index.motors] - want).abs().max()))
    assert worst < TORQUE
    if (sim, controller) == ("batch", "osc_pose"):
        assert clipped > 0  # the record holds torques beyond the motors, so clipping was compared too


@pytest.mark.parametrize(("task", "controller", "sim"), CASES)
def test_twenty_random_control_steps_end_in_robosuites_joints(task, controller, sim, oracle):
    n = 1 if sim == "batch" else 2
    env = make_envs(task, n, sim=sim, controller=controller, cameras=())
    theirs = oracle(task, controller)
    start_like(env, theirs)
    before = env.engine.qpos[0].clone()
    for action in random_actions(env, 20, seed=3)[:, :1]:
        env.step(action.expand(n, -1))
        theirs.step(action[0].double().numpy())
    qpos, _ = joint_state(theirs, env.engine.model)
    arm = env.engine.controller.index.qpos
    error = (env.engine.qpos[:, arm] - torch.as_tensor(qpos[arm])).abs().max()
    assert error < JOINT
    assert (env.engine.qpos[0, arm] - before[arm]).abs().max() > 0.1  # it did move
    if sim == "batch":  # same arithmetic, so everything that moves agrees, fingers and object too
        assert np.abs(env.engine.qpos[0].numpy() - qpos).max() < JOINT


@pytest.mark.parametrize("task", ["lift", "pick_place_can"])
def test_scripted_grasp_ends_the_same(task, oracle):
    """The expert watches our env; robosuite's gets its actions, blind."""
    env, theirs = make_envs(task, 1, cameras=()), oracle(task, seed=2)
    start_like(env, theirs)
    expert = clean_expert(env)
    ours_solved = False
    for _ in range(env.horizon):
        action = expert.act()
        step = env.step(action)
        theirs.step(action[0].double().numpy())
        ours_solved = bool(step.success[0])
        assert ours_solved == bool(theirs._check_success())
        if ours_solved:
            break
    assert ours_solved
    qpos, _ = joint_state(theirs, env.engine.model)
    assert np.abs(env.final_state[0, 1 : 1 + len(qpos)].numpy() - qpos).max() < 2e-3


def states_and_success(env, expert, episodes_of):
    """What a task says of every state of its first episodes: states (k, s) and flags (k,)."""
    running, states, flags = torch.ones(env.num_envs, dtype=torch.bool), [], []
    for t in range(env.horizon):
        step = env.step(expert.act() if expert else episodes_of[t])
        states.append(env.final_state[running].clone())
        flags.append(step.success[running])
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
    return torch.cat(states).numpy(), torch.cat(flags).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("task", ENVIRONMENTS)
def test_success_is_robosuites_in_every_step(task, oracle):
    """Over episodes of the script, clean and spoiled, and of random actions."""
    env, theirs = make_envs(task, 6, cameras=(), **usual(task)), oracle(task)
    runs = [states_and_success(env, clean_expert(env), None)]
    env.reset(seeds=100 + torch.arange(6))
    runs.append(states_and_success(env, spoiled_expert(env, 0.5, 0.02), None))
    env.reset(seeds=200 + torch.arange(6))
    runs.append(states_and_success(env, None, random_actions(env, env.horizon, seed=9)))
    states, flags = (np.concatenate(part) for part in zip(*runs, strict=True))
    wanted = []
    for state in states:
        put_state(theirs, env.engine.model, state)
        wanted.append(bool(theirs._check_success()))
    np.testing.assert_array_equal(flags, wanted)
    assert flags.sum() >= 6 and not flags.all()


def test_success_of_pick_place_can_is_robosuites(oracle):
    """On states in, above and beside the can's quarter, with the gripper near and far."""
    env, theirs = make_envs("pick_place_can", 1, cameras=()), oracle("pick_place_can")
    can = 1 + env.engine.model.joint("Can_joint0").qposadr[0]
    rng, flags = np.random.default_rng(0), []
    grip, state = env.grip_pos[0].numpy().copy(), env.get_state()
    for k in range(400):
        pos = rng.uniform((0.05, 0.25, 0.78), (0.35, 0.55, 0.95)) if k % 2 else grip + rng.normal(0, 0.05, 3)
        state[0, can : can + 3] = torch.as_tensor(pos)
        env.set_state(state)
        put_state(theirs, env.engine.model, state[0].numpy())
        want = bool(theirs._check_success())
        assert bool(env.solved()[0]) == want
        flags.append(want)
    assert 20 < sum(flags) < 380


@pytest.mark.parametrize(
    "task", [t if t == "lift" else pytest.param(t, marks=pytest.mark.slow) for t in ENVIRONMENTS]
)
def test_objects_start_where_robosuite_puts_them(task, oracle):
    theirs, ours = oracle(task), make_task(task)
    poses = ours.place(uniform(torch.arange(20000), ours.draws, stream=2))
    draws = [theirs.placement_initializer.sample() for _ in range(1000)]
    for body, pose in poses.items():
        name = body.removesuffix("_main").removesuffix("_root")
        rows = np.array([np.concatenate(draw[name][:2]) for draw in draws])  # (k, 7)
        for numbers in zip(_described(pose.numpy()), _described(rows), strict=True):
            if np.ptp(numbers[1]) < 1e-9:
                np.testing.assert_allclose(numbers[0], numbers[1][0], atol=1e-9)
            else:
                assert ks_2samp(*numbers).pvalue > 1e-3


def _described(poses):
    """Position (3), the quaternion's parts about x and y (2), and the angle about z, of poses (k, 7)."""
    assert np.abs(np.linalg.norm(poses[:, 3:], axis=1) - 1).max() < 1e-6
    yaw = 2 * np.arctan2(poses[:, 6], poses[:, 3]) % (2 * np.pi)
    return [*poses[:, :3].T, *poses[:, 4:6].T, yaw]


def test_posture_starts_with_robosuites_noise(oracle):
    robot, rest = oracle("lift").robots[0], robot_facts("panda").posture
    assert robot.initialization_noise == {"magnitude": POSTURE_NOISE, "type": "gaussian"}
    np.testing.assert_allclose(robot.init_qpos, rest, atol=1e-9)
    env = make_envs("lift", 4, cameras=())
    arm = env.engine.controller.index.qpos
    noise = env.engine.qpos[:, arm] - torch.tensor(rest, dtype=torch.float64)
    torch.testing.assert_close(noise, POSTURE_NOISE * normal(env.seeds, 7, stream=1))
    assert torch.equal(env.state_dict()["posture"], env.engine.qpos[:, arm])
    for seed in range(3):  # robosuite's nullspace pulls to the noisy posture, not to the clean one
        theirs = oracle("lift", seed=seed)
        qpos, _ = joint_state(theirs, env.engine.model)
        np.testing.assert_array_equal(arm_controller(theirs).initial_joint, qpos[arm])
        assert 0 < np.abs(qpos[arm] - rest).max() < 5 * POSTURE_NOISE
        fingers = env.engine.controller.index.finger_qpos
        np.testing.assert_allclose(qpos[fingers], env.engine.qpos[0, fingers], atol=1e-9)


on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.mark.parametrize(
    ("task", "controller"),
    [
        ("lift", "osc_pose"),
        *(
            pytest.param(task, controller, marks=pytest.mark.slow)
            for task, controller in (
                ("pick_place_can", "osc_pose"),
                ("stack", "osc_pose"),
                ("door", "osc_pose"),
                ("nut_assembly_square", "osc_pose"),
                ("tool_hang", "osc_pose"),
                ("lift", "joint_position"),
                ("lift", "joint_velocity"),
            )
        ),
    ],
)
@on_every_device
def test_warp_follows_batch(device, task, controller):
    """Twenty random control steps, and what is seen after them."""
    keys = {"controller": controller}
    exact, fast = make_envs(task, 2, **keys), make_envs(task, 2, sim="warp", device=device, **keys)
    arm = exact.engine.controller.index.qpos
    for action in random_actions(exact, 20, seed=5):
        a, b = exact.step(action), fast.step(action.to(device))
        assert torch.equal(a.success, b.success.cpu())
    assert (exact.engine.qpos[:, arm] - fast.engine.qpos[:, arm].cpu()).abs().max() < JOINT
    assert (a.obs.pixels.float() - b.obs.pixels.cpu().float()).abs().mean() < 1
    assert (a.obs.proprio - b.obs.proprio.cpu()).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("task", "controller", "freq"),
    [
        ("lift", "osc_pose", 20),
        pytest.param("pick_place_tray", "osc_position", 10, marks=pytest.mark.slow),
        pytest.param("pick_place_can", "osc_pose", 20, marks=pytest.mark.slow),
    ],
)
@on_every_device
def test_scripted_grasp_ends_the_same_in_both_engines(device, task, controller, freq):
    """The expert watches the exact engine's envs; the other engine's get its actions, blind."""
    kwargs = {"controller": controller, "control_freq": freq, "cameras": ()}
    exact, fast = make_envs(task, 2, **kwargs), make_envs(task, 2, sim="warp", device=device, **kwargs)
    expert = clean_expert(exact)
    solved = torch.zeros(2, dtype=torch.bool)
    for _ in range(exact.horizon):
        action = expert.act()
        a, b = exact.step(action), fast.step(action.to(device))
        assert torch.equal(a.success, b.success.cpu())
        solved |= a.success
        if bool(solved.all()):
            return
    raise AssertionError("the expert solved nothing to compare")
