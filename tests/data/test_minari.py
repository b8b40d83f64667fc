"""Minari's files into episodes and training rewards, by the rules of the paper, against hand values."""

import json

import h5py
import numpy as np
import pytest
import torch

from caliper.data.buffer import ReplayBuffer
from caliper.data.formats.minari import read_minari
from caliper.data.returns import RewardConfig
from caliper.errors import CaliperError
from caliper.types import ObsSpec
from tests.data.minari_files import episode, write

ANTMAZE = ADROIT = RewardConfig(10, -5, True, gamma=0.99)
KITCHEN = RewardConfig(1, -4, False, gamma=0.99)


def stored(recordings, reward):
    """What the replay buffer makes of a dataset, oldest transition first."""
    buffer = ReplayBuffer(recordings.num_frames, ObsSpec((), 1, 3), 2, reward)
    recordings.fill(buffer)
    assert len(buffer) == recordings.num_transitions and buffer.num_frames == recordings.num_frames
    return {name: buffer.state_dict()[name].tolist() for name in ("reward", "terminal", "mc_return")}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_antmaze(tmp_path):
    """10 r - 5; success is terminal; an episode without it is worth -5 / (1 - 0.99) at every step."""
    failed, solved = episode([0, 0, 0]), episode([0, 0, 1])
    found = stored(read_minari(write(tmp_path / "d", failed, solved)), ANTMAZE)
    close(found["reward"], [-5, -5, -5, -5, -5, 5])
    close(found["terminal"], [0, 0, 0, 0, 0, 1])
    # 5; -5 + .99 * 5 = -.05; -5 + .99 * -.05 = -5.0495
    close(found["mc_return"], [-500, -500, -500, -5.0495, -0.05, 5])


def test_antmaze_goes_on_after_success(tmp_path):
    """Minari's ant stays at the goal; each success ends an episode, as D4RL's loader has it."""
    recordings = read_minari(write(tmp_path / "d", episode([0, 1, 1, 0, 0])))
    assert [len(e.actions) for e in recordings.episodes] == [2, 1, 2]
    # Where a part ends and where the next one starts is the same observation.
    assert [e.obs[:, 0].tolist() for e in recordings.episodes] == [[0, 1, 2], [2, 3], [3, 4, 5]]
    found = stored(recordings, ANTMAZE)
    close(found["terminal"], [0, 1, 1, 0, 0])
    close(found["mc_return"], [-0.05, 5, 5, -500, -500])


def test_adroit_binary(tmp_path):
    """10 r + 5 for r in {-1, 0}; no success: dropped; cut after the last success; done on each."""
    solved = episode([-1, 0, -1, 0, 0, -1, -1], first=10)
    recordings = read_minari(write(tmp_path / "d", episode([-1, -1]), solved), successes_only=True)
    assert recordings.dropped == 1
    assert [e.obs[:, 0].tolist() for e in recordings.episodes] == [[10, 11, 12], [12, 13, 14], [14, 15]]
    found = stored(recordings, ADROIT)
    close(found["reward"], [-5, 5, -5, 5, 5])
    close(found["terminal"], [0, 1, 0, 1, 1])
    close(found["mc_return"], [-0.05, 5, -0.05, 5, 5])


@pytest.mark.parametrize("reset_too", [False, True])
def test_adroits_dense_rewards_give_way_to_the_recorded_success(tmp_path, reset_too):
    said = [False] * reset_too + [False, False, True]
    recordings = read_minari(
        write(tmp_path / "d", episode([0.3, 12.5, 60.1], success=said)), successes_only=True
    )
    found = stored(recordings, ADROIT)
    close(found["reward"], [-5, -5, 5])
    close(found["terminal"], [0, 0, 1])


def test_kitchen(tmp_path):
    """r - 4, a plain sum also without any reward; what the file calls terminal is, a time-out is not."""
    timed_out, done = episode([0, 1, 1]), episode([3, 4], terminations=[1])
    none = episode([0, 0])
    found = stored(read_minari(write(tmp_path / "d", timed_out, done, none), dense=True), KITCHEN)
    close(found["reward"], [-4, -3, -3, -1, 0, -4, -4])
    close(found["terminal"], [0, 0, 0, 0, 1, 0, 0])
    # -3; -3 - 2.97 = -5.97; -4 + .99 * -5.97 = -9.9103 | 0; -1 | -4; -4 - 3.96 = -7.96
    close(found["mc_return"], [-9.9103, -5.97, -3, -1, 0, -7.96, -4])


def test_a_time_out_bootstraps_from_the_last_observation(tmp_path):
    (cut,) = read_minari(write(tmp_path / "d", episode([0, 0]))).episodes
    assert cut.obs[:, 0].tolist() == [0, 1, 2] and not cut.terminals.any()


def test_without_a_last_observation_the_last_transition_of_a_time_out_is_dropped(tmp_path):
    cut, solved = episode([0, 0, 0], frames=3), episode([0, 1], frames=2)
    a, b = read_minari(write(tmp_path / "d", cut, solved)).episodes
    assert a.obs[:, 0].tolist() == [0, 1, 2] and len(a.actions) == 2 and not a.terminals.any()
    assert b.obs[:, 0].tolist() == [0, 1, 1] and b.terminals.tolist() == [False, True]


