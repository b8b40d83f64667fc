"""The two-stage scene: the lid is in the way, stays where it is left, and starts where it is told to."""

from dataclasses import replace

import pytest
import torch

from caliper.envs.scripts.experts import Expert
from caliper.envs.sim import SimEnv
from caliper.envs.tasks import make_task
from caliper.envs.tasks.pick_covered import BOX_X, HALF_X, HALF_Y, OPEN, TRAVEL
from caliper.errors import CaliperError
from tests.envs.conftest import clean_expert, make_envs, random_actions, spoiled_expert

KIND = {"controller": "osc_position", "control_freq": 10, "horizon": 70, "cameras": ()}


def covered(n, first_seed=0, **more):
    return make_envs("pick_covered", n, first_seed, **{**KIND, **more})


def lid(env):
    return env.engine.qpos[:, env.engine.model.joint("lid").qposadr[0]].clone()


def first_episodes(env, expert):
    """Which envs end their first episode in success, and which in the stage's end."""
    solved = finished = torch.zeros(env.num_envs, dtype=torch.bool)
    running = ~solved
    for _ in range(env.horizon):
        step = env.step(expert.act())
        solved = solved | (running & step.success)
        running = running & ~step.success
        finished = finished | (running & expert.finished)
    return solved, finished


def test_starts():
    shut, wide = covered(32), covered(32, start="open")
    assert (lid(shut) == 0).all()
    assert lid(wide).min() >= OPEN and lid(wide).max() < TRAVEL
    assert lid(wide).max() - lid(wide).min() > 0.8 * (TRAVEL - OPEN)
    assert torch.equal(shut.object_pos, wide.object_pos)  # the lid's numbers are a stream of their own
    half = torch.tensor([HALF_X, HALF_Y]) - 0.021 * 2**0.5
    centre = torch.tensor([BOX_X, 0.0])
    assert ((shut.object_pos[:, :2] - centre).abs() < half).all()  # inside, at any angle


def test_an_unknown_start_gets_the_choices():
    with pytest.raises(CaliperError, match="'pick_covered' has no start 'ajar'; choose one of: closed, open"):
        make_task("pick_covered", "ajar")
    with pytest.raises(CaliperError, match="'lift' has no start 'open'; it has one start, so leave it out"):
        make_task("lift", "open")


def test_the_start_of_a_lid_depends_on_its_seed_alone():
    many, one = covered(3, start="open"), covered(1, start="open")
    many.reset(seeds=torch.tensor([7, 8, 9]))
    one.reset(seeds=torch.tensor([8]))
    assert torch.equal(lid(one)[0], lid(many)[1]) and len(set(lid(many).tolist())) == 3
    before = lid(many)
    many.reset(mask=torch.tensor([False, True, False]), seeds=torch.tensor([1, 2, 3]))
    assert (lid(many) == before).tolist() == [True, False, True]


def test_both_engines_place_the_lid_alike():
    exact, fast = covered(4, start="open"), covered(4, start="open", sim="warp")
    assert (lid(exact) - lid(fast)).abs().max() < 1e-6
    bodies = [env.engine.model.body("lid").id for env in (exact, fast)]
    both = [env.engine.xpos[:, body] for env, body in zip((exact, fast), bodies, strict=True)]
    assert (both[0] - both[1]).abs().max() < 1e-6


def test_the_lid_stays_where_it_is():
    env = covered(4, start="open")
    start, still = lid(env), torch.zeros(4, env.action_dim)
    for _ in range(30):
        env.step(still)
    assert (lid(env) - start).abs().max() < 1e-4
    rising = still.clone()
    rising[:, 2] = 1
    env = covered(4)
    for _ in range(30):
        env.step(rising)
    assert lid(env).abs().max() < 1e-4


def test_a_closed_lid_blocks_a_grasp_from_above():
    """The second stage's script alone, which lifts the cube of every open box."""
    for start, wanted in (("closed", 0), ("open", 8)):
        env = covered(8, start=start)
        task = env.task
        env.task = make_task("pick_covered", start)
        env.task.plan = replace(task.plan, opening=None)
        try:
            solved, _ = first_episodes(env, clean_expert(env))
        finally:
            env.task = task
        assert int(solved.sum()) == wanted


def test_a_lid_can_be_pushed_back_and_forth():
    """Nothing jams: from anywhere the joint moves freely to both ends."""
    env = covered(2)
    engine, dof = env.engine, env.engine.model.joint("lid").dofadr[0]
    for push, end in ((1.0, TRAVEL), (-1.0, 0.0)):
        for _ in range(20):
            engine.qvel[:, dof] = push
            env.step(torch.zeros(2, env.action_dim))
        assert (lid(env) - end).abs().max() < 0.005


@pytest.mark.parametrize("start", ["closed", "open"])
def test_the_expert_solves_it(start):
    env = covered(12, start=start)
    solved, finished = first_episodes(env, clean_expert(env))
    assert solved.all() and not finished.any()


def test_the_expert_can_stop_when_the_lid_is_open_and_the_gripper_is_back():
    env = covered(8)
    fill, home = torch.zeros(8, dtype=torch.float64), env.grip_pos.clone()
    expert = Expert(env, fill, fill, "open")
    ended = torch.zeros(8, dtype=torch.bool)
    for _ in range(50):
        step = env.step(expert.act())
        assert not step.success.any()
        now = expert.finished & ~ended
        ended |= expert.finished
        assert (lid(env)[now] > OPEN).all()
        assert ((env.grip_pos - home)[now].norm(dim=1) < 0.04).all()
    assert ended.all()


@pytest.mark.parametrize(
    ("start", "noise", "bias"), [("closed", 1.0, 0.0), ("closed", 0.0, 0.03), ("open", 0.0, 0.03)]
)
def test_the_knobs_spoil_both_stages(start, noise, bias):
    env = covered(8, start=start)
    assert first_episodes(env, spoiled_expert(env, noise, bias))[0].sum() <= 6


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "wanted"), [(0.0, 0.95), (0.3, 0.9)])
def test_the_expert_solves_a_hundred(noise, wanted):
    env, solved = covered(25), 0.0
    for first in range(0, 100, 25):
        env.reset(seeds=first + torch.arange(25))
        solved += float(first_episodes(env, spoiled_expert(env, noise, 0.0))[0].sum())
    assert solved >= 100 * wanted


@pytest.mark.slow
def test_the_whole_episode_ends_the_same_in_both_engines():
    """The expert watches the exact engine's envs; the other engine's get its actions, blind."""
    exact, fast = covered(2), covered(2, sim="warp")
    expert = clean_expert(exact)
    solved = torch.zeros(2, dtype=torch.bool)
    for _ in range(exact.horizon):
        action = expert.act()
        a, b = exact.step(action), fast.step(action)
        fast.check()
        assert torch.equal(a.success, b.success)
        assert (lid(exact) - lid(fast)).abs().max() < 5e-3
        solved |= a.success
        if bool(solved.all()):
            return
    raise AssertionError("the expert solved nothing to compare")


def test_an_environment_starts_as_it_is_told():
    env = SimEnv("pick_covered", 2, **KIND, start="open", threads=1)
    for action in random_actions(env, 2):
        env.step(action)
    env.reset()
    assert (lid(env) >= OPEN).all()
