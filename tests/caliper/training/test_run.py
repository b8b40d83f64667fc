"""`caliper train`: what it leaves behind, and that it did what its configuration says."""

import csv
import json

import numpy as np
import pytest
import torch

from caliper.agents import AGENTS
from caliper.agents.probe import PROBED
from caliper.data.formats.robomimic import read_dataset
from caliper.data.mixing import MixedSampler
from caliper.training import trainer
from caliper.training.checkpoint import load_checkpoint
from caliper.training.run import train

pytestmark = pytest.mark.usefixtures("no_report")


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def evaluations(folder):
    paths = sorted(folder.glob("evaluations/*/evaluation.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_everything_is_in_the_run_folder(finished):
    names = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "git.json", "metrics.csv", "report.html", "videos/rollouts.mp4"} <= names
    assert {"checkpoints/latest", "plots/learning_curve.png", "plots/calibration.png"} <= names
    assert not [name for name in names if "partial" in name]
    video = (finished.folder / "videos" / "rollouts.mp4").read_bytes()
    assert b"ftyp" in video[:16] and b"avc1" in video
    page = (finished.folder / "report.html").read_text()
    assert "data:video/mp4" in page and "data:image/png" in page


def test_the_run_folder_is_printed_first_and_last(finished):
    lines = finished.printed.splitlines()
    assert lines[0] == lines[-1] == f"run folder: {finished.folder}"


def test_each_evaluation_is_one_file(finished):
    found = evaluations(finished.folder)
    when = [(e["phase"], e["env_steps"], e["updates"]) for e in found.values()]
    updates = [6 + int(0.75 * steps) for steps in (12 - 6, 24 - 6, 28 - 6)]
    offline = [("offline", 0, 0), ("offline", 0, 3), ("offline", 0, 6)]
    online = [("online", steps, n) for steps, n in zip((12, 24, 28), updates, strict=True)]
    assert when == offline + online
    last = ["offline_00000000_00000006", f"online_00000028_{updates[2]:08d}"]
    assert [found[name]["episodes"] for name in last] == [3, 3]
    assert all(e["episodes"] == 2 for name, e in found.items() if name not in last)
    for name, e in found.items():
        assert e["success_once"] == np.mean(e["episode_success"])
        assert e["interval"][0] <= e["success_once"] <= e["interval"][1]
        assert len(e["seeds"]) == len(e["lengths"]) == e["episodes"]
        with np.load(finished.folder / "evaluations" / name / "calibration.npz") as arrays:
            steps = sum(e["lengths"])
            names = {"mc_return", "time_to_go", "episode", *PROBED}
            assert {k: v.shape for k, v in arrays.items() if k != "features"} == dict.fromkeys(
                names, (steps,)
            )
            assert arrays["features"].shape[0] == 128
            assert np.isfinite(arrays["q"]).all()


def test_metrics_have_a_row_for_every_step(finished):
    table = rows(finished.folder)
    assert [r["bc_updates"] for r in table if r["bc_updates"]] == ["1", "2", "3", "4"]
    updates = [int(r["updates"]) for r in table if r["critic/td_loss"]]
    assert updates == list(range(1, len(updates) + 1))
    assert len([r for r in table if r["evaluation/success"]]) == len(evaluations(finished.folder))


def test_only_whole_episodes_are_in_the_online_buffer(finished):
    _, state = load_checkpoint(finished.folder)
    assert state["online"]["episodes"].tolist() == 4 * [[7, 6]]  # 14 steps of 2 envs
    assert state["open_episodes"]["length"].tolist() == [2, 2]
    assert len(state["online"]["pixels"]) == 28


def test_seeds_never_meet(finished):
    evaluated = {seed for e in evaluations(finished.folder).values() for seed in e["seeds"]}
    collected = {e.seed for e in read_dataset(finished.config.dataset_path()).episodes}
    _, state = load_checkpoint(finished.folder)
    played = set(state["env"]["seeds"].tolist())
    assert len(evaluated) == 3 and len(collected) == 4 and len(played) == 2
    assert max(evaluated) < min(collected) and max(collected) < min(played)


@pytest.mark.parametrize("utd", [0.5, 2.0])
def test_updates_per_environment_step(utd, configure, tmp_path, monkeypatch):
    splits = []
    sample = MixedSampler.sample

    def spy(self, b, generator):
        splits.append((len(self.online) > 0, self.split(b)))
        return sample(self, b, generator)

    monkeypatch.setattr(MixedSampler, "sample", spy)
    quick = ["offline.bc_updates=0", "offline.updates=0", "evaluation.final_episodes=1"]
    train(configure(f"run_dir={tmp_path / 'run'}", f"online.utd={utd}", *quick))
    online = [r for r in rows(tmp_path / "run") if r["phase"] == "online" and r["critic/td_loss"]]
    assert len(online) == len(splits) == int(utd * (28 - 6))
    steps = np.array([int(r["env_steps"]) for r in online])
    assert steps.min() > 6  # warm-up: none before
    counted = np.bincount(steps)[8::2]  # two envs step at a time
    assert (counted == 2 * utd).all()
    # Half of each batch is recorded, half is fresh, from the first finished episode on.
    assert {s for fresh, s in splits if fresh} == {(4, 4)}
    assert {s for fresh, s in splits if not fresh} <= {(8, 0)}


@pytest.mark.parametrize(
    ("usual", "given", "first"),
    [(4, [], 14), (4, ["online.stagger=true"], 6), (16, [], 18), (500, [], None)],
)
def test_the_first_update_waits_for_a_round_of_episodes(
    usual, given, first, configure, tmp_path, monkeypatch, capsys
):
    """Two envs make six control steps each; until then only those episodes have ended that succeed."""
    monkeypatch.setattr(trainer, "USUAL_WARM_UP", usual)
    quick = ["offline.bc_updates=0", "offline.updates=0", "evaluation.final_episodes=1", "online.utd=1"]
    train(configure(f"run_dir={tmp_path / 'run'}", "online.warmup_steps=null", *quick, *given))
    steps = [int(r["env_steps"]) for r in rows(tmp_path / "run") if r.get("critic/td_loss")]
    assert min(steps, default=None) == first
    said = "online.env_steps=28 end before the first online update, which waits for 500"
    assert (said in capsys.readouterr().out) == (first is None)


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_every_agent_runs_through_both_phases(agent, configure, tmp_path):
    folder = tmp_path / "run"
    quick = [
        "offline.updates=2",
        "online.env_steps=8",
        "evaluation.final_episodes=1",
        "evaluation.episodes=1",
    ]
    config = configure(f"run_dir={folder}", *quick, agent=agent)
    train(config)
    weights, state = load_checkpoint(folder)
    assert state["counters"]["online"] and state["counters"]["env_steps"] == 8
    assert all(torch.isfinite(w).all() for w in weights.values())
    has_critic = AGENTS[agent][0].has_critic
    assert bool(list(folder.glob("evaluations/*/calibration.npz"))) == has_critic


def test_a_checkpoint_is_saved_every_few_minutes(configure, tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 61))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
    folder = tmp_path / "run"
    quick = [
        "offline.updates=2",
        "online.env_steps=2",
        "evaluation.final_episodes=1",
        "evaluation.episodes=1",
    ]
    train(configure(f"run_dir={folder}", "log.checkpoint_minutes=1", "offline.bc_updates=0", *quick))
    # At the start, before each of the two updates and the one step, at the switch and at the end.
    assert (folder / "checkpoints" / "latest").read_text().strip() == "000006"
