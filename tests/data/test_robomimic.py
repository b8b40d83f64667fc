import dataclasses
import errno
import io
import json
import os
import re

import h5py
import numpy as np
import pytest

from caliper.data.formats import robomimic
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.errors import CaliperError
from tests.data.conftest import make_episode


def test_round_trip(written, meta):
    episodes = [make_episode(100 * i, 1 + i % 4, success=i % 2 == 0, noise=i / 10) for i in range(12)]
    dataset = read_dataset(written(*episodes))
    assert dataset.meta == meta
    assert len(dataset.episodes) == 12  # demo_10 comes after demo_9, not after demo_1
    for stored, episode in zip(dataset.episodes, episodes, strict=True):
        for field in dataclasses.fields(episode):
            value, expected = getattr(stored, field.name), getattr(episode, field.name)
            assert np.array_equal(value, expected)
            assert type(value) is type(expected)
    assert dataset.num_frames == dataset.num_transitions + 12


def test_other_groups_beside_the_episodes_are_left_alone(written):
    path = written(make_episode(0, 3, success=True), make_episode(50, 2))
    with h5py.File(path, "r+") as file:
        for name in ("7", "demo_x", "mask"):
            file["data"].create_group(name)
    assert [len(episode) for episode in read_dataset(path).episodes] == [3, 2]


def test_layout_is_robomimics(written):
    path = written(make_episode(0, 3, success=True), make_episode(50, 2))
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["total"] == 5
        env_args = json.loads(data.attrs["env_args"])
        assert env_args["type"] == 1
        assert env_args.keys() == {"env_name", "env_version", "type", "env_kwargs"}
        assert set(data) == {"demo_0", "demo_1"}
        assert data["demo_0"].attrs["num_samples"] == 3
        assert data["demo_0/dones"][:].tolist() == [0, 0, 1]
        assert data["demo_1/dones"][:].tolist() == [0, 0]
        assert data["demo_0/states"].shape == (3, 3)
        assert data["demo_0/states"].dtype == np.float64


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ValueError])
def test_a_broken_collection_leaves_the_earlier_file_and_nothing_else(written, meta, error):
    path = written(make_episode(0, 3))
    before = path.read_bytes()
    with pytest.raises(error), DatasetWriter(path, meta) as writer:
        writer.add(make_episode(100, 2))
        raise error
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_first_collection_leaves_nothing(tmp_path, meta):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path / "new.hdf5", meta) as writer:
        writer.add(make_episode(100, 2))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk(io.BytesIO):
    def write(self, data):
        full()


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file(written, meta, monkeypatch, where):
    path = written(make_episode(0, 3))
    before = path.read_bytes()
    message = rf"cannot write {re.escape(str(path))}: No space left on device; free some space or choose"
    with (
        monkeypatch.context() as patch,
        pytest.raises(CaliperError, match=message) as refused,
        DatasetWriter(path, meta) as writer,
    ):
        writer.add(make_episode(100, 2))
        if where == "write":
            patch.setattr(robomimic.Path, "open", lambda *args: FullDisk())
        else:
            patch.setattr(robomimic.os, where, full)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    writer._image.close()  # which fails while the error's frames hold a view of it
    assert refused.tb


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, meta):
    (tmp_path / "file").touch()
    with (
        pytest.raises(CaliperError, match=r"cannot write .*lift.hdf5.*choose a folder"),
        DatasetWriter(tmp_path / "file" / "lift.hdf5", meta),
    ):
        pass
    (tmp_path / f".taken.hdf5.{os.getpid()}.partial").mkdir()
    with (
        pytest.raises(CaliperError, match=r"cannot write .*taken.hdf5.*choose"),
        DatasetWriter(tmp_path / "taken.hdf5", meta),
    ):
        pass


def test_two_processes_may_write_one_file_and_only_who_was_asked_replaces_it(tmp_path, meta, monkeypatch):
    path = tmp_path / "x.hdf5"
    with DatasetWriter(path, meta) as first:
        first.add(make_episode(0, 3))
        monkeypatch.setattr(robomimic.os, "getpid", lambda: 1)
        with DatasetWriter(path, meta) as second:  # ends while the first is at work
            second.add(make_episode(100, 2))
    assert len(read_dataset(path).episodes[0]) == 3
    path.unlink()
    with (
        pytest.raises(CaliperError, match=r"x\.hdf5 has been made by another process meanwhile"),
        DatasetWriter(path, meta, overwrite=False) as first,
    ):
        first.add(make_episode(0, 3))
        with DatasetWriter(path, meta) as second:
            second.add(make_episode(100, 2))
    assert len(read_dataset(path).episodes[0]) == 2 and list(tmp_path.iterdir()) == [path]


def test_an_empty_collection_is_no_file(tmp_path, meta):
    with (
        pytest.raises(CaliperError, match="no episode was recorded"),
        DatasetWriter(tmp_path / "x.hdf5", meta),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"actions": np.zeros((3, 4), np.float32)}, r"actions has the shape \(3, 4\), expected \(3, 2\)"),
        ({"actions": np.full((3, 2), 1.5, np.float32)}, r"actions reach 1.5, outside \[-1, 1\]"),
        ({"rewards": np.full(3, np.nan, np.float32)}, "rewards holds a value that is not finite"),
        ({"states": np.zeros((2, 3))}, r"states has the shape \(2, 3\)"),
        ({"actions": np.zeros((0, 2), np.float32)}, "no transition"),
    ],
)
def test_a_faulty_episode_is_not_stored(tmp_path, meta, change, fault):
    episode = dataclasses.replace(make_episode(0, 3), **change)
    with pytest.raises(ValueError, match=fault), DatasetWriter(tmp_path / "x.hdf5", meta) as writer:
        writer.add(episode)


