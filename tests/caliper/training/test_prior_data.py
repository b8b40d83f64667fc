"""Prior data: collected where it is absent, from its own start and stage, and trained on with the task's."""

import contextlib
import io
import shlex

import pytest
import torch

from caliper.config.build import make_env
from caliper.config.compose import collect_command, compose
from caliper.config.validate import check
from caliper.data.formats.robomimic import read_dataset
from caliper.errors import CaliperError
from caliper.rollout.collect import collect
from caliper.training.data import find_data, load_data
from caliper.training.run import train
from tests.caliper.conftest import WORDS

COVERED = [*[w for w in WORDS if not w.startswith(("task=", "task.horizon"))], "task=pick_covered"]
COVERED += ["task.horizon=45", "data.mixture=[[1.0,0.0,0.0]]", "data.episodes=2", "data.start=open"]
PRIOR = ["data.prior.episodes=3", "data.prior.start=closed", "data.prior.stage=open"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two episodes of the second stage alone and three of the first."""
    folder = tmp_path_factory.mktemp("covered")
    config = compose([*COVERED, *PRIOR])
    return collect(config, folder / "task.hdf5"), collect(config.prior, folder / "prior.hdf5")


def lid(states):
    return states[..., 1 + 9 + 7]  # time, arm and fingers, the cube's pose


def test_each_holds_its_stage(recorded):
    task, prior = (read_dataset(path) for path in recorded)
    assert task.meta.collector == "scripted expert" and prior.meta.collector == "scripted expert until open"
    for episode in task.episodes:
        assert episode.success and lid(episode.states[0]) > 0.1
    for episode in prior.episodes:
        assert not episode.terminated and not episode.rewards.any() and len(episode) < 45
        assert lid(episode.states[0]) == 0 and lid(episode.final_state) > 0.1
    assert not {e.seed for e in task.episodes} & {e.seed for e in prior.episodes}


def test_a_stage_ends_the_same_whatever_the_number_of_envs(recorded, tmp_path):
    one = collect(compose([*COVERED, *PRIOR, "data.num_envs=1"]).prior, tmp_path / "one.hdf5")
    for a, b in zip(read_dataset(recorded[1]).episodes, read_dataset(one).episodes, strict=True):
        assert (a.states.tobytes(), a.actions.tobytes()) == (b.states.tobytes(), b.actions.tobytes())


def test_the_prior_is_a_dataset_of_its_own():
    config = compose([*COVERED, *PRIOR])
    assert compose(COVERED).prior is None
    assert config.dataset_path() == compose(COVERED).dataset_path()
    assert "_from_open_2_seed0" in config.dataset_path()
    assert "_from_closed_until_open_3_seed1" in config.prior.dataset_path()
    assert config.prior.prior is None and config.prior.data.mixture == config.data.mixture
    words = shlex.split(collect_command(config.prior))[2:]
    assert compose(words).dataset_path() == config.prior.dataset_path()
    given = compose([*COVERED, "data.path=a.hdf5", "data.prior.path=b.hdf5"])
    assert (given.dataset_path(), given.prior.dataset_path()) == ("a.hdf5", "b.hdf5")
    assert compose([*COVERED, *PRIOR, "data.path=a.hdf5"]).prior.data.path is None


def test_both_enter_one_buffer(recorded):
    words = [*COVERED, f"data.path={recorded[0]}", f"data.prior.path={recorded[1]}"]
    config = compose(words)
    task, prior = find_data(config), find_data(config.prior)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        buffer = load_data(config, task, prior, make_env(config, 2))
    assert "dataset: " in printed.getvalue() and "prior data: " in printed.getvalue()
    assert len(buffer) == task.num_transitions + prior.num_transitions
    returns = buffer.state_dict()["mc_return"]
    assert torch.equal(returns.isinf(), torch.arange(len(buffer)) >= task.num_transitions)
    assert (
        int((buffer.state_dict()["reward"] > 0).sum())
        == int((buffer.state_dict()["terminal"] > 0).sum())
        == 2
    )


def test_a_run_collects_what_it_lacks(tmp_path, monkeypatch, capsys, no_report):
    monkeypatch.chdir(tmp_path)
    words = ["task.horizon=3", "agent.actor_hidden=[16]", "agent.critic_hidden=[16]", "agent.n_actions=2"]
    config = compose([*COVERED, *PRIOR, *words, "agent.n_target_actions=2", "run_dir=run"])
    train(config)
    said = capsys.readouterr().out
    assert said.count("collecting it, as does: caliper collect task=pick_covered") == 2
    assert "data.start=closed" in said and "data.stage=open" in said
    assert len(list((tmp_path / "datasets").glob("*.hdf5"))) == 2


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "task.start=ajar",
            "task.start=ajar: task 'pick_covered' has no such start; choose one of: closed, open",
        ),
        ("data.prior.start=ajar", "data.prior.start=ajar: .*closed, open"),
        ("data.stage=lift", "data.stage=lift: task 'pick_covered' has no such stage; choose one of: open"),
        ("data.prior.mixture=[[1.0]]", r"data.prior.mixture=\[\[1.0\]\] must be rows of"),
        ("data.prior.horizon=0", "data.prior.horizon=0 makes no sense"),
        ("data.prior.seed=-1", "data.prior.seed=-1 makes no sense"),
    ],
)
def test_mistakes(word, says):
    with pytest.raises(CaliperError, match=says):
        check(compose([*COVERED, *PRIOR, word]))


def test_a_task_with_one_start_says_so():
    with pytest.raises(
        CaliperError, match="task 'lift' has no such start; it has one start, so leave it out"
    ):
        check(compose([*WORDS, "data.start=open"]))
