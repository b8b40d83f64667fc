"""A run in each of the state benchmarks, on a dataset that the test makes: both phases, resume, refusals."""

import json

import numpy as np
import pytest
import torch

from caliper import load_run
from caliper.cli import main
from caliper.config.build import make_envs
from caliper.config.compose import compose, load
from caliper.data.formats.minari import read_minari
from caliper.errors import CaliperError
from caliper.rollout.collect_observed import collect_observed
from caliper.tools.saved_run import evaluate_run
from caliper.training import run as train_module
from caliper.training.checkpoint import load_checkpoint
from caliper.training.data import find_data, load_data
from caliper.training.interrupt import InterruptedRunError
from caliper.training.run import resume, train
from tests.caliper.config.test_bad_input import refused
from tests.caliper.training.test_resume import StopAt, assert_same_run
from tests.data.minari_files import episode, write
from tests.data.test_adroit import policy

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")
pytestmark = pytest.mark.usefixtures("no_report")

SIZES = {"antmaze": (31, 8), "kitchen": (59, 9), "adroit_door": (39, 28)}
IDS = {"antmaze": "AntMaze_UMaze-v4", "kitchen": "FrankaKitchen-v1", "adroit_door": "AdroitHandDoor-v1"}
SMALL = [
    "threads=1",
    "batch_size=8",
    "agent.actor_hidden=[16]",
    "agent.critic_hidden=[16]",
    "agent.n_actions=2",
    "agent.n_target_actions=2",
    "task.horizon=6",
    "offline.updates=3",
    "offline.eval_every=100",
    "online.env_steps=16",
    "online.num_envs=2",
    "online.warmup_steps=4",
    "online.utd=0.5",
    "online.eval_every=100",
    "online.capacity=60",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
    "evaluation.num_envs=2",
    "log.every=1",
    "log.wandb=disabled",
]


def dataset(folder, task, **kwargs):
    """Two episodes of the benchmark's shape: one solved on its last step, one not."""
    proprio, actions = SIZES[task]
    sizes = {"proprio": proprio, "actions": actions}
    rewards = {"kitchen": [[0, 1, 2, 2], [0, 0, 1, 4]]}.get(task, [[0, 0, 0, 0], [0, 0, 0, 1]])
    return write(folder / task, *(episode(r, **sizes) for r in rewards), env_id=IDS[task], **kwargs)


def words(folder, task, *more):
    data = folder / task
    return [f"preset={task.split('_')[0]}", f"task={task}", *SMALL, f"data.path={data}", *more]


FAMILIES = ["antmaze", pytest.param("kitchen", marks=pytest.mark.slow), "adroit_door"]


@pytest.mark.parametrize("task", FAMILIES)
def test_both_phases_and_a_resume(task, tmp_path, capsys, monkeypatch):
    dataset(tmp_path, task)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(compose(words(tmp_path, task, f"run_dir={whole}", "video.episodes=1", "video.size=16")))
    said = capsys.readouterr().out
    assert f"video: {whole / 'videos' / 'rollouts.mp4'}" in said
    kept = {"antmaze": (2, 8), "kitchen": (2, 8), "adroit_door": (1, 4)}[task]
    assert f"{kept[0]} episodes, {kept[1]} transitions" in said
    config = load(whole / "config.yaml", [])
    weights, state = load_checkpoint(whole)
    assert state["counters"]["online"] and state["counters"]["env_steps"] == 16
    assert all(torch.isfinite(w).all() for w in weights.values())
    # Two envs with one episode each of six steps, cut off; two steps of the next ones are open.
    assert state["online"]["terminal"].sum() == 0 and state["online"]["proprio"].shape == (14, SIZES[task][0])
    per_step = -4 if task == "kitchen" else -5
    worth = per_step * (1 - 0.99**6) / 0.01 if task == "kitchen" else -500
    assert state["online"]["reward"].tolist() == [per_step] * 12
    np.testing.assert_allclose(state["online"]["mc_return"][[0, 6]], [worth] * 2, rtol=1e-5)
    with np.load(next(whole.glob("evaluations/online_*/calibration.npz"))) as arrays:
        np.testing.assert_allclose(arrays["mc_return"][0], worth, rtol=1e-5)
    with monkeypatch.context() as patch:
        patch.setattr(StopAt, "at", 27)
        patch.setattr(train_module, "Interrupt", StopAt)
        with pytest.raises(InterruptedRunError):
            train(compose(words(tmp_path, task, f"run_dir={stopped}")))
    _, state = load_checkpoint(stopped)
    assert state["counters"]["online"] and 0 < state["counters"]["env_steps"] < 16
    assert state["env"]["actions"].shape[1] > 0  # within an episode
    resume(stopped, load(stopped / "config.yaml", []))

    class Finished:
        folder = whole

    assert_same_run(stopped, Finished)
    evaluate_run(whole, config)
    result = json.loads((whole / "evaluation.json").read_text())
    assert (result["success_once"], result["score"], result["lengths"]) == (0, 0, [6])


