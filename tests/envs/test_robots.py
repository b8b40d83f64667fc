"""Every robot under every controller, on both engines, against robosuite's own environments."""

import json

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from caliper.envs.robot.control import CONTROLLERS, JOINTS, action_dim, action_names
from caliper.envs.robot.joint_kernels import ANGLE_SCALE, DERIVATIVE, INTEGRAL, KP, KV, SPEED_SCALE, WINDOW
from caliper.envs.robot.robots import robot_facts
from caliper.envs.scene.scenes import ROBOTS, mounted
from caliper.envs.sim import SimEnv, task_scene
from caliper.envs.tasks import TASKS, make_task
from caliper.envs.tasks.stack import pads
from caliper.errors import CaliperError
from tests.envs.conftest import make_envs, start_like
from tests.oracle import arm_controller, joint_state, patched_robosuite

TORQUE, JOINT = 0.05, 1e-4  # N m, rad
slow = pytest.mark.slow


def absolute(action, theirs, turns):
    """The action, small, as a pose about where the gripper is: in our units, and in robosuite's."""
    arm = arm_controller(theirs)
    frame = np.array(arm.origin_ori)
    ours, raw = action.copy(), action.copy()
    raw[:3] = frame.T @ (arm.ref_pos - arm.origin_pos) + 0.05 * action[:3]
    ours[:3] = raw[:3]
    if turns:
        turned = Rotation.from_rotvec(0.3 * action[3:6]) * Rotation.from_matrix(frame.T @ arm.ref_ori_mat)
        raw[3:6] = turned.as_rotvec()
        ours[3:6] = raw[3:6] / np.pi
    return ours, raw


def follow(robot, controller, sim, oracle):
    """Twenty random control steps in both: the worst errors of torques, and of the motors' speeds on the way.

    Then those of the arm's and of all positions at the end, and how far it moved.
    """
    n = 1 if sim == "batch" else 2
    env = make_envs("lift", n, sim=sim, controller=controller, robot=robot, cameras=(), horizon=1 << 40)
    theirs = oracle("lift", controller, robot)
    start_like(env, theirs)
    index, before = env.engine.controller.index, env.engine.qpos[0].clone()
    motors = [theirs.sim.model.actuator_name2id(name) for name in robot_facts(robot).motors]
    rng, torques, speeds = np.random.default_rng(3), [], []
    for _ in range(20):
        ours = raw = rng.uniform(-1, 1, env.action_dim)
        if controller.endswith("absolute"):
            ours, raw = absolute(raw, theirs, "pose" in controller)
        env.step(torch.as_tensor(ours)[None].expand(n, -1))
        theirs.step(raw)
        wanted = theirs.sim.data.ctrl[motors]
        torques.append(np.abs(env.engine.ctrl[0, index.motors].numpy() - wanted).max())
        _, qvel = joint_state(theirs, env.engine.model)
        speeds.append(np.abs(env.engine.qvel[0].numpy() - qvel)[index.dof].max())
    qpos, _ = joint_state(theirs, env.engine.model)
    error = np.abs(env.engine.qpos[0].numpy() - qpos)
    moved = float((env.engine.qpos[0] - before)[index.qpos].abs().max())
    return max(torques), max(speeds), error[index.qpos].max(), error.max(), moved


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize(
    "controller", ["osc_pose", *(pytest.param(c, marks=slow) for c in CONTROLLERS if c != "osc_pose")]
)
def test_on_batch_a_robot_moves_as_robosuites(robot, controller, oracle):
    torque, _, joints, everything, moved = follow(robot, controller, "batch", oracle)
    assert torque < TORQUE and joints < JOINT and everything < JOINT
    assert moved > 0.02


SPEED = 5e-4  # rad/s between float32 and float64, in the steps in which something hits something


@slow
@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("controller", ["osc_pose", "osc_position", *JOINTS])
def test_on_warp_a_robot_moves_as_robosuites(robot, controller, oracle):
    torque, speed, joints, _, moved = follow(robot, controller, "warp", oracle)
    assert moved > 0.02
    model, motors = task_scene("lift", robot).model, robot_facts(robot).motors
    # This law makes torques of speeds: what float32 adds to a speed, it multiplies by up to a thousand.
    gain = max(KV * np.ptp(model.actuator(name).ctrlrange) for name in motors)
    assert joints < JOINT and speed < SPEED
    assert torque < TORQUE + gain * speed * (controller == "joint_velocity")


