"""The verb `caliper replay`, and the copies of other appearance that a run's offline buffer takes."""

import json
import shutil
from collections import namedtuple

import gymnasium
import h5py
import numpy as np
import pytest
import torch

from caliper.cli import main
from caliper.config.build import make_env
from caliper.config.compose import collect_command, compose
from caliper.config.validate import check
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.observation.names import ROBOSUITE
from caliper.errors import CaliperError
from caliper.tools import replay as replay_module
from caliper.training.data import find_data, load_data
from tests.data.test_robomimic import unseal
from tests.own_environment import own_environment, run

APPEARANCES = ["data.appearance.light=0.3", "data.appearance.colour=0.2", "data.appearance.shift=0.02"]


def replayed(dataset, out, *words):
    main(["replay", str(dataset), "--out", str(out), "--size", "16", "threads=1", *words])
    return out


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["replay", *map(str, words)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.fixture(scope="module")
def images(dataset, tmp_path_factory):
    """The dataset with images from two cameras."""
    return replayed(
        dataset, tmp_path_factory.mktemp("images") / "new.hdf5", "--cameras", "agentview", "frontview"
    )


def test_the_source_is_there_whole_with_images_beside_it(dataset, images):
    with h5py.File(dataset) as old, h5py.File(images) as new:
        names = []
        old.visit(names.append)
        for name in names:
            for key, value in old[name].attrs.items():
                assert new[name].attrs[key] == value
            if isinstance(old[name], h5py.Dataset):
                assert np.array_equal(old[name], new[name])
        attributes = new["data"].attrs
        assert list(attributes["cameras"]) == ["agentview", "frontview"] and attributes["image_size"] == 16
        assert json.loads(attributes["appearance"])["light"] == 0
        for demo in new["data"].values():
            for camera in ("agentview", "frontview"):
                obs = demo[f"obs/{camera}_image"]
                assert (obs.shape, obs.dtype, obs.chunks) == ((6, 16, 16, 3), np.uint8, (1, 16, 16, 3))
                following = demo[f"next_obs/{camera}_image"]
                assert np.array_equal(following[:5], obs[1:])
                assert np.array_equal(following[5], demo[f"final_obs/{camera}_image"])


@pytest.mark.parametrize("sim", ["batch", "warp"])
def test_images_are_those_of_the_live_episode(sim, words, tmp_path):
    """An episode is drawn while it runs, its states stored, and the file of them rendered."""
    from caliper.config.build import dataset_meta
    from caliper.data.dataset import Episode
    from caliper.data.formats.robomimic import DatasetWriter

    config = compose([*words(), f"sim={sim}", "sim.device=cpu"])
    env = make_env(config, 2)
    obs = env.reset(seeds=torch.tensor([5, 6]))
    states, seen = [env.get_state()], [obs.pixels]
    actions = 2 * torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)) - 1
    for action in actions:
        seen.append(env.step(action).final_obs.pixels)
        states.append(env.final_state)
    whole = torch.stack(states).numpy()  # (t + 1, n, s)
    with DatasetWriter(tmp_path / "a.hdf5", dataset_meta(config)) as writer:
        for i in range(2):
            zeros = np.zeros(3, np.float32)
            writer.add(Episode(whole[:3, i], whole[3, i], actions[:, i].numpy(), zeros, False, False, i, 0.0))
    settings = [f"sim={sim}", "sim.device=cpu", "data.num_envs=3"]
    made = replayed(tmp_path / "a.hdf5", tmp_path / "b.hdf5", *settings)
    live = torch.stack(seen).permute(1, 2, 0, 4, 5, 3).numpy()  # (n, v, t + 1, h, w, c)
    with h5py.File(made) as file:
        for i in range(2):
            for v, camera in enumerate(env.spec.cameras):
                demo = file[f"data/demo_{i}"]
                assert np.array_equal(demo[f"obs/{camera}_image"], live[i, v, :3])
                assert np.array_equal(demo[f"final_obs/{camera}_image"], live[i, v, 3])


def test_the_file_is_a_dataset_like_its_source(dataset, images, capsys):
    main(["inspect", str(images)])
    assert "yes, the installed scene" in capsys.readouterr().out
    for a, b in zip(read_dataset(dataset).episodes, read_dataset(images).episodes, strict=True):
        assert np.array_equal(a.states, b.states) and np.array_equal(a.actions, b.actions)


