"""What becomes infinite, or no number, stops a run with one sentence; the last good checkpoint is kept."""

import math

import numpy as np
import pytest
import torch

from caliper.config.compose import compose, load
from caliper.data.returns import RewardConfig
from caliper.training.checkpoint import load_checkpoint
from caliper.training.finite import (
    FiniteWatch,
    NotFiniteError,
    Trouble,
    far_outside,
    likely_cause,
    unsound_weights,
)
from caliper.training.run import resume, train
from caliper.training.update import WARM_UPS, EagerLearner
from caliper.utils.history import read_history
from tests.caliper.training.updates import TapedLearner, make


def info(**values):
    return {name.replace("_", "/", 1): torch.tensor(value) for name, value in values.items()}


def test_the_first_bad_update_of_each_metric_is_remembered():
    watch = FiniteWatch(torch.device("cpu"))
    watch.start(updates=10, bc_updates=3)
    for loss, norm in ((1.0, 2.0), (1.0, math.inf), (math.nan, 1.0), (1.0, 1.0)):
        given = info(critic_loss=loss, critic_norm=norm)
        assert watch.note(given) is given
    assert watch.trouble() == Trouble(("critic/norm",), 12, bc=False)
    watch.note(info(bc_loss=-math.inf), bc=True)
    assert watch.trouble() == Trouble(("bc/loss",), 4, bc=True)  # cloning comes first
    watch.start(0, 0)
    assert watch.trouble() is not None  # sticky


def test_finite_numbers_are_no_trouble():
    watch = FiniteWatch(torch.device("cpu"))
    for _ in range(3):
        watch.note(info(critic_loss=3e38, critic_norm=0.0))
        watch.note(info(critic_loss=-3e38, actor_loss=1.0))
    assert watch.trouble() is None


@pytest.mark.parametrize("kind", [EagerLearner, TapedLearner])
def test_a_captured_update_notes_it_too(kind):
    learner = make(kind)
    for _ in range(2):
        learner.bc_update()
    for _ in range(WARM_UPS + 3):
        learner.update()
    assert learner.watch.trouble() is None
    with torch.no_grad():
        learner.agent.critic.weights[0].fill_(math.nan)
    for _ in range(3):
        learner.update()
    trouble = learner.watch.trouble()
    assert trouble.at == WARM_UPS + 4 and not trouble.bc
    assert trouble.names[0] == "critic/td_loss" and "actor/loss" in trouble.names
    assert getattr(learner, "captures", 1) == 1  # the updates; cloning ended before its own


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e25])
def test_weights_whose_squares_are_not_finite_are_named(value):
    agent = make(EagerLearner).agent
    assert unsound_weights(agent) == []
    with torch.no_grad():
        agent.critic.biases[1][0, 0, 0] = value
    assert unsound_weights(agent) == ["critic.biases.1"]


SLOW = pytest.mark.slow
CASES = [
    pytest.param("agent.critic_lr=1e30", "critic/td_loss is not finite since update 2", "3e-4", id="critic"),
    pytest.param("agent.actor_lr=1e30", "is not finite since update 2", "1e-4", id="actor", marks=SLOW),
    pytest.param("agent.bc_lr=1e38", "bc/loss is not finite since bc update 2", "3e-4", id="b", marks=SLOW),
    pytest.param(
        "agent.conservative_weight=1e38", "is not finite since update 1", "5", id="weight", marks=SLOW
    ),
    pytest.param("agent.init_temperature=1e38", "actor/loss is not finite since update 1", None, id="alpha"),
]


@pytest.mark.parametrize(("word", "quantity", "value"), CASES)
def test_a_run_that_computes_nothing_stops(word, quantity, value, configure, tmp_path, no_report):
    folder = tmp_path / "run"
    with pytest.raises(NotFiniteError) as raised:
        train(configure(f"run_dir={folder}", word))
    said, key = str(raised.value), word.split("=")[0]
    again = value and f"{key}={float(value):g}"
    assert quantity in said and f"the likely cause is {key}=" in said
    assert (f"caliper resume {folder} {again}" if again else f"start a new run with another {key}") in said
    assert "the checkpoint of update 0 is from before" in said
    weights, _ = load_checkpoint(folder)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert "nan" not in (folder / "metrics.csv").read_text()
    (event,) = read_history(folder / "history.jsonl")
    assert (event.kind, event.text) == ("stopped", said)
    if again:
        resume(folder, load(folder / "config.yaml", [again], "resume"))
        weights, state = load_checkpoint(folder)
        assert state["counters"]["env_steps"] == 28
        assert [e.kind for e in read_history(folder / "history.jsonl")] == ["stopped", "changed"]


def test_the_report_says_why_a_run_stopped_and_with_what_it_went_on(configure, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(NotFiniteError):
        train(configure(f"run_dir={folder}", "agent.critic_lr=1e30"))
    page = (folder / "report.html").read_text()
    assert "Training stopped: critic/td_loss is not finite since update 2" in page
    resume(folder, load(folder / "config.yaml", ["agent.critic_lr=3e-4"], "resume"))
    page = (folder / "report.html").read_text()
    assert "Training stopped" not in page
    assert "went on with agent.critic_lr=0.0003, was 1e+30" in page


def test_values_far_from_every_possible_return_are_warned_of_once(
    configure, tmp_path, capsys, no_report, monkeypatch
):
    monkeypatch.setattr("caliper.training.trainer.far_outside", lambda q, bounds: bounds[0] < -30)
    folder = tmp_path / "run"
    train(configure(f"run_dir={folder}"))
    said = capsys.readouterr().err
    assert said.count("far outside the possible returns (-100 to 10)") == 1
    resume(folder, load(folder / "config.yaml", ["online.env_steps=40"], "resume"))
    assert "far outside" not in capsys.readouterr().err
    assert [e.kind for e in read_history(folder / "history.jsonl")] == ["warned", "changed"]


@pytest.mark.parametrize(
    ("mean", "far"), [(-4300, True), (-205, False), (-215, True), (119, False), (121, True)]
)
def test_far_is_farther_than_the_returns_are_from_each_other(mean, far):
    # -1 a step, discount 0.99: -100 to 10; 110 beyond these: -210 to 120
    bounds = RewardConfig(gamma=0.99).bounds()
    assert bounds == pytest.approx((-100, 10))
    assert far_outside(np.array([mean - 1.0, mean + 1.0]), bounds) is far


def test_the_likely_cause_is_the_rate_farthest_above_its_default():
    config = compose(["agent.actor_lr=3e-4", "agent.critic_lr=1"])
    both = Trouble(("critic/td_loss", "actor/loss"), 20, bc=False)
    assert likely_cause(both, config) == ("agent.critic_lr", 1.0, 3e-4)
    usual = compose(["agent.actor_lr=1e-4", "agent.critic_lr=3e-4"])
    assert likely_cause(both, usual) == ("agent.critic_lr", 3e-4, pytest.approx(3e-5))
