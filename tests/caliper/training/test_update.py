"""Both learners make the same updates; a captured one reads on the device all that changes."""

import copy
import gc
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch

from caliper.training.checkpoint import load_checkpoint
from caliper.training.interrupt import InterruptedRunError
from caliper.training.run import resume, train
from caliper.training.trainer import Trainer
from caliper.training.update import LEARNERS, WARM_UPS, EagerLearner, GraphLearner
from tests.agents.conftest import CONFIGS
from tests.caliper.training.updates import (
    DEVIATIONS,
    OneByOne,
    Tape,
    TapedLearner,
    assert_same,
    course,
    make,
    weights,
)


@pytest.mark.parametrize(
    ("name", "keys", "captures"),
    # cloning, then: until actor_start (6 updates), after, online without data, online with data; two each,
    # with and without the actor, where these alternate and there are more than 6 updates
    [
        ("calql", DEVIATIONS, 5),
        ("calql", {}, 4),
        ("sac", {"bc_weight": 1.0}, 4),
        ("bc", {}, 4),
        ("iql", {"critic_encoder_from_bc": True}, 4),
        ("awac", {}, 4),
        ("td3bc", {"actor_every": 1}, 4),
        ("rlpd", {"actor_every": 2}, 5),
        ("wsrl", {"actor_every": 2}, 4),
        ("qtopt", {}, 3),
        ("fql", {"normalize_q": True, "actor_tau": 0.1}, 4),
        ("qc", {}, 4),
    ],
)
def test_a_replayed_update_follows_all_that_changes(name, keys, captures):
    taped, other = make(TapedLearner, name, **keys), make(OneByOne, name, **keys)
    for a, b in zip(course(taped), course(other), strict=True):
        assert_same(a, b)
    assert_same(weights(taped), weights(other))
    assert (taped.captures, other.captures) == (captures, 0)


def test_replays_draw_new_numbers():
    still = {"actor_lr": 0.0, "critic_lr": 0.0, "temperature_lr": 0.0, "tau": 0.0}
    learner = make(TapedLearner, **still)
    losses = [learner.update()["critic/loss"].item() for _ in range(WARM_UPS + 4)]
    assert learner.captures == 1
    assert len(set(losses)) == len(losses)


def test_graphs_of_phases_that_alternate_are_kept_until_the_switch():
    learner = make(TapedLearner, "rlpd", actor_every=2)
    for _ in range(2 * WARM_UPS + 6):
        learner.update()
    assert (learner.captures, len(learner._graphs)) == (2, 2)
    learner.agent.go_online()
    learner.update()
    assert len(learner._graphs) == 1  # none of the old ones can be used again


def test_a_loaded_checkpoint_is_captured_anew():
    learner = make(TapedLearner)
    for _ in range(WARM_UPS + 2):
        learner.update()
    state = copy.deepcopy([weights(learner), learner.agent.train_state(), learner.generator.get_state()])
    unbroken = {name: value.clone() for name, value in learner.update().items()}
    expected = weights(learner)

    learner.agent.load_state_dict(state[0])
    learner.agent.load_train_state(state[1])
    learner.generator.set_state(state[2])
    assert_same(learner.update(), unbroken)
    assert_same(weights(learner), expected)
    assert learner.captures == 1  # this one warmed up
    for _ in range(WARM_UPS):
        learner.update()
    assert learner.captures == 2


def test_optimisers_are_capturable_and_the_collector_waits_in_a_capture(monkeypatch):
    """A step outside of a capture would complain of it, as those of a later phase's warm-up are."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Mock)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: nullcontext())  # works on the CPU
    learner = make(GraphLearner)
    groups = [g for optimizer in learner.agent.optimizers.values() for g in optimizer.param_groups]

    def said():
        return {group["capturable"] for group in groups}

    def work():
        assert said() == {True} and not gc.isenabled()
        return EagerLearner.update(learner)

    learner._capture(work)()
    assert said() == {False}
    with pytest.raises(RuntimeError, match="no"):
        learner._capture(Mock(side_effect=RuntimeError("no")))
    assert said() == {False} and gc.isenabled()


def test_the_tape_notices_a_wait():
    with pytest.raises(AssertionError, match="waits"), Tape():
        torch.ones(()).item()
    with pytest.raises(AssertionError, match="waits"), Tape():
        torch.tensor([1.0])


@pytest.mark.parametrize("name", CONFIGS)
def test_an_eager_update_waits_for_nothing(name):
    learner = make(EagerLearner, name)
    learner.update()
    with Tape():
        learner.update()


@pytest.mark.usefixtures("no_report")
def test_a_captured_run_can_be_resumed(configure, tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS, "eager", TapedLearner)
    folders = tmp_path / "whole", tmp_path / "stopped"
    train(configure(f"run_dir={folders[0]}"))

    update, at = Trainer._update, 11  # in the online phase, between a capture and the next

    def stopping(trainer, phase):
        if trainer.counters.updates == at:
            raise InterruptedRunError(trainer.folder)
        update(trainer, phase)

    config = configure(f"run_dir={folders[1]}")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", stopping)
        with pytest.raises(InterruptedRunError):
            train(config)
    resume(folders[1], config)
    assert_same(*(load_checkpoint(folder)[0] for folder in folders))
