import dataclasses

import h5py
import numpy as np
import pytest

from caliper.data.formats.robomimic import read_dataset
from caliper.data.rewards import contradiction, convention
from caliper.errors import CaliperError
from tests.data.conftest import make_episode
from tests.data.test_robomimic import edited


def f32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("rewards", "name"),
    [
        ([f32(0, 0, 1), f32(0, 0)], "success"),
        ([f32(0), f32(0, 0)], "success"),
        ([f32(-1, -1, 0), f32(-1)], "step_cost"),
        ([f32(-1, 0, 1)], None),
        ([f32(0, 1), f32(0, 0.5)], None),
        ([f32(0, 100)], None),
        ([f32(0, np.nan)], None),
    ],
)
def test_the_convention_is_told_from_the_values(rewards, name):
    assert convention(rewards) == name


def test_flags_and_rewards_must_agree():
    assert contradiction(f32(0, 0, 1), success=True, terminated=True) is None
    assert contradiction(f32(0, 1, 0), success=True, terminated=False) is None
    assert contradiction(f32(0, 0, 0), success=False, terminated=False) is None
    assert "success is true, but no reward" in contradiction(f32(0, 0), success=True, terminated=False)
    assert "false, but the reward in row 1" in contradiction(f32(0, 1), success=False, terminated=False)
    assert "terminated is true" in contradiction(f32(1, 0), success=True, terminated=True)


def with_rewards(written, change):
    """A file of a success and a failure, of four steps each, whose rewards are changed."""
    path = written(make_episode(0, 4, success=True), make_episode(10, 4))

    def edit(file):
        for demo in file["data"].values():
            demo["rewards"][...] = change(demo["rewards"][...])

    return edited(path, edit, seals=False)


def test_a_reward_that_is_nearly_one_is_told_from_one(written):
    path = with_rewards(written, lambda r: r * np.float32(1 - 1e-7))
    with pytest.raises(CaliperError, match=r"is 0\.9999999, but rewards must be 1"):
        read_dataset(path)


def test_step_costs_become_successes(written):
    path = with_rewards(written, lambda r: r - 1)
    with pytest.raises(
        CaliperError, match=r"the reward in demo_0, row 0, is -1, .*set data.rewards=step_cost"
    ):
        read_dataset(path)
    first, second = read_dataset(path, "step_cost").episodes
    assert first.rewards.tolist() == [0, 0, 0, 1] and second.rewards.tolist() == [0, 0, 0, 0]
    assert read_dataset(path, None).episodes[0].rewards.tolist() == [-1, -1, -1, 0]


def test_other_rewards_are_refused_with_their_place_unless_the_flags_are_taken(written):
    path = written(make_episode(0, 4, success=True), make_episode(10, 4))
    edited(path, lambda f: f["data/demo_1/rewards"].__setitem__(2, 0.5), seals=False)
    for given in ("success", "step_cost"):
        with pytest.raises(
            CaliperError, match=r"the reward in demo_(1, row 2, is 0.5|0, row 3, is 1).*=flag"
        ):
            read_dataset(path, given)
    first, second = read_dataset(path, "flag").episodes
    assert first.rewards.tolist() == [0, 0, 0, 1] and second.rewards.tolist() == [0, 0, 0, 0]


def test_a_success_that_the_rewards_deny_is_refused(written):
    path = written(make_episode(0, 4, success=True), make_episode(10, 4))
    edited(path, lambda f: f["data/demo_1"].attrs.__setitem__("success", True), seals=False)
    with pytest.raises(CaliperError, match=r"in demo_1 the attribute success is true, but no reward says so"):
        read_dataset(path)


def test_the_content_is_that_of_the_file_whatever_is_made_of_its_rewards(written):
    path = with_rewards(written, lambda r: r - 1)
    assert read_dataset(path, "step_cost").content == read_dataset(path, None).content


def test_the_same_content_under_another_name_and_packing(written, tmp_path, meta):
    path = written(make_episode(0, 4, success=True), make_episode(10, 4))
    other = tmp_path / "packed.hdf5"
    with h5py.File(path) as old, h5py.File(other, "w") as new:
        new.create_group("data").attrs.update(old["data"].attrs)
        for name, demo in old["data"].items():
            new.create_group(f"data/{name}").attrs.update(demo.attrs)
            for key, array in demo.items():
                new.create_dataset(
                    f"data/{name}/{key}", data=array[()], compression="gzip" if array.ndim > 1 else None
                )
    a, b = read_dataset(path), read_dataset(other)
    assert a.content == b.content and a.sealed and b.sealed
    edited(other, lambda f: f["data/demo_0/actions"].__setitem__((0, 0), 0.25), seals=False)
    assert read_dataset(other).content != a.content
    assert dataclasses.replace(b, path=None).content == a.content