def edited(path, edit, seals=True):
    """A file changed afterwards; without `seals` also its checksums are gone, as from a tool of others."""
    with h5py.File(path, "r+") as file:
        edit(file)
        if not seals:
            unseal(file)
    return path


def unseal(file):
    for group in (file["data"], *file["data"].values()):
        group.attrs.pop("sha256", None)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f["data"].attrs.pop("scene_hash"), "lacks scene_hash among the attributes"),
        (lambda f: f["data"].attrs.__setitem__("schema_version", 99), "schema_version 99 but .* reads 1"),
        (lambda f: f["data"].attrs.__setitem__("horizon", "long"), "wrong kind"),
        (lambda f: f.move("data", "other"), "no group 'data'"),
        (lambda f: f["data"].pop("demo_0"), "no episode"),
        (lambda f: f["data/demo_0"].pop("actions"), "lacks actions in /data/demo_0"),
        (lambda f: f["data/demo_0"].attrs.pop("success"), "lacks success in /data/demo_0"),
        (lambda f: f["data/demo_0"].attrs.__setitem__("num_samples", 9), "3 actions, num_samples says 9"),
        (
            lambda f: f["data/demo_0/states"].write_direct(np.full((3, 3), np.inf)),
            "states holds .* not finite",
        ),
        (lambda f: f["data"].attrs.__setitem__("action_dim", 7), r"shape \(3, 2\), expected \(3, 7\)"),
    ],
)
def test_what_is_missing_or_wrong_is_named(written, edit, message):
    path = edited(written(make_episode(0, 3)), edit)
    with pytest.raises(CaliperError, match=message) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)


def test_a_plain_robomimic_file_is_refused_for_want_of_a_scene(tmp_path):
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_1/states"] = np.zeros((3, 32))
        file["data/demo_1/actions"] = np.zeros((3, 7))
        file["data"].attrs["total"] = 3
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
    with pytest.raises(CaliperError, match=r"lacks task, scene_hash, .*belong to this scene"):
        read_dataset(path)


@pytest.mark.parametrize("keep", [0, 3, 700, -1])
def test_a_truncated_file_is_refused(written, keep):
    path = written(*(make_episode(100 * i, 5) for i in range(5)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CaliperError, match=r"lift.hdf5 is damaged or not an HDF5 file \(.*\); make it again"):
        read_dataset(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.hdf5").write_text("not HDF5 at all")
    with pytest.raises(CaliperError, match="not an HDF5 file"):
        read_dataset(tmp_path / "x.hdf5")
    for absent in (tmp_path / "y.hdf5", tmp_path):
        with pytest.raises(
            CaliperError, match=r"(does not exist|is a folder, not a file); .*caliper collect"
        ):
            read_dataset(absent)


def test_without_a_final_state_time_outs_lose_their_last_transition(written):
    def edit(file):
        for name in file["data"]:
            del file[f"data/{name}/final_state"]

    path = edited(written(make_episode(0, 3, success=True), make_episode(100, 4)), edit, seals=False)
    success, time_out = read_dataset(path).episodes
    assert len(success) == 3
    assert np.array_equal(success.final_state, success.states[-1])  # masked: the transition is terminal
    assert len(time_out) == 3
    assert time_out.states[:, 0].tolist() == [100, 101, 102]
    assert time_out.final_state[0] == 103


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("task", "stack"),
        ("scene_hash", "fff"),
        ("mujoco_version", "9.0.0"),
        ("controller", "osc_position"),
        ("control_freq", 10),
        ("action_dim", 4),
        ("state_dim", 71),
    ],
)
def test_data_of_another_scene_is_refused_with_both_values_and_the_fix(written, meta, field, value):
    path = written(make_episode(0, 3))
    expected = dataclasses.replace(meta, **{field: value})
    with pytest.raises(CaliperError) as caught:
        read_dataset(path).check(expected)
    for part in (str(path), f"{field} is {getattr(meta, field)!r} but {value!r} is needed"):
        assert part in str(caught.value)
    assert f"caliper collect task={expected.task}" in str(caught.value)


def test_data_made_otherwise_fits(written, meta):
    read_dataset(written(make_episode(0, 3))).check(
        dataclasses.replace(meta, horizon=99, seed=1, collector="me")
    )


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda f: f["data/demo_1/actions"].__setitem__((0, 1), 0.25), "episode 1"),
        (lambda f: f["data/demo_0"].attrs.__setitem__("seed", 5), "episode 0"),
        (lambda f: f["data"].attrs.__setitem__("collector", "somebody"), "its attributes"),
        (lambda f: f["data"].pop("demo_1"), "which episodes there are"),
    ],
)
def test_a_changed_value_is_noticed(written, edit, what):
    path = written(make_episode(0, 3, success=True), make_episode(50, 2))
    assert read_dataset(path).sealed
    edited(path, edit)
    with pytest.raises(CaliperError, match=f"changed since it was written: .*{what}"):
        read_dataset(path)
    assert not read_dataset(edited(path, unseal)).sealed  # its word is taken, and this is said


def test_an_episode_of_another_name_is_not_left_out_silently(written):
    path = edited(
        written(make_episode(0, 3), make_episode(50, 2)), lambda f: f["data"].move("demo_1", "run_1")
    )
    with pytest.raises(CaliperError, match="has a group /data/run_1, which is no demo_<number>"):
        read_dataset(path)
