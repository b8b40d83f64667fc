"""On a GPU: the captured update against the same updates made one operation after the other."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from caliper.training.together import GradientAverage
from caliper.training.update import WARM_UPS, EagerLearner, GraphLearner
from tests.agents.conftest import keys_of
from tests.agents.test_official_numbers import FIXTURE
from tests.caliper.training.updates import DEVIATIONS, course, make, weights

pytestmark = pytest.mark.gpu


def on_gpu(learner, updates, **keys):
    """Metrics of so many updates, cloned, and the learner."""
    learner = make(learner, device="cuda", **keys)
    return [{k: v.clone() for k, v in learner.update().items()} for _ in range(updates)], learner


class NeverCaptured(GraphLearner):
    warm_ups = math.inf


def assert_close(first, second):
    """To one part in a thousand: a GPU adds in any order, and Adam steps along however small a gradient."""
    assert first.keys() == second.keys()
    for name in first:
        assert second[name].item() == pytest.approx(first[name].item(), rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize(
    "keys",
    [
        {},
        DEVIATIONS,
        {"encoder": "impala"},
        {"precision": "bfloat16"},
        {"name": "rlpd", "actor_every": 2},  # two graphs, used in turn
        {"name": "wsrl"},
        {"name": "qtopt"},
        {"name": "iql"},
        {"name": "td3bc"},
        {"name": "fql"},
        {"name": "qc"},
    ],
)
def test_a_graph_agrees_with_the_updates_one_by_one(keys):
    captured, learner = on_gpu(GraphLearner, 10, **keys)
    plain, other = on_gpu(NeverCaptured, 10, **keys)
    assert all(graph.replay for graph in learner._graphs.values())
    every = getattr(learner.agent.config, "actor_every", 1)
    assert len(learner._graphs) == (every if every > 1 else 1 + ("actor_start" in keys))
    if "precision" not in keys:  # bfloat16 keeps three digits of each product
        for a, b in zip(plain, captured, strict=True):
            assert_close(a, b)
    assert all(torch.isfinite(v).all() for info in captured for v in info.values())
    assert torch.equal(learner.agent.generator.get_state(), other.agent.generator.get_state())
    assert torch.equal(learner.generator.get_state(), other.generator.get_state())


@pytest.mark.parametrize("name", ["calql", "rlpd", "qtopt", "fql", "qc"])
def test_a_graph_draws_new_numbers_and_follows_the_buffers(name):
    rates = {"actor_lr", "critic_lr", "temperature_lr", "tau"}
    still = dict.fromkeys(rates & keys_of(name), 0.0)
    infos, learner = on_gpu(GraphLearner, WARM_UPS + 4, name=name, **still)
    assert len({info["critic/loss"].item() for info in infos}) == len(infos)
    for info in course(learner):
        assert all(torch.isfinite(value).all() for value in info.values())  # a row that left would be NaN


def test_a_resumed_graph_goes_on_as_the_unbroken_one():
    _, learner = on_gpu(GraphLearner, WARM_UPS + 2)
    state = copy.deepcopy([weights(learner), learner.agent.train_state(), learner.generator.get_state()])
    unbroken = [{k: v.clone() for k, v in learner.update().items()} for _ in range(WARM_UPS + 2)]
    resumed = make(GraphLearner, device="cuda")
    resumed.agent.load_state_dict(state[0])
    resumed.agent.load_train_state(state[1])
    resumed.generator.set_state(state[2].cpu())
    for expected in unbroken:
        assert_close(resumed.update(), expected)


@pytest.fixture
def nccl():
    """A process group of this process alone."""
    dist.init_process_group("cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_graph_averages_gradients_over_nccl(nccl):
    """What this rank alone sends comes back as it was; the sums of several take the same way."""
    plain, _ = on_gpu(NeverCaptured, 10)
    learner = make(GraphLearner, device="cuda")
    average = GradientAverage(learner.agent.optimizers.values(), 1)
    for expected in plain:
        assert_close(learner.update(), expected)
    assert all(graph.replay for graph in learner._graphs.values())
    weights = sum(p.numel() for p in learner.agent.parameters() if p.requires_grad and p.grad is not None)
    # Sent in each warm-up and once more in the capture.
    assert average.sent == 4 * weights * (WARM_UPS + 1)


def test_a_captured_update_waits_for_nothing():
    _, learner = on_gpu(GraphLearner, WARM_UPS + 1)
    torch.cuda._sleep(1_000_000_000)  # half a second in which the device is not there yet
    asleep = torch.cuda.Event()
    asleep.record()
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not asleep.query()


def test_weights_have_the_images_layout_on_a_gpu():
    agent = make(EagerLearner, device="cuda").agent
    convs = [m for m in agent.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convs and all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convs)


def test_the_benchmarks_peer_makes_the_official_update(monkeypatch):
    """In JAX, which GPU machines may have: three steps from the official start, to the official weights."""
    jax = pytest.importorskip("jax", reason="the peer needs JAX, which is no part of Caliper")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import _jax_update as peer  # type: ignore[import-not-found]  # beside the benchmarks

    def given(key):
        return jax.numpy.asarray(FIXTURE[f"in.{key}"])

    def layers(name):
        return [(given(f"{name}.Dense_{i}.kernel"), given(f"{name}.Dense_{i}.bias")) for i in range(3)]

    policy = {
        "layers": layers("policy"),
        "scale": given("log_std_multiplier"),
        "offset": given("log_std_offset"),
    }
    first = {"policy": policy, "critics": [layers("qf1"), layers("qf2")], "log_alpha": given("log_alpha")}
    state = peer.start(first) | {"targets": [layers("target1"), layers("target2")]}
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "terminal": "dones"}
    names |= {"next_obs": "next_observations", "mc_return": "mc_returns"}
    batch = {ours: given(f"batch.{theirs}") for ours, theirs in names.items()}
    noise = {"pi": given("noise.eps_pi")[:, None], "uniform": given("noise.rand")}
    noise |= {"target": given("noise.eps_target"), "current": given("noise.eps_cur")}
    noise["next"] = given("noise.eps_next")
    with jax.default_matmul_precision("highest"):
        for _ in range(3):
            state = peer.step(state, batch, noise)
    for name, index in (("qf1", 0), ("qf2", 1)):
        flat = np.concatenate(
            [np.ravel(part) for pair in state["weights"]["critics"][index] for part in pair]
        )
        np.testing.assert_allclose(flat, FIXTURE[f"calql.s3.{name}"], atol=1e-5)
    actor = [np.ravel(part) for pair in state["weights"]["policy"]["layers"] for part in pair]
    np.testing.assert_allclose(np.concatenate(actor), FIXTURE["calql.s3.policy"][:-2], atol=1e-5)
    np.testing.assert_allclose(state["weights"]["log_alpha"], FIXTURE["calql.s3.log_alpha"][0], atol=1e-5)
