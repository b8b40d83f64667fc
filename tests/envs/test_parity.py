"""Both engines against robosuite's own environments, and against each other."""

import numpy as np
import pytest
import torch
import warp as wp

from caliper.envs.robots import POSTURE_NOISE, robot_facts
from caliper.envs.seeding import normal, uniform
from caliper.envs.tasks import make_task
from tests.envs.conftest import clean_expert, make_envs, random_actions, start_like
from tests.oracle import arm_controller, joint_state

TORQUE, JOINT = 0.05, 1e-4  # N m, rad
# The can's scene on `warp` follows from the can's on `batch` and `batch` against `warp`.
CASES = [
    ("lift", "osc_pose", "batch"),
    ("lift", "osc_pose", "warp"),
    ("lift", "osc_position", "batch"),
    ("lift", "osc_position", "warp"),
    ("pick_place_can", "osc_pose", "batch"),
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


def test_success_of_pick_place_can_is_robosuites(oracle):
    """On states in, above and beside the can's quarter, with the gripper near and far."""
    env, theirs = make_envs("pick_place_can", 1, cameras=()), oracle("pick_place_can")
    data, model = theirs.sim.data._data, theirs.sim.model._model
    can = model.joint("Can_joint0").qposadr[0]
    rng, flags = np.random.default_rng(0), []
    grip = env.grip_pos[0].numpy()
    for k in range(400):
        pos = rng.uniform((0.05, 0.25, 0.78), (0.35, 0.55, 0.95)) if k % 2 else grip + rng.normal(0, 0.05, 3)
        data.qpos[can : can + 3] = pos
        theirs.sim.forward()
        theirs.objects_in_bins[:] = 0
        want = bool(theirs._check_success())
        at = torch.as_tensor(data.body("Can_main").xpos.copy())[None]
        by = torch.as_tensor(data.site("gripper0_right_grip_site").xpos.copy())[None]
        assert bool(env.task.success(at, by)[0]) == want
        flags.append(want)
    assert 20 < sum(flags) < 380


@pytest.mark.parametrize("task", ["lift", "pick_place_can"])
def test_objects_start_where_robosuite_puts_them(task, oracle):
    theirs = oracle(task)
    name = {"lift": "cube", "pick_place_can": "Can"}[task]
    draws = [theirs.placement_initializer.sample()[name] for _ in range(400)]
    pos = np.array([np.asarray(d[0]) for d in draws])
    quat = np.array([np.asarray(d[1]) for d in draws])
    ours = make_task(task).place(uniform(torch.arange(4000), 4, stream=2)).numpy()
    width = np.ptp(pos[:, :2], axis=0)
    for end in (np.min, np.max):
        np.testing.assert_allclose(end(ours[:, :2], 0), end(pos[:, :2], 0), atol=float(0.03 * width.max()))
    np.testing.assert_allclose(ours[:, 2], pos[:, 2].mean(), atol=1e-9)
    np.testing.assert_allclose(ours[:, 4:6], 0)
    np.testing.assert_allclose(quat[:, 1:3], 0, atol=1e-12)
    yaw = [2 * np.arctan2(q[:, 3], q[:, 0]) % (2 * np.pi) for q in (ours[:, 3:], quat)]
    for share in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(*(np.quantile(y, share) for y in yaw), atol=0.5)


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


@pytest.mark.parametrize("task", ["lift", pytest.param("pick_place_can", marks=pytest.mark.slow)])
@on_every_device
def test_warp_follows_batch(device, task):
    """Twenty random control steps, and what is seen after them."""
    exact, fast = make_envs(task, 2), make_envs(task, 2, sim="warp", device=device)
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
