"""Runs whose policy sees more than square colour images: each part of a run follows."""

import csv

import h5py
import numpy as np
import pytest

from caliper.config.build import make_envs, obs_spec
from caliper.config.cameras import camera_sizes, listed
from caliper.config.compose import compose, load
from caliper.config.estimate import estimate
from caliper.config.validate import check
from caliper.data.buffer import ReplayBuffer
from caliper.data.formats.robomimic import read_dataset
from caliper.errors import CaliperError
from caliper.rollout.replay import rendered
from caliper.tools.replay import replay_file
from caliper.tools.saved_run import evaluate_run, render_run
from caliper.training.run import resume, train

pytestmark = pytest.mark.usefixtures("no_report")
SEES = [
    "task.cameras={agentview: [16, 20], robot0_eye_in_hand: 12}",
    "task.depth=true",
    "task.segmentation=true",
    "task.frame_stack=3",
    "task.proprio=[standard, robot0_joint_vel]",
    "encoder.cameras=separate",
]


@pytest.mark.slow
def test_a_run_sees_all_of_it_and_goes_on(configure, tmp_path):
    """A resumed run gives the numbers of one that went through, with stacks in the running episodes."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(configure(*SEES, f"run_dir={whole}", "log.checkpoint_minutes=1e9"))
    train(configure(*SEES, f"run_dir={cut}", "online.env_steps=16"))
    resume(cut, load(cut / "config.yaml", ["online.env_steps=28"], "resume"))
    whole_rows, cut_rows = (
        {tuple(row[:3] + row[5:]) for row in csv.reader((folder / "metrics.csv").read_text().splitlines())}
        for folder in (whole, cut)
    )
    assert len(whole_rows) > 10 and whole_rows <= cut_rows  # the other has an evaluation more
    config = load(whole / "config.yaml")
    assert config.task.cameras == ["agentview:16x20", "robot0_eye_in_hand:12"]
    assert evaluate_run(whole, config).episodes
    assert render_run(whole, load(whole / "config.yaml", ["video.episodes=1", "video.size=32"])).exists()


def test_the_estimate_counts_every_image(configure):
    config = configure(*SEES)
    spec = obs_spec(config)
    frame = (16 * 20 + 12 * 12) * (3 + 2 + 1) + (11 + 7) * 4
    transition = 3 * 8 + 4 * 4 + 3 * 4
    assert ReplayBuffer.estimate(1, spec, 4) == frame + transition
    parts = {part.name: part.size for part in estimate(config)}
    assert parts["the online buffer"] == 60 * (frame + transition)
    assert spec.image_numbers == 3 * (16 * 20 + 12 * 12) * (3 + 1 + spec.instances)
    env = make_envs(config, 2)
    assert env.spec == spec


def test_a_file_gets_every_kind(dataset, tmp_path):
    out = replay_file(dataset, tmp_path / "new.hdf5", SEES[:3])
    config = compose(["task=lift", "threads=1", *SEES[:3]])
    episodes = [obs for _, obs in rendered(make_envs(config, 2), read_dataset(dataset))]
    with h5py.File(out) as file:
        assert file["data"].attrs["image_size"].tolist() == [[16, 20], [12, 12]]
        assert list(file["data"].attrs["instances"])[2] == "cube_main"
        for i, obs in enumerate(episodes):
            for kind, ending in (
                ("pixels", "image"),
                ("depth", "depth"),
                ("segmentation", "segmentation_instance"),
            ):
                for camera, name in (("agentview", kind), ("robot0_eye_in_hand", f"{kind}_12x12")):
                    expected = obs.images[name][:, 0].permute(0, 2, 3, 1).numpy()
                    demo = file[f"data/demo_{i}"]
                    assert np.array_equal(demo[f"obs/{camera}_{ending}"], expected[:-1])
                    assert np.array_equal(demo[f"next_obs/{camera}_{ending}"], expected[1:])
                    assert demo[f"obs/{camera}_{ending}"].dtype == expected.dtype


def test_cameras_by_words():
    assert listed("task.cameras=[a,b]") == "task.cameras=[a,b]"
    assert listed("task.cameras={a:[96,128],b:64}") == "task.cameras=['a:96x128','b:64']"
    assert camera_sizes(["a:96x128", "b", "c:7"], 64) == {"a": (96, 128), "b": (64, 64), "c": (7, 7)}
    for entries, said in (
        (["a", "a:3"], "twice"),
        (["a:3x"], "makes no sense"),
        (["a:2000"], "at most 1024"),
    ):
        with pytest.raises(CaliperError, match=said):
            camera_sizes(entries, 64)
    with pytest.raises(CaliperError, match=r"has the size \[1, 2, 3\]"):
        compose(["task=lift", "task.cameras={agentview: [1, 2, 3]}"])


def test_what_does_not_fit_is_one_sentence(configure):
    for words, said in (
        (["task.proprio=[robot0_joint]"], "there is no 'robot0_joint'"),
        (["task.cameras={agentview: [16, 20], robot0_eye_in_hand: 12}"], "encoder.cameras=separate"),
        (["task.cameras=[agentview:x]"], "makes no sense"),
        (["obs=state", "encoder=state", "task.depth=true"], "which task.obs=state leaves out"),
    ):
        with pytest.raises(CaliperError, match=said):
            check(configure(*words))