@pytest.mark.parametrize("robot", ["panda", *(pytest.param(r, marks=slow) for r in ROBOTS if r != "panda")])
@pytest.mark.parametrize("controller", [pytest.param("osc_pose", marks=slow), *JOINTS])
def test_on_warp_a_state_gets_the_torques_of_batch(robot, controller):
    """The controllers alone, whatever the physics makes of the contacts."""
    kwargs = {"controller": controller, "robot": robot, "cameras": ()}
    exact, fast = make_envs("lift", 2, **kwargs), make_envs("lift", 2, sim="warp", **kwargs)
    generator = torch.Generator().manual_seed(5)
    speed = 0.5 * torch.randn(exact.engine.qvel.shape, generator=generator).double()
    action = 2 * torch.rand(2, exact.action_dim, generator=generator) - 1
    for env in (exact, fast):
        env.engine.qpos.copy_(exact.engine.qpos)
        env.engine.qvel.copy_(speed)
        env.engine.refresh()
        env._action.copy_(action)
        env.engine.controller.set_goal()
        for _ in range(2 * WINDOW):  # what a controller remembers fills up
            env.engine.controller.apply()
    torch.testing.assert_close(fast.engine.ctrl.double(), exact.engine.ctrl, atol=TORQUE, rtol=0)
    assert exact.engine.ctrl[:, exact.engine.controller.index.motors].abs().max() > 1


def settle(env, qvel, action):
    """Puts the first joint of a single env into a speed and tells the controller an action."""
    env.reset(seeds=torch.tensor([0]))
    env.engine.qvel.zero_()
    env.engine.qvel[:, env.engine.controller.index.dof[0]] = qvel
    env.engine.refresh()
    env._action.zero_()
    env._action[:, 0] = action
    env.engine.controller.set_goal()
    env.engine.controller.apply()


def test_joint_velocity_by_hand():
    """Error 0.5 * 0.4 - 0.1 = 0.1 rad/s; the Panda's first motor spans 160 N m."""
    env = make_envs("lift", 1, controller="joint_velocity", cameras=())
    control, bias = env.engine.controller, env.engine._tensors["qfrc_bias"]
    motor, dof = control.index.motors[0], control.index.dof[0]
    settle(env, 0.1, 0.4)
    gain, before = 3.0 * 160, bias[0, dof]
    first = float(env.engine.ctrl[0, motor] - before)
    assert first == pytest.approx(gain * (0.1 + 0.005 * 0.1 + 0.001 * 0.1), rel=1e-9)
    control.apply()  # the sum grows, and the mean change halves
    second = float(env.engine.ctrl[0, motor] - before)
    assert second == pytest.approx(gain * (0.1 + 0.005 * 0.2 + 0.001 * 0.05), rel=1e-9)
    settle(env, 0.1, 1.0)  # 3 * 160 * 0.4 is beyond the motor: the sum stands still from then on
    for _ in range(8):
        control.apply()
    assert env.engine.ctrl[0, motor] == 80
    torch.testing.assert_close(control.memory["summed"][0, 0], torch.tensor(0.4).double())
    assert control.memory["status"][0].tolist() == [WINDOW, 1]
    env.reset(seeds=torch.tensor([0]))
    assert not any(bool(live.any()) for live in control.memory.values())


def test_joint_position_by_hand():
    """kp 50 on the offset of 0.05 * 0.4 rad, and 2 sqrt(50) on the speed, through the inertia."""
    env = make_envs("lift", 1, controller="joint_position", cameras=())
    settle(env, 0.1, 0.4)
    index, tensors = env.engine.controller.index, env.engine._tensors
    inertia = tensors["M"][0][torch.as_tensor(index.inertia, dtype=torch.long)]
    acceleration = torch.zeros(7).double()
    acceleration[0] = 50 * 0.02 - 2 * 50**0.5 * 0.1
    wanted = inertia @ acceleration + tensors["qfrc_bias"][0, index.dof]
    torch.testing.assert_close(env.engine.ctrl[0, index.motors], wanted)


