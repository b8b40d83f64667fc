"""`caliper convert`: what was recorded arrives in the formats of others, and their own software reads it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caliper.cli import main
from caliper.data.formats.minari import read_minari
from caliper.data.formats.robomimic import read_dataset
from caliper.tools.lerobot_writer import _Moments, _stats
from tests.own_environment import own_environment, run

DRAWN = ["--cameras", "agentview", "--size", "32", "threads=1", "data.num_envs=2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Three short episodes of lift."""
    path = tmp_path_factory.mktemp("convert") / "lift.hdf5"
    words = ["task=lift", "task.horizon=18", "data.episodes=3", "data.num_envs=3", "threads=1"]
    main(["collect", *words, f"data.path={path}"])
    return path


@pytest.fixture(scope="module")
def replayed(dataset):
    """What `caliper replay` makes of the same states: images by another way."""
    path = dataset.with_name("images.hdf5")
    main(["replay", str(dataset), *DRAWN, "--out", str(path)])
    with h5py.File(path) as file:
        demos = [file[f"data/demo_{i}/obs/agentview_image"][()] for i in range(3)]
    return demos


def refused(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1
    return said


def test_minari_holds_what_was_recorded(dataset, replayed, tmp_path):
    out = tmp_path / "out"
    main(["convert", str(dataset), str(out), "--to", "minari", *DRAWN])
    episodes = read_dataset(dataset, rewards=None).episodes
    meta = json.loads((out / "data" / "metadata.json").read_text())
    assert (meta["total_episodes"], meta["total_steps"]) == (3, sum(map(len, episodes)))
    with h5py.File(out / "data" / "main_data.hdf5") as file:
        for i, episode in enumerate(episodes):
            group, t = file[f"episode_{i}"], len(episode)
            seen = group["observations"]
            assert {name: seen[name].shape for name in seen} == {
                "agentview_image": (t + 1, 32, 32, 3),
                "robot0_eef_pos": (t + 1, 3),
                "robot0_eef_quat": (t + 1, 4),
                "robot0_gripper_qpos": (t + 1, 2),
            }
            assert (seen["agentview_image"][:t] == replayed[i]).all()
            assert (group["actions"][()] == episode.actions).all()
            assert (group["rewards"][()] == episode.rewards).all()
            assert group["terminations"][-1] == episode.terminated != group["truncations"][-1]
            assert not group["terminations"][:-1].any() and not group["truncations"][:-1].any()
            assert (group["infos/success"][1:] == (episode.rewards > 0)).all()
    numbers = out / "data" / "main_data.hdf5"
    with h5py.File(numbers, "a") as file:  # what Caliper itself reads of Minari's are vectors
        for name in file:
            del file[f"{name}/observations/agentview_image"]
    back = read_minari(out).episodes
    assert all((b.actions == e.actions).all() for b, e in zip(back, episodes, strict=True))
    assert back[0].obs.shape == (len(episodes[0]) + 1, 9)


def test_poses_take_the_place_of_images(dataset, tmp_path):
    out = tmp_path / "out"
    main(["convert", str(dataset), str(out), "--to", "minari", "task.obs=state", "threads=1"])
    with h5py.File(out / "data" / "main_data.hdf5") as file:
        seen = {name: part.shape[1:] for name, part in file["episode_0/observations"].items()}
    robot = {"robot0_eef_pos": (3,), "robot0_eef_quat": (4,), "robot0_gripper_qpos": (2,)}
    assert seen == robot | {"environment_state": (12,)}


@pytest.mark.slow
def test_the_real_minari_reads_it(dataset, replayed, tmp_path):
    out = tmp_path / "out"
    main(["convert", str(dataset), str(out), "--to", "minari", *DRAWN])
    python = own_environment(tmp_path / "env", "minari[hdf5]>=0.5.4")
    said = json.loads(run(python, "tests/minari_reads.py", str(out)).splitlines()[-1])
    episodes = read_dataset(dataset, rewards=None).episodes
    assert said["fits"] and said["id"] == "caliper/lift-v0" and said["steps"] == sum(map(len, episodes))
    assert said["actions"] == [e.actions.tolist() for e in episodes]
    assert said["rewards"] == [e.rewards.tolist() for e in episodes]
    assert said["ends"] == [[e.terminated, not e.terminated] for e in episodes]
    assert said["shapes"]["agentview_image"] == [len(episodes[0]) + 1, 32, 32, 3]
    # The last frame is not in the file of images: it is what the last action led to.
    assert all(a > int(b.sum()) for a, b in zip(said["images"], replayed, strict=True))


@pytest.mark.slow
def test_the_real_lerobot_reads_it(dataset, replayed, tmp_path):
    """LeRobot wants an older torch; its dataset runs with ours, so it comes without what it asks for."""
    python = own_environment(
        tmp_path / "env", "datasets>=4", "av", "jsonlines", "draccus", "deepdiff", "pyarrow"
    )
    own_environment(tmp_path / "env", "--no-deps", "lerobot==0.4.4", "accelerate")
    out, images = tmp_path / "out", tmp_path / "images.pt"
    run(python, "-m", "caliper", "convert", str(dataset), str(out), "--to", "lerobot", *DRAWN)
    said = json.loads(run(python, "tests/lerobot_reads.py", str(out), str(images)).splitlines()[-1])
    data = read_dataset(dataset, rewards=None)
    lengths = [len(e) for e in data.episodes]
    assert said["frames"] == sum(lengths) and said["lengths"] == lengths
    assert said["fps"] == data.meta.control_freq and said["task"].startswith("Solved when the cube")
    assert said["action"] == [a for e in data.episodes for a in e.actions.tolist()]
    ends = np.cumsum(lengths) - 1
    assert [i for i, done in enumerate(said["done"]) if done] == ends.tolist()
    assert said["success"] == [bool(r > 0) for e in data.episodes for r in e.rewards]
    state = np.array(said["state"])
    assert state.shape == (sum(lengths), 9)
    assert np.allclose(said["mean"]["observation.state"], state.mean(0), atol=1e-5)
    # H.264 and its coarser colours lose a little; a frame of another step is farther off.
    seen = torch.load(images)["observation.images.agentview"].permute(0, 2, 3, 1).numpy() * 255
    drawn = np.concatenate(replayed).astype(np.float32)
    assert seen.shape == drawn.shape and np.abs(seen - drawn).mean() < 6
    still = np.abs(np.roll(seen, 1, 0) - drawn).mean((1, 2, 3))
    assert (np.abs(seen - drawn).mean((1, 2, 3)) <= still + 0.5).mean() > 0.9
    assert np.allclose(said["mean"]["observation.images.agentview"], drawn.mean((0, 1, 2)) / 255, atol=1e-6)
    assert said["batch"]["action"] == [8, data.meta.action_dim]
    assert said["batch"]["observation.images.agentview"] == [8, 3, 32, 32]


def test_statistics_by_hand():
    assert _stats(np.array([[0.0, 1.0], [2.0, 1.0]]))["std"] == [1.0, 0.0]
    images = np.zeros((2, 1, 2, 3), np.uint8)
    images[1, 0, :, 0] = 255
    moments = _Moments()
    moments.add(images[:1])
    moments.add(images[1:])
    said = moments.stats()
    assert said["count"] == [2] and np.ravel(said["mean"]).tolist() == [0.5, 0, 0]
    assert np.ravel(said["std"]).tolist() == [0.5, 0, 0] and np.ravel(said["max"]).tolist() == [1, 0, 0]
    assert np.ravel(said["q50"]).tolist() == [0, 0, 0] and np.ravel(said["q90"]).tolist() == [1, 0, 0]


def test_mistakes_are_named(dataset, tmp_path, capsys, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thing").touch()
    out = str(tmp_path / "out")
    assert "invalid choice: 'rlds'" in refused(capsys, "convert", str(dataset), out, "--to", "rlds")
    assert "--to" in refused(capsys, "convert", str(dataset), out)
    words = ["--to", "minari", *DRAWN]
    assert "not an empty folder" in refused(capsys, "convert", str(dataset), str(full), *words)
    assert "no camera 'side'" in refused(
        capsys, "convert", str(dataset), out, "--to", "minari", "--cameras", "side"
    )
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pip install 'caliper-rl[lerobot]'" in refused(
        capsys, "convert", str(dataset), out, "--to", "lerobot", *DRAWN
    )
    assert not Path(out).exists()
