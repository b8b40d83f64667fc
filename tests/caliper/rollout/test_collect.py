"""Collection: who acts, from which seeds, and that a file is whole or absent."""

import numpy as np
import pytest

from caliper.config.build import COLLECT_SEEDS, dataset_meta
from caliper.config.compose import compose
from caliper.config.validate import check_task
from caliper.data.formats.robomimic import read_dataset
from caliper.envs.engines.batch import BatchEngine
from caliper.errors import CaliperError
from caliper.rollout import collect as collect_module
from caliper.rollout.collect import collect
from tests.caliper.conftest import WORDS


def read(path):
    return read_dataset(path).episodes


def test_what_is_recorded(dataset):
    whole = read_dataset(dataset)
    whole.check(dataset_meta(compose(WORDS)))
    assert [len(e) for e in whole.episodes] == [6] * 4
    assert [e.seed - COLLECT_SEEDS for e in whole.episodes] == [0, 1, 2, 3]
    for e in whole.episodes:
        np.testing.assert_allclose(e.states[:, 0], np.arange(6) / 10)  # seconds at 10 Hz
        assert not e.success and not e.terminated and not e.rewards.any()


def test_the_number_of_envs_changes_nothing(dataset, tmp_path):
    other = collect(compose([*WORDS, "data.num_envs=3"]), tmp_path / "other.hdf5")
    for a, b in zip(read(dataset), read(other), strict=True):
        assert (a.seed, a.noise) == (b.seed, b.noise)
        assert np.array_equal(a.states, b.states) and np.array_equal(a.actions, b.actions)


def test_an_episode_that_blew_up_is_left_out(tmp_path, monkeypatch, capsys):
    advance, steps = BatchEngine.advance, []

    def blow_up(engine, substeps):
        advance(engine, substeps)
        steps.append(None)
        if len(steps) == 2:  # of the second env's first episode
            engine.qvel[1, 0] = np.nan

    monkeypatch.setattr(BatchEngine, "advance", blow_up)
    path = collect(compose([*WORDS, "data.num_envs=2", "sim.max_diverged=0.01"]), tmp_path / "three.hdf5")
    assert [e.seed - COLLECT_SEEDS for e in read(path)] == [0, 2, 3]
    assert all(np.isfinite(e.states).all() for e in read(path))
    assert (
        f"the episode of seed {COLLECT_SEEDS + 1} is left out: its physics blew up" in capsys.readouterr().out
    )


def test_success_ends_an_episode(tmp_path):
    words = [*WORDS, "task.horizon=40", "data.mixture=[[1.0,0.0,0.0]]", "data.episodes=2"]
    for episode in read(collect(compose(words), tmp_path / "lift.hdf5")):
        assert episode.success and episode.terminated and len(episode) < 40
        assert episode.rewards[-1] == 1 and episode.rewards.sum() == 1
        assert episode.noise == 0


def test_episodes_are_drawn_from_the_mixture(tmp_path):
    words = [*WORDS, "task.horizon=1", "data.num_envs=20", "data.episodes=20"]
    mixture = "data.mixture=[[1.0,0.25,0.0],[3.0,0.75,0.01],[0.0,9.0,0.0]]"
    seeds = {}
    for seed in (0, 1):
        found = read(collect(compose([*words, mixture, f"data.seed={seed}"]), tmp_path / f"{seed}.hdf5"))
        noise = [e.noise for e in found]
        assert set(noise) == {0.25, 0.75} and 10 <= noise.count(0.75) <= 19
        seeds[seed] = {e.seed for e in found}
    assert not seeds[0] & seeds[1]


def test_episodes_may_be_recorded_for_longer_than_the_task_lasts(tmp_path):
    config = compose([*WORDS, "data.horizon=8", "data.episodes=2"])
    found = read_dataset(collect(config, tmp_path / "long.hdf5"))
    assert [len(e) for e in found.episodes] == [8, 8] and found.meta.horizon == 8
    assert "_8steps_" in config.dataset_path()


def test_another_mixture_is_another_file():
    usual, other = compose(WORDS), compose([*WORDS, "data.mixture=[[1.0,0.0,0.0]]"])
    common = "datasets/lift_osc_position_10hz_6steps_4_seed0_mix"
    assert usual.dataset_path().startswith(common) and other.dataset_path().startswith(common)
    assert usual.dataset_path() != other.dataset_path()


def test_a_person_may_be_recorded_instead_of_the_script(tmp_path):
    usual, other = compose(WORDS), compose([*WORDS, "data.operator=person"])
    assert "_by_person_4_seed0_mix" in other.dataset_path() and "_by_" not in usual.dataset_path()
    script, person = (read_dataset(collect(c, tmp_path / f"{i}.hdf5")) for i, c in enumerate((usual, other)))
    assert (script.meta.collector, person.meta.collector) == ("scripted expert", "scripted person")
    assert not np.array_equal(script.episodes[0].actions, person.episodes[0].actions)
    with pytest.raises(CaliperError, match=r"data\.operator is for Caliper's own tasks"):
        check_task(compose(["task=adroit_door", "data.operator=person"]))


def test_an_interrupted_collection_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = collect(compose(WORDS), tmp_path / "lift.hdf5")
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(collect_module, "_episode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect(compose(WORDS), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