def test_says_what_it_made_and_names_it_after_the_source(dataset, tmp_path, capsys):
    source = tmp_path / "some.hdf5"
    shutil.copy(dataset, source)
    main(["replay", str(source), "--cameras", "agentview", "threads=1", "--size", "16"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("28 images of 16x16 pixels, ") and said[1] == str(tmp_path / "some_16px.hdf5")
    with h5py.File(said[1]) as file:
        assert sorted(file["data/demo_0/obs"]) == ["agentview_image", *sorted(ROBOSUITE)]


def test_states_become_the_numbers_that_the_env_gives(dataset, images, tmp_path):
    """Under robomimic's names, of the robot always and of the bodies with obs=state; twice is no mistake."""
    out = tmp_path / "state.hdf5"
    main(["replay", str(dataset), "--out", str(out), "task.obs=state", "threads=1"])
    env = gymnasium.make("caliper/Lift-v0", obs="state", names="robomimic").unwrapped
    with h5py.File(out) as file, h5py.File(images) as other:
        assert "cameras" not in file["data"].attrs
        for name, demo in file["data"].items():
            seen = {key: demo[f"obs/{key}"][()] for key in demo["obs"]}
            assert set(seen) == set(env.observation_space) == {*ROBOSUITE, "environment_state"}
            t = len(demo["actions"])
            for i in range(t):
                env._sim.set_state(torch.tensor(demo["states"][i])[None])
                for key, value in env._named(env._env.observe()).items():
                    assert np.allclose(seen[key][i], value[0], atol=1e-6), key
            for key, array in seen.items():
                following = demo[f"next_obs/{key}"][()]
                assert array.dtype == following.dtype == np.float32 and len(array) == t
                assert np.array_equal(following[:-1], array[1:])
                assert np.array_equal(following[-1], demo[f"final_obs/{key}"])
                if key in ROBOSUITE:
                    assert np.array_equal(other[f"data/{name}/obs/{key}"], array)
    both = replayed(images, tmp_path / "both.hdf5", "--cameras", "birdview")
    with h5py.File(both) as file:
        assert {"agentview_image", "birdview_image", *ROBOSUITE} <= set(file["data/demo_0/obs"])


def test_ranges_give_each_episode_an_appearance(dataset, images, tmp_path):
    words = ["--cameras", "agentview", *APPEARANCES]
    first = replayed(dataset, tmp_path / "first.hdf5", *words)
    other = replayed(dataset, tmp_path / "other.hdf5", *words, "data.seed=1")
    again = replayed(dataset, tmp_path / "again.hdf5", *words, "data.num_envs=3")
    with h5py.File(images) as a, h5py.File(first) as b, h5py.File(other) as c, h5py.File(again) as d:
        assert json.loads(c["data"].attrs["appearance"]) == {
            "shift": 0.02, "turn": 0, "light": 0.3, "colour": 0.2, "dim": 0, "seed": 1
        }  # fmt: skip
        for i in range(4):
            name = f"data/demo_{i}/obs/agentview_image"
            assert np.array_equal(b[name], d[name])
            for x, y in ((a, b), (b, c), (a, c)):
                assert not np.array_equal(x[name], y[name])


def test_an_episode_without_its_final_state_repeats_the_last_image(dataset, tmp_path):
    source = tmp_path / "old.hdf5"
    shutil.copy(dataset, source)
    with h5py.File(source, "r+") as file:
        del file["data/demo_0/final_state"]
        unseal(file)
    with h5py.File(replayed(source, tmp_path / "new.hdf5", "--cameras", "agentview")) as file:
        demo = file["data/demo_0"]
        assert len(demo["obs/agentview_image"]) == len(demo["actions"]) == 6
        assert np.array_equal(demo["final_obs/agentview_image"], demo["obs/agentview_image"][5])


def test_what_will_not_do(dataset, images, tmp_path, capsys, monkeypatch):
    out = tmp_path / "new.hdf5"
    assert "choose one of: frontview, birdview" in refusal(capsys, dataset, "--cameras", "moon")
    assert "'agentview' is named twice" in refusal(capsys, dataset, "--cameras", "agentview", "agentview")
    assert "must name at least one camera" in refusal(capsys, dataset, "task.cameras=[]")
    assert "task.size=big does not fit" in refusal(capsys, dataset, "--size", "big")
    assert "choose another name" in refusal(capsys, dataset, "--out", dataset)
    assert "already holds images from frontview" in refusal(capsys, images, "--cameras", "frontview")
    assert "the following arguments are required: FILE" in refusal(capsys)
    assert "unrecognized arguments: --format" in refusal(capsys, dataset, "--format")
    assert "does not exist; name a file" in refusal(capsys, tmp_path / "none.hdf5")
    assert f"{images} is there already; name another" in refusal(capsys, dataset, "--out", images)
    other = tmp_path / "other.hdf5"
    shutil.copy(dataset, other)
    with h5py.File(other, "r+") as file:
        file["data"].attrs["scene_hash"] = "0123456789abcdef"
        unseal(file)
    assert "does not fit: scene_hash is '0123456789abcdef'" in refusal(capsys, other, "--out", out)
    other.unlink()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(replay_module.shutil, "disk_usage", lambda _: usage(10, 0, 3 << 20))
    said = refusal(capsys, dataset, "--size", "512", "--out", out)
    assert "may take 42 MiB" in said and "has 3 MiB left" in said
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replay_leaves_the_earlier_file(dataset, tmp_path, monkeypatch):
    out = replayed(dataset, tmp_path / "new.hdf5")
    before = out.read_bytes()

    def interrupted(*_):
        yield {"agentview_image": np.zeros((7, 16, 16, 3), np.uint8)}
        raise KeyboardInterrupt

    monkeypatch.setattr(replay_module, "_observed", interrupted)
    with pytest.raises(SystemExit):
        replayed(dataset, out, "--overwrite")
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


@pytest.fixture(scope="module")
def buffers(configure):
    """The offline buffer of a run: as recorded, and with two more copies drawn in 2 and in 5 envs."""

    def load(*words, num_envs=2):
        config = configure(*words)
        env = make_env(config, num_envs)
        return load_data(config, find_data(config), None, env).state_dict(), env

    copies = ["data.copies=3", *APPEARANCES]
    return load(), load(*copies), load(*copies, num_envs=5)


def test_copies_differ_in_pixels_alone(buffers, dataset):
    (plain, _), (many, env), _ = buffers
    for name, column in plain.items():
        parts = many[name].chunk(3)
        assert torch.equal(parts[0], column)
        for part in parts[1:]:
            assert torch.equal(part, column) == (name != "pixels")
    first, second = many["pixels"].chunk(3)[1:]
    assert not torch.equal(first, second)
    env.set_state(torch.as_tensor(read_dataset(dataset).episodes[0].states[:2]))
    assert torch.equal(env.observe().pixels, plain["pixels"][:2])  # the environment goes on to evaluate


def test_appearances_do_not_depend_on_the_number_of_envs(buffers):
    _, (two, _), (five, _) = buffers
    for name, column in two.items():
        assert torch.equal(column, five[name])


def test_the_copies_are_counted(configure, capsys):
    for words, said in ((), "28 frames"), (["data.copies=3", *APPEARANCES], "3 copies, "):
        config = configure("task.size=64", *words)
        load_data(config, find_data(config), None, make_env(config, 4))
        out = capsys.readouterr().out
        assert ("copies" in out) == bool(words) and (not words or said in out)
        assert f"{2 if words else 1} MiB" in out  # 28 frames of 24 KiB, and three times that


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["data.copies=2"], "belong together"),
        (["data.appearance.light=0.1"], "belong together"),
        (["data.copies=0"], "data.copies=0 makes no sense; it must be at least 1"),
        (["data.copies=2", "data.appearance.turn=-1"], "data.appearance.turn=-1.0 makes no sense"),
        (["data.copies=2", "data.appearance.colour=1"], "it must be at least 0, below 1"),
        (["data.copies=5000", "data.appearance.light=0.1"], "must stay below 4096"),
    ],
)
def test_settings_without_sense_are_refused(configure, more, said):
    with pytest.raises(CaliperError, match=said):
        check(configure(*more))


