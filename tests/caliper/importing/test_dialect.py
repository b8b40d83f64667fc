"""The dialect is measured: right where the file says nothing, and where it says the wrong thing."""

from dataclasses import replace

import numpy as np
import pytest

from caliper.importing.controller import DIALECTS, read_settings
from caliper.importing.dialect import (
    Way,
    control_freq,
    geometric_mean,
    measure,
    read_as,
    stated,
    usual_way,
)
from caliper.importing.model.compiled import physics_model

V10, V14, V15 = DIALECTS


def pairs_of(recording):
    return [(physics_model(d.model), d) for d in recording.demos]


@pytest.mark.parametrize(
    ("name", "dialect", "posture"),
    [
        ("robosuite100_lift", V10, "rest"),
        ("robosuite100_wipe", V10, "rest"),
        ("robosuite100_pick_place", V10, "rest"),
        ("teleop13_handover", V14, "rest"),
        ("robosuite141_lift", V14, "rest"),
        ("robomimic030_can", V14, "rest"),
        ("robosuite152_can", V15, "rest"),
    ],
)
def test_the_dialect_is_found_without_any_version(recordings, name, dialect, posture):
    recording = recordings[name]
    settings = read_settings(recording.settings["controller_configs"])
    assert usual_way(pairs_of(recording), settings, 20, "") == Way(dialect, posture)


def test_a_wrong_version_is_not_believed(recordings):
    recording = recordings["robosuite100_lift"]
    settings = read_settings(recording.settings["controller_configs"])
    assert usual_way(pairs_of(recording), settings, 20, "1.5.2").dialect is V10


def test_mimicgen_is_pulled_to_its_first_posture(recordings):
    """Its recordings do not tell 1.4 from 1.5, as no rotation is zero; the version they state decides."""
    recording = recordings["mimicgen_square_d0"]
    settings = read_settings(recording.settings["controller_configs"])
    pairs = pairs_of(recording)
    assert usual_way(pairs, settings, 20, recording.version) == Way(V14, "start")
    model, demo = pairs[0]
    start, rest = (read_as(model, settings, demo, 20, Way(V14, p)).error for p in ("start", "rest"))
    assert start < 1e-7
    assert rest > 1e-5


def test_the_right_dialect_is_far_better(recordings, settings):
    model, demo = pairs_of(recordings["robosuite100_lift"])[0]
    errors = {d: read_as(model, settings, demo, 20, Way(d, "rest")).error for d in DIALECTS}
    assert errors[V10] < 1e-9
    assert min(errors[V14], errors[V15]) > 1e-5


@pytest.mark.parametrize("usual", [V14, V15])
def test_a_demo_that_does_not_tell_is_read_as_its_file(recordings, settings, usual):
    """Four steps that all turn: below 1.5 and since, the arm does the same."""
    model, demo = pairs_of(recordings["robosuite141_lift"])[0]
    short = replace(demo, states=demo.states[:4], actions=demo.actions[:4])
    assert np.abs(short.actions[:, 3:6]).max(1).min() > 0
    reading = measure(model, settings, short, 20, Way(usual, "rest"))
    assert reading.way.dialect is usual


def test_a_demo_that_tells_is_not_read_as_its_file(recordings, settings):
    model, demo = pairs_of(recordings["robosuite141_lift"])[0]
    assert measure(model, settings, demo, 20, Way(V10, "rest")).way.dialect is V14


def test_versions_name_dialects():
    said = {"1.0.0": V10, "1.0.1": V10, "1.2.1": V14, "1.4.1": V14, "1.5.0": V15, "1.6": V15}
    assert {version: stated(version) for version in said} == said
    assert stated("") is stated("0.3.0") is None


def test_the_frequency_is_that_of_the_times():
    times = np.cumsum([0.052, 0.05, 0.05, 0.1, 0.05])[:, None]
    assert control_freq(times) == 20
    assert control_freq(times[:1]) is None
    assert control_freq(np.zeros((3, 1))) is None


def test_the_mean_is_geometric():
    assert geometric_mean(np.array([1e-10, 1e-2])) == pytest.approx(1e-6)
    assert geometric_mean(np.array([])) == float("inf")