def test_what_cannot_be_done_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaliperError, match="task=kitchen has no expert to collect from; name a Minari"):
        collect_observed(compose(["task=kitchen", "task.env_id=FetchReach-v4"]), tmp_path / "kitchen")
    with pytest.raises(CaliperError, match="has 'hinge cabinet', for which there is no script; choose from"):
        hinge = compose(["task=kitchen", "task.kwargs.tasks_to_complete=[kettle,hinge cabinet]"])
        collect_observed(hinge, tmp_path / "kitchen")
    said = refused(capsys, "collect", "task=antmaze", "data.kind=mixed")
    assert "data.kind=mixed is no kind of data of task 'antmaze'; try fixed or diverse" in said
    said = refused(capsys, "collect", "task=kitchen", "data.kind=fixed")
    assert "data.kind=fixed is no kind of data of task 'kitchen'; try complete or partial or mixed" in said
    said = refused(capsys, "collect", "task=adroit_door", "data.kind=fixed")
    assert "data.kind=fixed is no kind of data of task 'adroit_door'; leave it out" in said
    assert "of Minari datasets a run takes one" in refused(capsys, "train", "task=antmaze", "data.path=[a,b]")
    assert "there is no camera 'side'; choose one of: showcase, track" in refused(
        capsys, "train", "task=antmaze", "video.camera=side"
    )
    assert "names none: a file of the door's human ones" in refused(capsys, "train", "task=adroit_door")
    assert "data.copies=2 is for images" in refused(
        capsys, "train", "task=antmaze", "data.copies=2", "data.appearance.light=0.1"
    )
    assert "needs images but the observations have no camera" in refused(
        capsys, "train", "task=antmaze", "encoder=conv"
    )
    assert "not in Gymnasium's registry" in refused(capsys, "train", "task=antmaze", "task.env_id=Maze-v0")
    assert "nowhere does not exist; name the folder of a Minari" in refused(
        capsys, "train", "task=antmaze", "data.path=nowhere"
    )
    dataset(tmp_path, "adroit_door")
    said = refused(capsys, "train", "task=antmaze", "data.path=adroit_door")
    assert "was recorded in AdroitHandDoor-v1, the task is AntMaze_UMaze-v4" in said
    write(tmp_path / "old", episode([0, 1], proprio=31, actions=8), env_id="AntMaze_UMaze-v3")
    said = refused(capsys, "train", "task=antmaze", "data.path=old")
    assert "was recorded in AntMaze_UMaze-v3, the task is AntMaze_UMaze-v4; choose the task of the" in said
    write(tmp_path / "no_goal", episode([0, 1], proprio=29, actions=8), env_id=IDS["antmaze"])
    said = refused(capsys, "train", "task=antmaze", "data.path=no_goal")
    assert "has observations and actions of 29 and 8 numbers, AntMaze_UMaze-v4 of 31 and 8" in said
    np.savez("pen.npz", **policy(45, 24))
    said = refused(capsys, "collect", "task=adroit_door", "data.demonstrations=pen.npz")
    assert "pen.npz has observations and actions of 45 and 24 numbers, AdroitHandDoor-v1 of 39 and 28" in said
    assert not (tmp_path / "runs").exists() and not (tmp_path / "datasets").exists()


def test_the_data_decides_what_is_dropped(tmp_path):
    dataset(tmp_path, "adroit_door")
    found = find_data(compose(words(tmp_path, "adroit_door")))
    assert (len(found.episodes), found.dropped) == (1, 1)
    with pytest.raises(CaliperError, match="the rewards are not binary"):
        (tmp_path / "b").mkdir()
        dense = write(tmp_path / "b" / "d", episode([0.5, 12.0], proprio=39, actions=28))
        find_data(compose([*words(tmp_path, "adroit_door"), f"data.path={dense}"]))


