"""Images of recordings: ours of their states, and theirs held against ours."""

import h5py
import numpy as np
import pytest

from caliper.data.formats.recordings import open_recording
from caliper.envs.sim import SimEnv, task_scene
from caliper.errors import CaliperError
from caliper.importing.images import camera_of, compare, drawn, likenesses, stage


def test_images_are_those_of_the_environment(imported):
    """The same states through the policy's own envs."""
    import torch

    from caliper.data.formats.robomimic import read_dataset

    states = read_dataset(imported("robosuite141_lift")[0]).episodes[0].states[[0, 20]]
    ours = np.concatenate(list(drawn(task_scene("lift").model, states, ("agentview",), 48, antialias=1)))
    env = SimEnv("lift", 2, cameras=("agentview",), size=48)
    env.set_state(torch.as_tensor(states))
    theirs = env.observe().pixels.permute(0, 1, 3, 4, 2).numpy()
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours[0], ours[1])


def test_a_task_with_a_scene_is_shown_in_it_and_another_in_its_own_model(recordings):
    can = recordings["robosuite152_can"]
    assert (stage(can, can.demos[0]).task, stage(can, can.demos[0]).states.shape) == (
        "pick_place_can",
        (60, 32),
    )
    four = recordings["robosuite100_pick_place"]
    staged = stage(four, four.demos[0])
    assert (staged.task, staged.states.shape, staged.lost) == (None, (40, 71), [])
    (frame,) = drawn(staged.model, staged.states[:1], ("agentview",), 32)
    assert frame.shape == (1, 1, 32, 32, 3)
    assert frame.std() > 10


def test_an_unknown_camera_lists_those_there_are(recordings):
    square = recordings["mimicgen_square_d0"]
    staged = stage(square, square.demos[0])
    with pytest.raises(CaliperError, match="no camera 'top'; choose one of: frontview, birdview, agentview"):
        next(iter(drawn(staged.model, staged.states, ("top",), 32)))


def test_recorded_images_are_recognised_as_they_are(recordings):
    """robomimic's are upright; drawn by OpenGL, they are darker than ours."""
    (found,) = likenesses(recordings["robomimic030_can_images"]).values()
    assert found.faults == ()
    assert found.correlation > 0.7
    assert 10 < found.difference < 50


@pytest.mark.parametrize(
    ("turn", "faults"),
    [
        (lambda x: x[:, ::-1], ("upside down",)),
        (lambda x: x[:, :, ::-1], ("mirrored",)),
        (lambda x: x[..., ::-1], ("BGR",)),
        (lambda x: x[:, ::-1, :, ::-1], ("upside down", "BGR")),
    ],
)
def test_turned_and_swapped_images_are_named(edited, turn, faults):
    def change(file):
        images = file["data/demo_1/obs/agentview_image"]
        images[()] = turn(images[()])

    (found,) = likenesses(open_recording(edited("robomimic030_can_images", change))).values()
    assert tuple(found.faults) == faults
    assert " and ".join(faults) in str(found)


def test_liberos_images_are_upside_down(recordings):
    found = likenesses(recordings["libero_object"])["agentview_rgb"]
    assert "upside down" in found.faults


def test_a_difference_is_a_mean():
    black, grey = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 10, np.uint8)
    assert compare(grey, black).difference == 10
    assert compare(grey, black).faults == ()


def test_names_of_images_are_those_of_cameras():
    names = {
        "agentview_image": "agentview",
        "agentview_rgb": "agentview",
        "eye_in_hand_rgb": "robot0_eye_in_hand",
    }
    assert {name: camera_of(name) for name in names} == names
    assert camera_of("robot0_eye_in_hand_image") == "robot0_eye_in_hand"


def test_a_file_without_images_has_none_to_compare(recordings):
    with pytest.raises(CaliperError, match="no images to compare"):
        likenesses(recordings["robosuite141_lift"])


def test_an_unreadable_demo_is_not_shown(edited):
    def spoil(file):
        file["data/demo_1/states"][3, 3] = np.nan

    recording = open_recording(edited("robosuite141_lift", spoil))
    with pytest.raises(CaliperError, match="demo_1: states holds"):
        stage(recording, recording.demos[0])
    with h5py.File(recording.path) as file:
        assert np.isnan(file["data/demo_1/states"][3, 3])
