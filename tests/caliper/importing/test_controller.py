"""Each thing that changed between robosuite's controllers, by itself and against real recordings."""

import mujoco
import numpy as np
import pytest

from caliper.envs.robot.robots import robot_facts
from caliper.errors import CaliperError
from caliper.importing.controller import (
    DIALECTS,
    DOWN,
    Controller,
    Hidden,
    read_settings,
    rotation_matrix,
    rotation_vector,
    unwarned,
)
from caliper.importing.dialect import first_sight, one_step_errors
from caliper.importing.model.compiled import physics_model

V10, V14, V15 = DIALECTS
LIFT, CAN, HANDOVER = "robosuite141_lift", "robosuite152_can", "teleop13_handover"


def controller_of(recordings, name, dialect, posture=None):
    posture = posture or robot_facts("panda").posture
    demo = recordings[name].demos[0]
    settings = read_settings(recordings[name].settings["controller_configs"])
    arms = 2 if name == HANDOVER else 1
    return Controller(physics_model(demo.model), settings, dialect, 20, np.tile(posture, (arms, 1))), demo


def posed(controller, demo):
    data = mujoco.MjData(controller.model)
    controller.put(data, demo.states[3])
    return data


def test_rotations_go_there_and_back():
    vector = np.array([0.3, -0.2, 0.1])
    assert np.allclose(rotation_vector(rotation_matrix(vector)), vector, atol=1e-15)
    assert np.allclose(rotation_matrix(np.array([0, 0, np.pi / 2])), [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert np.array_equal(rotation_matrix(np.zeros(3)), np.eye(3))


def test_an_action_is_an_offset_from_the_achieved_pose(recordings):
    """Half of 5 cm along x, and 0.2 of 0.5 rad about z, in the world's frame: the base's too on a table."""
    action = np.array([0.5, 0, 0, 0, 0, 0.2, 1])
    for dialect, sign in ((V10, -1), (V14, 1), (V15, 1)):
        controller, demo = controller_of(recordings, LIFT, dialect)
        data = posed(controller, demo)
        hidden = [Hidden(np.zeros(2), np.eye(3))]
        (goal,) = controller.goals(data, action, hidden)
        site = controller.arms[0].site
        assert np.allclose(goal.pos, data.site_xpos[site] + [0.025, 0, 0], atol=1e-12)
        turned = rotation_matrix(np.array([0, 0, sign * 0.1])) @ data.site_xmat[site].reshape(3, 3)
        assert np.allclose(goal.turn, turned, atol=1e-12)
        assert goal.grip == 1


def test_below_1_5_no_rotation_keeps_the_goal(recordings):
    action, kept = np.array([0.5, 0, 0, 0, 0, 0, -1]), rotation_matrix(np.array([0.1, 0.2, 0.3]))
    for dialect in DIALECTS:
        controller, demo = controller_of(recordings, LIFT, dialect)
        data = posed(controller, demo)
        (goal,) = controller.goals(data, action, [Hidden(np.zeros(2), kept)])
        achieved = data.site_xmat[controller.arms[0].site].reshape(3, 3)
        assert np.allclose(goal.turn, kept if dialect.holds else achieved, atol=1e-12)


def test_position_control_points_down_below_1_5_and_keeps_the_pose_since(recordings):
    demo = recordings[LIFT].demos[0]
    settings = read_settings({"type": "OSC_POSITION"})
    for dialect in DIALECTS:
        controller = Controller(
            physics_model(demo.model), settings, dialect, 20, np.array([robot_facts("panda").posture])
        )
        assert controller.arms[0].dim == 4
        data = posed(controller, demo)
        (goal,) = controller.goals(data, np.array([0, 0, 1, -1.0]), [Hidden(np.zeros(2), np.eye(3))])
        site = controller.arms[0].site
        assert np.allclose(goal.pos, data.site_xpos[site] + [0, 0, 0.05], atol=1e-12)
        achieved = data.site_xmat[site].reshape(3, 3)
        assert np.allclose(goal.turn, DOWN if dialect.holds else achieved, atol=1e-12)


def test_since_1_5_offsets_are_in_the_bases_frame(recordings):
    """The two arms of the handover face each other, so that forwards is not x for both."""
    action = np.tile([1.0, 0, 0, 0, 0, 0, 0], 2)
    for dialect in (V14, V15):
        controller, demo = controller_of(recordings, HANDOVER, dialect)
        data = posed(controller, demo)
        hidden = [Hidden(np.zeros(2), np.eye(3))] * 2
        _, second = controller.goals(data, action, hidden)
        base = data.xmat[controller.arms[1].base].reshape(3, 3)
        forward = base[:, 0] if dialect.based else np.array([1.0, 0, 0])
        offset = second.pos - data.site_xpos[controller.arms[1].site]
        assert np.allclose(offset, 0.05 * forward, atol=1e-12)
        assert not np.allclose(base, np.eye(3), atol=0.1)


def test_fingers_move_by_the_physics_step_below_1_5_and_by_the_control_step_since(recordings):
    old, _ = controller_of(recordings, LIFT, V14)
    new, _ = controller_of(recordings, LIFT, V15)
    start = np.zeros(2)
    assert np.allclose(old.closed(start, 1.0, 1), [-0.01, 0.01])
    assert np.allclose(old.closed(start, 1.0, 25), [-0.25, 0.25])
    assert np.allclose(new.closed(start, 1.0, 1), [-0.2, 0.2])
    assert np.allclose(new.closed(start, -1.0, 25), [0.2, -0.2])
    assert np.allclose(old.closed(np.array([-0.9, 0.9]), 1.0, 25), [-1, 1])


def test_finger_commands_are_integrated_from_zero(recordings):
    controller, demo = controller_of(recordings, LIFT, V14)
    history = controller.history(demo.states, demo.actions)
    opening = [0.25, 0.5, 0.75, 1.0, 1.0]  # -1 opens
    assert demo.actions[:5, 6].tolist() == [-1.0] * 5
    assert history[0][0].closing.tolist() == [0, 0]
    assert np.allclose([h[0].closing[0] for h in history[1:6]], opening)


def test_1_0_has_lost_an_action_and_its_gripper_sign_is_the_next_ones(recordings):
    controller, demo = controller_of(recordings, "robosuite100_lift", V10)
    assert demo.states[0, 0] == pytest.approx(0.052)
    assert controller.lost(demo.states) == 1
    history = controller.history(demo.states, demo.actions)
    assert np.allclose(history[0][0].closing, np.array([-0.25, 0.25]) * np.sign(demo.actions[0, 6]))


def test_a_file_that_starts_days_later_is_read_at_once(recordings):
    """Two hundred lost actions close the fingers in every version; the others change nothing."""
    controller, demo = controller_of(recordings, LIFT, V14)
    hours, long = demo.states.copy(), demo.states.copy()
    hours[:, 0] += 1e6
    long[:, 0] += 10
    (a, *_), (b, *_) = (controller.history(states, demo.actions)[0] for states in (hours, long))
    assert np.array_equal(a.closing, b.closing)
    assert np.abs(a.closing).tolist() == [1, 1]


def test_a_file_cut_at_the_start_has_lost_its_first_actions(recordings):
    demo = recordings["libero_object"].demos[0]
    assert demo.states[0, 0] == pytest.approx(0.25)
    controller, _ = controller_of(recordings, LIFT, V14)
    assert controller.lost(demo.states) == 5
    assert not controller.starts_stale(demo.states)


@pytest.mark.parametrize(("name", "dialect"), [("robosuite100_lift", V10), (LIFT, V14), (CAN, V15)])
def test_the_first_step_comes_from_the_rest_posture(recordings, name, dialect):
    controller, demo = controller_of(recordings, name, dialect)
    history = controller.history(demo.states, demo.actions)
    assert controller.starts_stale(demo.states)
    (right,) = one_step_errors(controller, demo, history, [0])
    data = mujoco.MjData(controller.model)
    controller.put(data, demo.states[0])
    controller.step(data, demo.actions[0], history[0])  # believing what is there
    wrong = np.abs(data.qpos[controller.arms[0].qpos] - demo.states[1, 1:8]).max()
    assert right < 1e-6
    assert wrong > 1e-4
    assert first_sight(controller, demo, 1) is None


@pytest.mark.parametrize(
    ("name", "dialect", "most"),
    [("robosuite100_lift", V10, 1e-9), (LIFT, V14, 2e-9), (CAN, V15, 2e-9), (HANDOVER, V14, 2e-9)],
)
def test_free_motion_of_every_version_repeats_to_a_billionth(recordings, name, dialect, most):
    """MuJoCo 2.0 of 2020 to 3.9 recorded it, MuJoCo 4 repeats it."""
    controller, demo = controller_of(recordings, name, dialect)
    history = controller.history(demo.states, demo.actions)
    errors = one_step_errors(controller, demo, history, range(1, 12))
    assert np.median(errors) < most


# ---- settings


def test_defaults_are_robosuites():
    settings = read_settings(None)
    assert settings.as_ours
    settings.refuse_foreign()
    offset, turn = settings.scale(np.array([1, -0.5, 3.75, 0, 0, -2]))
    assert np.allclose(offset, [0.05, -0.025, 0.05])
    assert np.allclose(turn, [0, 0, -0.5])


def test_other_ranges_are_scaled_as_robosuite_does():
    """An input of -2 to 2 onto 0 to 0.1 m: 1 is three quarters of the way."""
    settings = read_settings(
        {"type": "OSC_POSITION", "input_max": 2, "input_min": -2, "output_max": 0.1, "output_min": 0.0}
    )
    offset, turn = settings.scale(np.array([1.0, -2.0, 5.0]))
    assert np.allclose(offset, [0.075, 0, 0.1])
    assert turn.tolist() == [0, 0, 0]
    assert not settings.as_ours


def test_the_arms_part_is_found_in_every_style():
    arm = {"type": "OSC_POSE", "kp": 150, "output_max": [0.05] * 3 + [0.5] * 3}
    for config in (
        arm,
        [arm, arm],
        {"type": "BASIC", "body_parts": {"right": arm}},
        {"type": "BASIC", "body_parts": {"arms": {"right": arm}}},
    ):
        assert read_settings(config).as_ours
    assert read_settings({**arm, "damping": 1}).kd[0] == pytest.approx(2 * np.sqrt(150))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "JOINT_VELOCITY"}, "controller is JOINT_VELOCITY"),
        ({"type": "OSC_POSE", "control_delta": False}, "absolute"),
        ({"type": "OSC_POSE", "input_type": "absolute"}, "absolute"),
        ({"type": "OSC_POSE", "impedance_mode": "variable_kp"}, "impedance_mode variable_kp"),
        ({"type": "OSC_POSE", "interpolation": "linear"}, "interpolation linear"),
        ({"type": "OSC_POSE", "kp": [1, 2]}, "where 6 numbers belong"),
        ("OSC_POSE", "not described"),
    ],
)
def test_controllers_that_cannot_be_translated_are_refused(config, words):
    with pytest.raises(CaliperError, match=words):
        read_settings(config)


@pytest.mark.parametrize("change", [{"kp": 100}, {"damping_ratio": 2}, {"uncouple_pos_ori": False}])
def test_other_gains_are_refused(change):
    with pytest.raises(CaliperError, match="Caliper's has 150"):
        read_settings({"type": "OSC_POSE", **change}).refuse_foreign()


def test_a_model_that_blows_up_leaves_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    body = '<body><freejoint/><geom size=".1"/></body>'
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><option gravity="0 0 1e30"/><worldbody>{body}</worldbody></mujoco>'
    )
    before = mujoco.get_mju_user_warning()
    with unwarned():
        mujoco.mj_step(model, mujoco.MjData(model))
        assert np.array([1e308]) * 10 == np.inf
    assert mujoco.get_mju_user_warning() is before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