def test_copies_are_no_matter_of_collecting(configure):
    plain, many = configure(), configure("data.copies=3", *APPEARANCES)
    assert collect_command(plain) == collect_command(many)
    assert plain.dataset_path() == many.dataset_path()


@pytest.mark.slow
def test_the_real_robomimic_reads_the_images_and_clones_the_actions(tmp_path):
    # robosuite, which robomimic would draw with OpenGL, is not asked: --no-deps leaves egl_probe out too.
    python = own_environment(
        tmp_path / "env", "--no-deps", "robomimic==0.3.0", "six", "psutil", "tensorboardX"
    )
    recorded, images = tmp_path / "lift.hdf5", tmp_path / "lift_64px.hdf5"
    main(["collect", "task=lift", "data.episodes=4", f"data.path={recorded}", "threads=1"])
    main(["replay", str(recorded), "--cameras", "agentview", "--size", "64", "--out", str(images)])
    said = json.loads(run(python, "tests/robomimic_bc.py", str(images), "agentview", "20").splitlines()[-1])
    assert said["transitions"] == said["total"] == read_dataset(recorded).num_transitions
    assert said["ac_dim"] == 4 and said["obs"] == said["next_obs"] == [16, 1, 64, 64, 3]
    assert said["follows"] and said["losses"][1] < said["losses"][0]
