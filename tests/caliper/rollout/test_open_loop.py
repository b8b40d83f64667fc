"""Recorded actions lead to the recorded states, or it is said where they do not."""

from dataclasses import replace

import numpy as np
import pytest

from caliper.cli import main
from caliper.config.compose import compose
from caliper.data.formats.robomimic import DatasetWriter, read_dataset
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.rollout.open_loop import Replayed, replay_actions
from caliper.tools.inspect_dataset import replayed_lines

WORDS = ["task=lift", "threads=1", "data.episodes=3", "data.num_envs=2", "data.mixture=[[1.0,0.1,0.0]]"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return collect(compose(WORDS), tmp_path_factory.mktemp("open") / "lift.hdf5")


def changed(recorded, path, change):
    """The same file with each episode changed."""
    dataset = read_dataset(recorded)
    with DatasetWriter(path, dataset.meta) as writer:
        for episode in dataset.episodes:
            writer.add(change(episode))
    return path


def test_what_caliper_records_is_followed_to_the_bit(recorded):
    found = list(replay_actions(read_dataset(recorded)))
    assert [f.demo for f in found] == ["demo_0", "demo_1", "demo_2"]
    for result, episode in zip(found, read_dataset(recorded).episodes, strict=True):
        assert len(result.arm) == len(episode) and result.left is None
        assert result.arm.max() == 0 == result.object.max()
        assert result.solved == result.recorded == (len(episode) if episode.success else None)


def test_what_is_no_number_does_not_follow():
    good = np.zeros(3)
    assert Replayed("demo_0", np.array([0, np.nan, 0]), good, None, None).left == 2
    assert Replayed("demo_0", good, np.array([0, 0, np.inf]), None, None).left == 3
    assert Replayed("demo_0", good, good, None, None).left is None


def test_another_sign_of_the_gripper_shows(recorded, tmp_path):
    def negated(episode):
        actions = episode.actions.copy()
        actions[:, -1] *= -1
        return replace(episode, actions=actions)

    for result in replay_actions(read_dataset(changed(recorded, tmp_path / "sign.hdf5", negated))):
        assert result.left is not None and result.solved is None
        assert "leaves its states at action" in str(result)
        assert "not solved, recorded as solved after" in str(result)


def test_another_order_of_the_axes_shows_at_once(recorded, tmp_path):
    def swapped(episode):
        return replace(episode, actions=np.ascontiguousarray(episode.actions[:, [1, 0, 2, 3]]))

    for result in replay_actions(read_dataset(changed(recorded, tmp_path / "swap.hdf5", swapped))):
        assert result.left is not None and result.left < 10


def test_where_a_demo_leaves_its_states():
    follows = Replayed("demo_0", np.array([0.0, 0.02]), np.array([0.0, 0.005]), 2, 2)
    assert follows.left is None
    assert (
        str(follows)
        == "follows its 2 states (joints within 0.02 rad, object within 5 mm); solved after 2, as recorded"
    )
    assert Replayed("a", np.array([0, 0.03, 0]), np.zeros(3), None, None).left == 2
    assert Replayed("a", np.zeros(3), np.array([0, 0, 0.006]), None, None).left == 3


def test_inspect_prints_a_line_for_each_demo(recorded, capsys):
    main(["inspect", str(recorded), "--replay"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "  3 of 3 demos follow their recorded states under their actions alone"
    assert all(line.startswith(f"  demo_{i}  follows its") for i, line in enumerate(lines[-4:-1]))
    (said,) = [line for line in lines if line.startswith("  actions")]
    assert said.endswith("mean what caliper tasks lift says of osc_position")


def test_a_file_of_another_scene_is_not_replayed(recorded, tmp_path):
    dataset = read_dataset(recorded)
    with DatasetWriter(
        tmp_path / "other.hdf5", replace(dataset.meta, scene_hash="other", action="")
    ) as writer:
        writer.add(dataset.episodes[0])
    with pytest.raises(CaliperError, match="does not fit: scene_hash"):
        next(replayed_lines(tmp_path / "other.hdf5"))