def test_another_kind_is_another_file():
    paths = {compose(["task=kitchen", f"data.kind={kind}"]).dataset_path() for kind in ("complete", "mixed")}
    assert len(paths) == 2 and all("mixed" in path or "complete" in path for path in paths)


def returns(part, dense, gamma=0.99):
    """What each step of an episode is worth, by the paper's rules: {-5, 5} or the count of tasks minus 4."""
    rewards = part.rewards.astype(np.float64) - 4 if dense else 10 * part.rewards.astype(np.float64) - 5
    if not dense and not part.terminals.any():
        return np.full(len(rewards), -5 / (1 - gamma))
    worth = np.zeros(len(rewards) + 1)
    for t in reversed(range(len(rewards))):
        worth[t] = rewards[t] + gamma * worth[t + 1]
    return worth[:-1]


OWN = {
    "antmaze": ["preset=antmaze", "data.horizon=80", "data.episodes=6", "data.num_envs=6"],
    "kitchen": ["preset=kitchen", "data.horizon=70", "data.episodes=2", "data.num_envs=2"],
    "adroit_door": [
        "preset=adroit_cpu",
        "task=adroit_door",
        "data.horizon=20",
        "data.episodes=4",
        "data.num_envs=2",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("task", OWN)
def test_a_small_file_is_made_and_trained_on(task, tmp_path, monkeypatch, capsys):
    """`caliper collect`, and `caliper train` on the file: both phases; the checkpoint goes on and acts."""
    monkeypatch.chdir(tmp_path)
    own = [*OWN[task], "data.path=made", "threads=1"]
    if task == "adroit_door":
        rng = np.random.default_rng(0)
        obs = rng.normal(0, 0.1, (24, 39))
        obs[:, 28] = ([0] * 8 + [1.4] * 4) * 2  # the hinge opens
        np.savez("human.npz", lengths=[12, 12], observations=obs, actions=rng.uniform(-1, 1, (24, 28)))
        own.append("data.demonstrations=human.npz")
        monkeypatch.setattr("caliper.rollout.collect_adroit.UPDATES", 20)
    main(["collect", *own])
    meta = json.loads((tmp_path / "made" / "data" / "metadata.json").read_text())
    assert json.loads(meta["env_spec"])["id"] == IDS[task]
    found = read_minari(tmp_path / "made", dense=task == "kitchen", successes_only=task == "adroit_door")
    if task == "adroit_door":  # two demonstrations; the clone of noise opens no door
        assert (meta["total_episodes"], found.dropped, found.num_transitions) == (6, 4, 22)
    else:
        wanted = {"antmaze": 6, "kitchen": 2}[task]
        assert len(found.episodes) == meta["total_episodes"] == wanted
        assert found.num_transitions == meta["total_steps"]
    capsys.readouterr()

    main(["train", *own, *SMALL, "run_dir=run", "video.episodes=0"])
    count = f"{len(found.episodes)} episodes, {found.num_transitions} transitions"
    assert f"dataset: made: {count}, " in capsys.readouterr().out
    run = load_run("run")
    config = run.config()
    buffer = load_data(config, find_data(config), None, make_envs(config, 1)).state_dict()
    stored = {name: buffer[name].numpy() for name in ("reward", "terminal", "mc_return")}
    expected = np.concatenate([returns(part, config.task.dense) for part in found.episodes])
    assert np.isfinite(stored["mc_return"]).all()
    np.testing.assert_allclose(stored["mc_return"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(stored["terminal"], np.concatenate([p.terminals for p in found.episodes]))
    levels = {-4, -3} if task == "kitchen" else {-5, 5}  # the microwave is open; some ants are there
    assert set(stored["reward"].tolist()) == levels

    rows = [(e.phase, e.env_steps, e.updates) for e in run.evaluations]
    assert rows == [("offline", 0, 0), ("offline", 0, 3), ("online", 16, 9)]
    assert all(0 <= e.success_once <= 1 for e in run.evaluations)
    run.resume("online.env_steps=24")
    assert run.evaluations[-1].phase == "online" and run.evaluations[-1].env_steps == 24
    action = run.policy().act(None, found.episodes[0].obs[:3])
    assert action.shape == (3, SIZES[task][1]) and (np.abs(action) <= 1).all()
    assert np.ptp(action, axis=0).max() > 0  # it looks where it is
