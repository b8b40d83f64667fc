"""Envs seen over a bridge are the same envs."""

import pytest
import torch

from caliper.envs import bridge as module
from caliper.envs.base import VectorEnv
from caliper.envs.bridge import Bridge, across, bridged
from caliper.envs.scene.appearance import AppearanceRanges
from caliper.envs.sim import SimEnv
from caliper.types import Obs
from tests.envs.conftest import make_envs, random_actions

CPU = torch.device("cpu")


def flat(step):
    """All tensors of a step, or of an observation, in order."""
    values = step.tensors.values() if isinstance(step, Obs) else [getattr(step, n) for n in step.__slots__]
    return [t for v in values for t in ([v] if torch.is_tensor(v) else flat(v))]


def assert_equal(ours, theirs):
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def twins(n, size, sim="batch"):
    return [SimEnv("lift", n, sim, ("agentview",), size, horizon=4, threads=1) for _ in range(2)]


@pytest.fixture(params=["batch", "warp"])
def both(request):
    """An env, and the same behind a bridge whose sides are both the CPU."""
    plain, other = twins(3, 16, request.param)
    return plain, Bridge(other, "cpu")


def test_a_bridge_changes_no_bit(both):
    plain, over = both
    for name in ("num_envs", "device", "spec", "action_dim", "horizon", "state_dim", "scene_hash"):
        assert getattr(plain, name) == getattr(over, name)
    seeds, mask = torch.tensor([7, 8, 9]), torch.tensor([True, False, True])
    assert_equal(over.reset(seeds=seeds), plain.reset(seeds=seeds))
    ended = 0
    for action in random_actions(plain, 6):
        ours, theirs = over.step(action), plain.step(action)
        assert_equal(ours, theirs)
        assert torch.equal(over.final_state, plain.final_state)
        ended += int(ours.truncated.sum())
    assert ended == 3
    assert_equal(over.reset(mask, seeds + 3), plain.reset(mask, seeds + 3))
    assert_equal(over.reset(), plain.reset())
    state = over.get_state()
    assert torch.equal(state, plain.get_state()) and state.dtype == torch.float64
    for env in both:
        env.set_appearance(seeds, AppearanceRanges(light=0.5))
    assert torch.equal(over.render(("frontview",), 32), plain.render(("frontview",), 32))
    for env in both:
        env.set_appearance(None)
        env.set_state(state[:2].flip(0))
        env.check()
    assert_equal(over.observe(), plain.observe())
    assert over.rates() == plain.rates() != {}


def test_a_run_goes_on_with_the_bridge_or_without(both):
    plain, over = both
    actions = random_actions(plain, 3)
    over.step(actions[0])
    over.check()
    plain.load_state_dict(over.state_dict())
    assert_equal(over.step(actions[1]), plain.step(actions[1]))
    over.load_state_dict(plain.state_dict())
    assert_equal(over.step(actions[2]), plain.step(actions[2]))


def test_one_packet_a_step_with_nothing_twice(monkeypatch):
    env = Bridge(make_envs("lift", 2, size=16, horizon=2), "cpu")
    sent = []
    monkeypatch.setattr(
        module, "across", lambda tensors, device: sent.append(len(tensors)) or across(tensors, device)
    )
    first, last = (env.step(action) for action in random_actions(env, 2))
    # State, observation, reward, terminated (which is success), truncated, diverged; the end adds an image.
    assert len(sent) == 2 and sent[1] > sent[0]
    assert first.final_obs.pixels is first.obs.pixels and last.final_obs.pixels is not last.obs.pixels


def test_what_crosses_keeps_types_and_shapes_and_shares_nothing():
    given = [
        torch.tensor([[True, False, True]]),
        torch.arange(6, dtype=torch.float64).view(2, 3).T,  # not contiguous
        torch.zeros(2, 0, 3, dtype=torch.uint8),
        torch.tensor(-3),
        torch.tensor([1.5, float("nan")]),
    ]
    got = across(given, CPU)
    for a, b in zip(got, given, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
        assert not a.numel() or a.data_ptr() % module.ALIGNED == 0
    got[1].zero_()
    assert given[1].sum() == 15 and got[3] == -3


def test_envs_that_are_there_need_no_bridge():
    env = make_envs("lift", 1, cameras=())
    assert bridged(env, "cpu") is env
    over = bridged(env, "meta")
    assert isinstance(over, Bridge) and over.env is env and over.device.type == "meta"


def test_every_method_of_an_env_crosses():
    own = {name for name in vars(VectorEnv) if not name.startswith("_")}
    assert own <= vars(Bridge).keys()


@pytest.mark.gpu
def test_the_gpu_sees_what_the_cpu_simulates():
    plain, other = twins(3, 32)
    over = Bridge(other, "cuda")
    for action in random_actions(plain, 6):
        ours, theirs = over.step(action.cuda()), plain.step(action)
        assert all(t.device.type == "cuda" for t in flat(ours))
        for a, b in zip(flat(ours), flat(theirs), strict=True):
            assert torch.equal(a.cpu(), b)
