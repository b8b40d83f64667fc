"""The three learners make the same updates; a captured one reads on the device all that changes."""

import copy
import gc
import shutil
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch

from caliper.agents import Noise
from caliper.errors import CaliperError
from caliper.training.checkpoint import load_checkpoint
from caliper.training.interrupt import InterruptedRunError
from caliper.training.run import resume, train
from caliper.training.trainer import Trainer
from caliper.training.update import LEARNERS, WARM_UPS, CompiledLearner, EagerLearner, GraphLearner
from tests.agents.conftest import CONFIGS, random_batch
from tests.agents.conftest import make as make_agent
from tests.caliper.training.updates import (
    LEVERS,
    STATE,
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
        ("calql", LEVERS, 5),
        ("calql", {}, 4),
        ("sac", {"bc_weight": 1.0}, 4),
        ("bc", {}, 4),
        ("iql", {"critic_from_clone": True}, 4),
        ("awac", {}, 4),
        ("td3bc", {"actor_every": 1}, 4),
        ("rlpd", {"actor_every": 2}, 5),
        ("wsrl", {"actor_every": 2}, 4),
        ("qtopt", {}, 3),
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
def test_noise_drawn_ahead_is_the_noise_drawn_in_the_course(name):
    batch, first, second = random_batch(), make_agent(name), make_agent(name)
    assert_same(first.update(batch), second.update(batch, second.draw(batch, Noise())))
    assert torch.equal(first.generator.get_state(), second.generator.get_state())


@pytest.mark.parametrize("name", CONFIGS)
def test_an_eager_update_waits_for_nothing(name):
    learner = make(EagerLearner, name)
    learner.update()
    with Tape():
        learner.update()


class Whole(CompiledLearner):
    """Traced and differentiated as for inductor, run without a compiler."""

    backend = "aot_eager"


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "calql" else pytest.mark.slow) for name in CONFIGS],
)
def test_a_compiled_update_is_one_program_with_the_same_numbers(name):
    eager, compiled = make(EagerLearner, name), make(Whole, name)
    for _ in range(getattr(eager.agent.config, "actor_every", 1)):  # one with the actor, one without
        assert_same(eager.update(), compiled.update())
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(2):
            assert_same(eager.update(), compiled.update())
    assert_same(weights(eager), weights(compiled))
    assert torch.equal(eager.agent.generator.get_state(), compiled.agent.generator.get_state())


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
def test_compiled_updates_with_and_without_the_actor_alternate():
    eager, compiled = (make(kind, "rlpd", spec=STATE, actor_every=2) for kind in (EagerLearner, Whole))
    for i in range(6):
        with torch.compiler.set_stance("fail_on_recompile" if i > 1 else "default"):
            assert_same(eager.update(), compiled.update())
    assert_same(weights(eager), weights(compiled))


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["rlpd", "wsrl", "qtopt"])
def test_other_agents_compiled_through_all_phases(name):
    keys = {} if name == "qtopt" else {"actor_every": 2}
    first, second = (make(kind, name, spec=STATE, **keys) for kind in (EagerLearner, Whole))
    for a, b in zip(course(first), course(second), strict=True):
        assert_same(a, b)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("keys", [LEVERS, {"precision": "bfloat16", "encoder_per_critic": True}])
def test_compiled_deviations_through_all_phases(keys):
    for a, b in zip(course(make(EagerLearner, **keys)), course(make(Whole, **keys)), strict=True):
        assert_same(a, b)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.filterwarnings("ignore")  # inductor's own, about its own modules
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_agrees_up_to_rounding():
    eager, compiled = make(EagerLearner, spec=STATE), make(CompiledLearner, spec=STATE)
    for _ in range(10):
        a, b = eager.update(), compiled.update()
        for name in a:
            assert b[name].item() == pytest.approx(a[name].item(), rel=1e-4, abs=1e-4), name


@pytest.mark.usefixtures("fresh")
def test_a_missing_compiler_is_said_in_one_sentence():
    class Broken(CompiledLearner):
        @staticmethod
        def backend(program, inputs):
            raise RuntimeError("No working C++ compiler found")

    with pytest.raises(CaliperError, match=r"compiler found.*\); install a C\+\+ compiler .* learner=eager$"):
        make(Broken, "bc", spec=STATE).update()


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
