import dataclasses

import h5py
import numpy as np
import pytest

from caliper.cli import main
from caliper.config.build import installed
from caliper.data.dataset import DatasetMeta, Episode
from caliper.data.formats.robomimic import DatasetWriter
from caliper.errors import CaliperError
from caliper.tools.inspect_dataset import describe
from tests.data import minari_files

META = DatasetMeta(
    task="lift",
    scene_hash="abc123",
    mujoco_version="4.0.0",
    controller="osc_pose",
    control_freq=20,
    action_dim=7,
    state_dim=32,
    horizon=60,
    collector="expert",
    seed=7,
)


def episode(t: int, success: bool, noise: float) -> Episode:
    rewards = np.zeros(t, np.float32)
    rewards[-1] = success
    return Episode(
        np.zeros((t, 32)), np.zeros(32), np.zeros((t, 7), np.float32), rewards, success, success, 0, noise
    )


def write(path, noises):
    with DatasetWriter(path, META) as writer:
        for i, noise in enumerate(noises):
            writer.add(episode(10 * (i + 1), i != 2, noise))
    return path


def test_tells_what_is_inside(tmp_path):
    text = describe(write(tmp_path / "lift.hdf5", [0, 0, 0.5]), lambda _: (META, None))
    lines = {line[2:18].strip(): line[18:] for line in text.splitlines()[1:]}
    assert lines["task"] == "lift"
    assert lines["scene"] == "abc123"
    assert lines["controller"] == "osc_pose, 7-D actions at 20 Hz"
    assert lines["states"] == "32 numbers, MuJoCo 4.0.0"
    assert lines["collected by"] == "expert, seed 7"
    assert lines["episodes"] == "3, of which 2 (66.7%) succeed"
    assert lines["transitions"] == "60 (63 frames)"
    assert lines["length"] == "10 .. 30, median 20, mean 20"
    assert lines["of successes"] == "10 .. 20, median 15, mean 15"
    assert lines["return"].startswith("0 .. 1, median 1, mean 0.6667")
    # Failure: -1 / (1 - .99). Short success, .99^9 = .913517: 9.13517 - .086483 / .01 = .48690
    assert lines["discounted"].startswith("-100 .. 0.486897")
    assert lines["noise"] == "0: 2 episodes, 2 (100.0%) succeed"
    assert lines[""] == "0.5: 1 episodes, 0 (0.0%) succeed"
    assert lines["fits"] == "yes, the installed scene"


def test_many_noise_levels_are_grouped(tmp_path):
    text = describe(write(tmp_path / "lift.hdf5", [0, 0.1, 0.5, 0.6, 1.0]), lambda _: None)
    assert "0.00 .. 0.25: 2 episodes, 2 (100.0%)" in text
    assert "0.50 .. 0.75: 2 episodes, 1 (50.0%)" in text
    assert "0.75 .. 1.00: 1 episodes" in text
    assert "0.25 .. 0.50" not in text
    assert "unknown: there is no installed scene" in text


def test_tells_why_it_does_not_fit(tmp_path):
    expected = dataclasses.replace(META, scene_hash="fff", action_dim=4)
    text = describe(write(tmp_path / "lift.hdf5", [0.0]), lambda _: (expected, None))
    assert "no: scene_hash is 'abc123' but 'fff' is needed; action_dim is 7 but 4 is needed" in text


def test_actions_that_mean_something_else_are_told(tmp_path):
    path = write(tmp_path / "lift.hdf5", [0.0])
    with h5py.File(path, "r+") as file:
        file["data"].attrs["action"] = '{"gripper": "1 opens"}'
        del file["data"].attrs["sha256"], file["data/demo_0"].attrs["sha256"]
    text = describe(path, lambda _: (dataclasses.replace(META, action='{"gripper": "1 closes"}'), None))
    assert "fits            yes, the installed scene, but its actions mean something else there" in text


def test_a_frequency_that_the_physics_cannot_have_does_not_fit(tmp_path):
    meta, _ = installed(dataclasses.replace(META, control_freq=7))
    still = {"states": np.zeros((10, meta.state_dim)), "final_state": np.zeros(meta.state_dim)}
    with DatasetWriter(tmp_path / "lift.hdf5", meta) as writer:
        writer.add(dataclasses.replace(episode(10, True, 0.0), **still))
    assert "7 Hz do not divide the physics' 500" in describe(tmp_path / "lift.hdf5", installed)


def test_an_episode_longer_than_the_horizon_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="it has 70 transitions, and the file's horizon is 60"),
        DatasetWriter(tmp_path / "lift.hdf5", META) as writer,
    ):
        writer.add(episode(70, True, 0.0))


def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / "x.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(CaliperError, match="damaged"):
        describe(tmp_path / "x.hdf5", lambda _: None)


def test_a_minari_folder_is_described(tmp_path, capsys):
    folder = minari_files.write(
        tmp_path / "d",
        minari_files.episode([0, 1, 2]),
        minari_files.episode([4], terminations=[0]),
        env_id="FrankaKitchen-v1",
    )
    main(["inspect", str(folder)])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    said = {name: value for name, value in lines}
    assert said["environment"] == "FrankaKitchen-v1"
    assert said["episodes"] == "2, of which 1 terminate"
    assert said["transitions"] == "4 (6 frames)"
    assert said["reward"] == "0 .. 4, median 1.5, mean 1.75 (of a step, raw)"