def test_a_dict_of_observations_is_flat_in_the_order_of_names(tmp_path):
    parts = episode([0, 0])
    obs = {
        "observation": np.full((3, 2), 3.0),
        "achieved_goal": np.full((3, 1), 1.0),
        "desired_goal": np.ones((3, 1)) * 2,
    }
    parts["observations"] = obs | {"more/microwave": np.zeros((3, 1))}  # nested: the kitchen's constant goals
    (found,) = read_minari(write(tmp_path / "d", parts)).episodes
    assert found.obs.dtype == np.float32 and found.obs.tolist() == [[1, 2, 3, 3]] * 3


@pytest.mark.parametrize("goal", ["desired_goal", "achieved_goal"])
def test_observations_with_one_of_two_goals_are_refused(tmp_path, goal):
    """AntMaze's: where the ant is, where it shall go, and the rest; without a goal nothing can be learned."""
    obs = {name: np.zeros((3, 2)) for name in ("achieved_goal", "desired_goal", "observation")}
    del obs[goal]
    folder = write(tmp_path / "d", episode([0, 0]) | {"observations": obs}, env_id="AntMaze_UMaze-v4")
    with pytest.raises(CaliperError, match=f"cannot be used: in /episode_0 observations has no {goal}; get"):
        read_minari(folder)


def test_episodes_come_in_the_order_of_their_numbers_and_actions_are_clipped(tmp_path):
    many = [episode([0], first=10.0 * i) for i in range(12)]
    many[3]["actions"] = np.array([[1.7, -0.5]])
    found = read_minari(write(tmp_path / "d", *many)).episodes
    assert [e.obs[0, 0] for e in found] == [10 * i for i in range(12)]
    np.testing.assert_allclose(found[3].actions, [[1.0, -0.5]])


def edit(folder, change):
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file["episode_1"])


def put(name, value):
    def change(group):
        del group[name]
        group[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda g: g.__delitem__("rewards"), "lacks rewards in /episode_1"),
        (lambda g: g.__delitem__("observations"), "lacks observations in /episode_1"),
        (
            put("actions", np.zeros((5, 2))),
            r"in /episode_1 actions has the shape \(5, 2\), expected \(2, numbers\)",
        ),
        (
            put("observations", np.zeros((9, 3))),
            r"observations has the shape \(9, 3\), expected \(3, numbers\)",
        ),
        (put("observations", np.zeros((3, 4))), "differ in the length"),
        (put("observations", np.full((3, 3), np.nan)), "observations holds a value that is not finite"),
        (put("terminations", np.zeros(3)), r"terminations \(3,\)"),
        (put("rewards", np.array([0, 0.5])), "no infos/success, and the rewards are not binary"),
        (
            lambda g: g.create_dataset("infos/success", data=np.zeros(7)),
            r"infos/success has the shape \(7,\)",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, sentence):
    folder = write(tmp_path / "d", episode([0, 1]), episode([0, 0]))
    edit(folder, change)
    with pytest.raises(CaliperError, match=sentence):
        read_minari(folder)


def test_a_wrong_or_damaged_folder_is_refused(tmp_path):
    with pytest.raises(CaliperError, match=r"absent does not exist; name the folder"):
        read_minari(tmp_path / "absent")
    folder = write(tmp_path / "d", episode([0, 0]))
    with pytest.raises(CaliperError, match=r"main_data.hdf5 is a file; name the folder"):
        read_minari(folder / "data" / "main_data.hdf5")
    (folder / "metadata.json").write_text("{")
    with pytest.raises(CaliperError, match=r"metadata.json cannot be read"):
        read_minari(folder)
    (folder / "metadata.json").write_text(json.dumps({"data_format": "arrow"}))
    with pytest.raises(CaliperError, match="Minari's arrow format"):
        read_minari(folder)
    (folder / "metadata.json").write_text(json.dumps({"total_episodes": 2}))
    with pytest.raises(CaliperError, match=r"holds 1 episodes, metadata.json says 2"):
        read_minari(folder)
    (folder / "metadata.json").write_text("{}")
    with pytest.raises(CaliperError, match=r"no episode left: none of 1 succeeds.*task.successes_only=false"):
        read_minari(folder, successes_only=True)
    main = folder / "data" / "main_data.hdf5"
    main.write_bytes(main.read_bytes()[:300])
    with pytest.raises(CaliperError, match="damaged or not an HDF5 file"):
        read_minari(folder)
    main.unlink()
    with pytest.raises(CaliperError, match=r"has no data/main_data.hdf5"):
        read_minari(folder)


def test_data_of_another_environment_is_refused(tmp_path):
    recordings = read_minari(write(tmp_path / "d", episode([0, 0]), env_id="AntMaze_UMaze-v4"))
    recordings.check("AntMaze_UMaze-v4", 3, 2)
    with pytest.raises(CaliperError, match=r"recorded in AntMaze_UMaze-v4.* task.env_id=AntMaze_UMaze-v4"):
        recordings.check("AntMaze_Large-v4", 3, 2)
    with pytest.raises(CaliperError, match=r"observations and actions of 3 and 2 numbers, .* of 31 and 8"):
        recordings.check("AntMaze_UMaze-v4", 31, 8)


def test_a_whole_recording_and_the_rule_of_failure(tmp_path):
    """The three families' returns on one recording each, directly: what the buffer stores is these."""
    reward = ANTMAZE.apply(torch.zeros(4))
    close(ANTMAZE.returns(reward, torch.zeros(4)), [-500] * 4)
    assert ADROIT.apply(torch.tensor([0.0, 1.0])).tolist() == [-5, 5]
    assert KITCHEN.apply(torch.arange(5)).tolist() == [-4, -3, -2, -1, 0]