def test_constants_are_those_of_robosuites_files():
    robosuite = patched_robosuite()
    position, velocity = (
        robosuite.load_part_controller_config(default_controller=name)
        for name in ("JOINT_POSITION", "JOINT_VELOCITY")
    )
    assert (position["output_max"], position["kp"], position["damping_ratio"]) == (ANGLE_SCALE, KP, 1)
    assert (velocity["output_max"], velocity["kp"]) == (SPEED_SCALE, KV)
    assert max(velocity["velocity_limits"]) >= SPEED_SCALE  # so it never binds
    from robosuite.controllers.parts.generic.joint_vel import JointVelocityController as Theirs

    source = json.dumps(Theirs.__init__.__code__.co_consts)
    assert str(INTEGRAL) in source and str(DERIVATIVE) in source


@pytest.mark.parametrize("robot", ROBOTS)
def test_sizes_follow_the_robot(robot):
    facts, env = robot_facts(robot), make_envs("lift", 2, robot=robot, cameras=())
    assert len(facts.joints) == len(facts.motors) == len(facts.posture) == (6 if robot == "ur5e" else 7)
    assert env.spec.proprio == env.observe().proprio.shape[1] == 9 + len(facts.fingers)
    assert env.observe().proprio.abs().max() < 3
    assert [action_dim(c, robot) for c in CONTROLLERS] == [7, 4, 7, 4, *[len(facts.joints) + 1] * 2]
    assert action_names("joint_position", robot) == (*facts.joints, "gripper")
    arm = env.engine.controller.index.qpos
    assert (env.engine.qpos[:, arm] - torch.tensor(facts.posture).double()).abs().max() < 0.1
    assert env.scene_hash == task_scene("lift", robot).hash


def test_only_the_iiwas_frame_turns_with_its_arm():
    assert {robot: robot_facts(robot).carried for robot in ROBOTS} == dict.fromkeys(ROBOTS, 0) | {"iiwa": 1}


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_gripper_closes_and_opens(robot):
    """The pads come nearer under 1 and part under -1, whatever the gripper's joints are, and then rest."""
    env = make_envs("lift", 1, robot=robot, cameras=())
    model, closed = env.engine.model, []
    pads = [model.geom(f"gripper0_right_{name}").id for name in _pads(robot)]
    for sign in (1.0, -1.0):
        env.reset(seeds=torch.tensor([0]))
        action = torch.zeros(1, env.action_dim)
        action[0, -1] = sign
        for _ in range(40):
            env.step(action)
        assert env.engine.qvel[:, env._robot._finger_speeds].abs().max() < 0.5
        xpos = env.engine.pose_arrays()["geom_xpos"][0, pads]
        closed.append(float((xpos[0] - xpos[1]).norm()))
    assert closed[0] < 0.03 and closed[0] < closed[1] - 0.04


def _pads(robot):
    from caliper.envs.scene.scenes import mounted

    geoms = mounted(robot)[1]._important_geoms
    return geoms["left_fingerpad"][0], geoms["right_fingerpad"][0]


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_scene_has_the_robot_that_is_asked_for(task):
    spec = make_task(task, robot="sawyer").compose()
    assert spec.joint(robot_facts("sawyer").joints[0]) is not None


def test_a_stranger_is_refused():
    with pytest.raises(CaliperError, match="robot 'baxter' is unknown; choose one of: panda, sawyer"):
        SimEnv("lift", 1, robot="baxter")


@pytest.mark.parametrize("robot", ROBOTS)
def test_fingers_that_hold_are_found_on_every_gripper(robot):
    """By the pads that robosuite's own test of a grasp asks for."""
    model, gripper = mounted(robot)
    spec = mujoco.MjSpec.from_string(model.get_xml())
    left, right = pads(robot)
    assert left != right
    for body, side in ((left, "left"), (right, "right")):
        assert set(gripper.important_geoms[f"{side}_fingerpad"]) <= {g.name for g in spec.body(body).geoms}
    assert len(make_task("stack", robot=robot).scene().sensors) >= 3
