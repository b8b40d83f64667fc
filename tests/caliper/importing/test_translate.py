"""Recorded actions in Caliper's words, held to goals worked out by hand."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from caliper.importing.controller import DIALECTS, read_settings
from caliper.importing.dialect import Way, read_as
from caliper.importing.model.compiled import physics_model
from caliper.importing.translate import translate

V10, V14, V15 = DIALECTS


def reading_of(recordings, name, dialect, demo=None, settings=None, posture="rest"):
    demo = demo or recordings[name].demos[0]
    settings = settings or read_settings(recordings[name].settings["controller_configs"])
    return demo, read_as(physics_model(demo.model), settings, demo, 20, Way(dialect, posture))


def hand(reading, state):
    data = mujoco.MjData(reading.controller.model)
    reading.controller.put(data, state)
    site = reading.controller.arms[0].site
    return data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()


def test_the_first_action_aims_from_the_rest_posture(recordings):
    demo, reading = reading_of(recordings, "robosuite141_lift", V14)
    found = translate(demo, reading)
    rest = demo.states[0].copy()
    rest[1:8] = reading.controller.posture[0]
    goal = hand(reading, rest)[0] + 0.05 * np.clip(demo.actions[0, :3], -1, 1)
    offset = (goal - hand(reading, demo.states[0])[0]) / 0.05
    assert np.abs(offset).max() > 1  # farther than an action reaches
    assert np.allclose(found.actions[0, :3], np.clip(offset, -1, 1), atol=1e-12)
    assert (found.clipped, found.beyond) == (1, 0)
    assert found.largest >= np.abs(offset).max()


def test_a_kept_goal_becomes_todays_offset(recordings):
    """Three steps of 1.4 that turn once and then not: the goal of the first is said again in the others."""
    demo = recordings["robosuite141_lift"].demos[0]
    actions = demo.actions[:6].copy()
    actions[:, 3:6] = 0
    actions[2, 3:6] = [0.0, 0.2, 0.4]
    demo, reading = reading_of(
        recordings, "robosuite141_lift", V14, replace(demo, states=demo.states[:6], actions=actions)
    )
    found = translate(demo, reading).actions
    assert np.allclose(found[2, 3:6], [0, 0.2, 0.4], atol=1e-12)
    from caliper.importing.controller import rotation_matrix, rotation_vector

    goal = rotation_matrix(np.array([0, 0.1, 0.2])) @ hand(reading, demo.states[2])[1]
    for t in (3, 4, 5):
        turn = rotation_vector(goal @ hand(reading, demo.states[t])[1].T)
        assert np.allclose(found[t, 3:6], turn / 0.5, atol=1e-12)
        assert np.allclose(found[t, :3], actions[t, :3], atol=1e-12)


def test_1_0_is_turned_round_and_1_5_left_alone(recordings):
    demo = recordings["robosuite141_lift"].demos[0]
    for dialect, sign in ((V10, -1), (V15, 1)):
        _, reading = reading_of(recordings, "robosuite141_lift", dialect)
        found = translate(demo, reading).actions
        turning = np.flatnonzero(np.abs(demo.actions[:, 3:6]).max(1) > 0)[1:]
        assert np.allclose(found[turning, 3:6], sign * np.clip(demo.actions[turning, 3:6], -1, 1), atol=1e-9)
    assert np.array_equal(found[1:, :6], np.clip(demo.actions[1:, :6], -1, 1))  # of 1.5: to the last bit


def test_another_scale_becomes_ours(recordings):
    """At 2 cm and 0.1 rad an action, full speed is 0.4 and 0.2 of ours."""
    demo = recordings["robosuite152_can"].demos[0]
    small = read_settings(
        {"type": "OSC_POSE", "output_max": [0.02] * 3 + [0.1] * 3, "output_min": [-0.02] * 3 + [-0.1] * 3}
    )
    _, reading = reading_of(recordings, "robosuite152_can", V15, demo, small)
    found = translate(demo, reading)
    inside = np.clip(demo.actions[1:, :6], -1, 1)
    assert np.allclose(found.actions[1:, :3], 0.4 * inside[:, :3], atol=1e-9)
    assert np.allclose(found.actions[1:, 3:6], 0.2 * inside[:, 3:], atol=1e-9)
    assert found.controller == "osc_pose"


@pytest.mark.parametrize(("dialect", "controller", "width"), [(V14, "osc_pose", 7), (V15, "osc_position", 4)])
def test_position_control_stays_so_only_since_1_5(recordings, dialect, controller, width):
    demo = recordings["robosuite141_lift"].demos[0]
    demo = replace(demo, actions=demo.actions[:, [0, 1, 2, 6]])
    settings = read_settings({"type": "OSC_POSITION"})
    _, reading = reading_of(recordings, "robosuite141_lift", dialect, demo, settings)
    found = translate(demo, reading)
    assert (found.controller, found.actions.shape[1]) == (controller, width)
    assert np.allclose(found.actions[1:, :3], np.clip(demo.actions[1:, :3], -1, 1), atol=1e-9)
    assert np.array_equal(found.actions[:, -1], demo.actions[:, -1])


def test_steps_beyond_the_range_are_counted(recordings):
    demo = recordings["robosuite141_lift"].demos[0]
    actions = demo.actions.copy()
    actions[5:8, 0] = 3.75
    _, reading = reading_of(recordings, "robosuite141_lift", V14, replace(demo, actions=actions))
    found = translate(replace(demo, actions=actions), reading)
    assert found.beyond == 3
    assert np.abs(found.actions).max() == 1
