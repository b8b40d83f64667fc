"""What every environment must hold, whichever task and engine."""

import mujoco_warp as mjw
import pytest
import torch
import warp as wp

from caliper.envs.sim import EPISODE_STRIDE, SimEnv
from caliper.envs.tasks import TASKS
from caliper.errors import CaliperError
from tests.envs.conftest import CAMERAS, clean_expert, make_envs, random_actions, same_obs, usual

# By default a few tasks stand for all, on `warp` one; the first test below is cheap and holds for each.
USUAL = {"batch": ("lift", "pick_place_tray", "pick_place_can", "pick_covered"), "warp": ("lift",)}


def _rare(task, sim="batch"):
    return [] if task in USUAL[sim] else pytest.mark.slow


KINDS = [pytest.param(t, s, id=f"{t}-{s}", marks=_rare(t, s)) for s in USUAL for t in TASKS]
every_kind = pytest.mark.parametrize(("task", "sim"), KINDS)
every_task = pytest.mark.parametrize("task", [pytest.param(t, marks=_rare(t)) for t in TASKS])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_starts_acts_and_comes_back(task):
    """What each task of the table must hold, without images; what is dear is among the slow tests."""
    env, other = (make_envs(task, n, cameras=(), privileged=True, **usual(task)) for n in (2, 1))
    expert, states = clean_expert(env), []
    other.reset(seeds=env.seeds[1:])
    assert not env.solved().any()
    for _ in range(3):
        action = expert.act()
        step = env.step(action)
        other.step(action[1:])
        assert step.obs.proprio.shape == (2, env.spec.proprio) and step.obs.proprio.isfinite().all()
        assert not (step.success | step.diverged).any()
        assert torch.equal(other.get_state()[0], env.get_state()[1])
        states.append((env.get_state(), env.observe().proprio, env.solved()))
    for state, proprio, solved in reversed(states):
        env.set_state(state)
        assert torch.equal(env.observe().proprio, proprio) and torch.equal(env.solved(), solved)
        assert torch.equal(env.get_state()[:, 1:], state[:, 1:])
    assert "showcase" in [env.engine.model.camera(i).name for i in range(env.engine.model.ncam)]


@every_kind
def test_shapes_types_and_devices(task, sim):
    env = make_envs(task, 2, sim=sim)
    n, v, size = env.num_envs, len(env.spec.cameras), env.spec.size
    step = env.step(random_actions(env, 1)[0])
    for obs in (env.observe(), step.obs, step.final_obs):
        assert obs.pixels.shape == (n, v, 3, size, size) and obs.pixels.dtype == torch.uint8
        assert obs.proprio.shape == (n, env.spec.proprio) and obs.proprio.dtype == torch.float32
        assert obs.pixels.device == obs.proprio.device == env.device
        assert obs.proprio.isfinite().all() and obs.proprio.abs().max() < 5
    assert step.reward.shape == (n,) and step.reward.dtype == torch.float32
    for flag in (step.terminated, step.truncated, step.success):
        assert flag.shape == (n,) and flag.dtype == torch.bool
    for state in (env.get_state(), env.final_state):
        assert state.shape == (n, env.state_dim) and state.dtype == torch.float64
    assert len(env.scene_hash) == 16
    assert env.render(("agentview",), 48).shape == (n, 1, 3, 48, 48)


@every_kind
def test_a_seed_fixes_the_episode(task, sim):
    env = make_envs(task, 2, sim=sim)
    actions = random_actions(env, 2)
    runs = []
    for _ in range(2):
        first = env.reset(seeds=torch.tensor([3, 4]))
        states = [env.get_state()] + [env.step(a) and env.get_state() for a in actions]
        runs.append((first, states))
    assert same_obs(runs[0][0], runs[1][0])
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(runs[0][1][0][0], runs[0][1][0][1])  # other seed, other start


@every_task
def test_envs_do_not_depend_on_how_many_there_are(task):
    many, one = make_envs(task, 4), make_envs(task, 1)
    actions = random_actions(many, 5)
    many.reset(seeds=torch.tensor([5, 6, 7, 8]))
    states = [many.step(a) and many.get_state() for a in actions]
    pixels = many.observe().pixels
    for i in (0, 3):
        one.reset(seeds=torch.tensor([5 + i]))
        for action, state in zip(actions, states, strict=True):
            one.step(action[i : i + 1])
            assert torch.equal(one.get_state()[0], state[i])
        assert torch.equal(one.observe().pixels[0], pixels[i])


def test_warp_envs_do_not_depend_on_how_many_there_are():
    many, one = make_envs("lift", 2, sim="warp", cameras=()), make_envs("lift", 1, sim="warp", cameras=())
    actions = random_actions(many, 3)
    for env, chosen in ((many, actions), (one, actions[:, 1:])):
        env.reset(seeds=torch.arange(2)[-env.num_envs :])
        for action in chosen:
            env.step(action)
    assert (many.get_state()[1] - one.get_state()[0]).abs().max() < 1e-6


def test_each_episode_of_a_env_is_new():
    env = make_envs("lift", 2, cameras=(), horizon=1)
    env.load_state_dict(SimEnv("lift", 2, cameras=(), horizon=1, seed=7).state_dict())
    starts = [env.get_state()]
    for action in random_actions(env, 3):
        env.step(action)
        starts.append(env.get_state())
    rows = torch.cat(starts)
    assert len(torch.unique(rows, dim=0)) == len(rows)
    other = SimEnv("lift", 2, cameras=(), seed=8)
    assert not torch.isin(other.get_state()[:, 2], rows[:, 2]).any()


@every_kind
def test_reset_touches_only_the_masked_envs(task, sim):
    env = make_envs(task, 2, sim=sim)
    env.step(random_actions(env, 1)[0])
    before = env.get_state()
    env.reset(mask=torch.tensor([False, True]), seeds=torch.tensor([90, 91]))
    after = env.get_state()
    assert torch.equal(after[0], before[0]) and env.steps.tolist() == [1, 0] and env.seeds[1] == 91
    env.reset(seeds=torch.tensor([90, 91]))
    assert torch.equal(env.get_state()[1], after[1])


@every_kind
def test_the_horizon_truncates_and_the_next_episode_starts_at_once(task, sim):
    env = make_envs(task, 2, sim=sim, horizon=2)
    state = env.state_dict()
    state["steps"] = torch.tensor([0, 1])
    env.load_state_dict(state)
    first, second = (env.step(a) for a in random_actions(env, 2))
    assert first.truncated.tolist() == [False, True] and second.truncated.tolist() == [True, False]
    for step in (first, second):
        assert not step.terminated.any() and not step.success.any() and not step.reward.any()
    assert env.steps.tolist() == [0, 1]
    # Env 1 ended first: what it shows is of the new episode, and the old one's end is kept aside.
    assert not torch.equal(first.obs.proprio[1], first.final_obs.proprio[1])
    assert not torch.equal(first.obs.pixels[1], first.final_obs.pixels[1])
    assert torch.equal(first.obs.pixels[0], first.final_obs.pixels[0])
    assert torch.equal(first.obs.proprio[0], first.final_obs.proprio[0])


def test_staggered_envs_do_not_end_together():
    env = SimEnv("lift", 4, cameras=(), horizon=5, threads=1)
    env.stagger(shortest=2)
    other = SimEnv("lift", 4, cameras=(), horizon=5, threads=1)
    lengths = [[], [], [], []]
    for step, action in enumerate(random_actions(env, 10)):
        if step == 2:  # in the middle of it
            other.load_state_dict(env.state_dict())
        ended = env.step(action).truncated
        if step >= 2:
            assert torch.equal(other.step(action).truncated, ended)
        for i in ended.nonzero().flatten().tolist():
            lengths[i].append(step + 1)
    # 5 - i * 3 // 4 steps at first, then the horizon.
    assert lengths == [[5, 10], [5, 10], [4, 9], [3, 8]]


def test_final_obs_and_final_state_are_the_old_episodes_end():
    short, long = make_envs("lift", 2, horizon=3), make_envs("lift", 2, horizon=200)
    for env in (short, long):
        env.reset(seeds=torch.tensor([1, 2]))
    for action in random_actions(short, 3):
        cut, uncut = short.step(action), long.step(action)
    assert cut.truncated.all() and not uncut.truncated.any()
    assert same_obs(cut.final_obs, uncut.obs)
    assert torch.equal(short.final_state, long.get_state())
    assert not torch.equal(short.get_state(), long.get_state())
    assert same_obs(cut.obs, short.observe())


@every_task
def test_success_terminates_and_pays_once(task):
    env = make_envs(task, 2, cameras=(), **usual(task))
    expert = clean_expert(env)
    for _ in range(env.horizon):
        step = env.step(expert.act())
        assert torch.equal(step.reward, step.success.float()) and torch.equal(step.terminated, step.success)
        if step.success.any():
            break
    assert step.success.any() and not step.truncated.any()
    assert (env.steps[step.success] == 0).all()
    again = env.step(expert.act())
    assert not again.success[step.success].any()


def test_success_on_the_last_step_is_no_timeout():
    env = make_envs("lift", 1, cameras=())
    expert = clean_expert(env)
    while True:
        before, action = env.state_dict(), expert.act()
        if env.step(action).success[0]:
            break
    before["steps"][:] = env.horizon - 1
    env.load_state_dict(before)
    step = env.step(action)
    assert step.terminated[0] and not step.truncated[0]


@every_kind
def test_states_round_trip_to_the_very_images(task, sim):
    env = make_envs(task, 2, sim=sim)
    live, states = [], []
    for action in random_actions(env, 3):
        env.step(action)
        live.append(env.observe())
        states.append(env.get_state())
    for i in range(2):  # replayed in another order, and all in one env
        for obs, state in zip(reversed(live), reversed(states), strict=True):
            env.set_state(state[i : i + 1])
            seen = env.observe()
            assert torch.equal(seen.pixels[0], obs.pixels[i])
            assert torch.equal(seen.proprio[0], obs.proprio[i])
            assert torch.equal(env.get_state()[0, 1:], state[i, 1:])


def test_states_of_warp_look_the_same_in_batch():
    fast, exact = make_envs("lift", 2, sim="warp"), make_envs("lift", 2)
    fast.step(random_actions(fast, 1)[0])
    exact.set_state(fast.get_state())
    difference = fast.observe().pixels.float() - exact.observe().pixels.float()
    assert difference.abs().mean() < 0.1


def test_state_must_fit():
    env = make_envs("lift", 2, cameras=())
    for state in (torch.zeros(3, env.state_dim), torch.zeros(1, env.state_dim - 1)):
        with pytest.raises(CaliperError, match="do not fit 2 envs"):
            env.set_state(state)


@every_kind
def test_state_dict_continues_exactly(task, sim):
    env = make_envs(task, 2, sim=sim, horizon=3)
    actions = random_actions(env, 5)
    env.step(actions[0])
    saved = env.state_dict()
    want = [env.step(a) for a in actions[1:]]
    env.reset(seeds=torch.tensor([1000, 1001]))
    env.step(actions[0])
    env.load_state_dict(saved)
    for action, step in zip(actions[1:], want, strict=True):
        again = env.step(action)
        assert same_obs(again.obs, step.obs) and same_obs(again.final_obs, step.final_obs)
        assert torch.equal(again.truncated, step.truncated)


def test_threads_do_not_change_a_bit():
    one, two = make_envs("lift", 8, threads=1), make_envs("lift", 8, threads=2)
    for action in random_actions(one, 3):
        a, b = one.step(action), two.step(action)
    assert torch.equal(one.get_state(), two.get_state())
    assert torch.equal(a.obs.proprio, b.obs.proprio) and torch.equal(a.obs.pixels, b.obs.pixels)


def test_controllers_and_frequencies():
    pose, position = (
        make_envs("lift", 1, cameras=()),
        make_envs("lift", 1, cameras=(), controller="osc_position"),
    )
    assert (pose.action_dim, position.action_dim) == (7, 4)
    action = random_actions(position, 1)[0]
    full = torch.cat([action[:, :3], torch.zeros(1, 3), action[:, 3:]], 1)
    position.step(action)
    pose.step(full)
    assert torch.equal(pose.get_state(), position.get_state())  # the same without turning
    slow = make_envs("lift", 1, cameras=(), control_freq=10)
    slow.step(full)
    assert slow.get_state()[0, 0] == 0.1 and pose.get_state()[0, 0] == 0.05
    # The fingers close at the same speed however often they are told to.
    close = torch.tensor([[0.0] * 6 + [1.0]])
    for env, steps in ((pose, 4), (slow, 2)):
        env.reset(seeds=torch.tensor([0]))
        for _ in range(steps):
            env.step(close)
    torch.testing.assert_close(slow.engine.ctrl[:, -2:], pose.engine.ctrl[:, -2:])


def test_actions_are_clipped_to_one():
    env, ends = make_envs("lift", 1, cameras=()), []
    for scale in (1.0, 9.0):
        env.reset(seeds=torch.tensor([0]))
        env.step(scale * torch.tensor([[1.0, -1, 1, -1, 1, -1, 1]]))
        ends.append(env.get_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"task": "lfit"},
            r"task 'lfit' is unknown; did you mean lift\? There are: lift, pick_place_tray, pick_place_can",
        ),
        (
            {"cameras": ("front",)},
            "camera 'front' is not in the scene; did you mean frontview\\? There are: .*agentview",
        ),
        ({"controller": "joint"}, "controller 'joint' is unknown; choose one of: osc_pose, osc_position"),
        ({"sim": "isaac"}, "sim 'isaac' is unknown; choose one of: batch, warp"),
        ({"control_freq": 30}, "30 does not divide the physics' 500 Hz; try 20 or 10"),
        ({"device": "cuda"}, "sim 'batch' runs on the CPU, not on 'cuda'; use sim=warp"),
    ],
)
def test_unknown_names_get_the_choices(wrong, says):
    with pytest.raises(CaliperError, match=says):
        SimEnv(**{"task": "lift", "num_envs": 1, "size": 16, **wrong}).observe()


def test_an_action_of_the_wrong_shape_is_refused():
    env = make_envs("lift", 2, cameras=())
    for shape in ((2, 4), (1, 7), (7,)):
        with pytest.raises(CaliperError, match=r"osc_pose in 2 envs takes \(2, 7\)"):
            env.step(torch.zeros(shape))


def test_lost_contacts_are_raised(monkeypatch):
    from functools import partial

    from caliper.envs.engines import warp

    monkeypatch.setattr(warp, "WarpEngine", partial(warp.WarpEngine, contacts=1, convex=1))
    env = SimEnv("lift", 2, sim="warp", cameras=())
    for action in random_actions(env, 5):  # the cube falls onto the table and needs four each
        env.step(action)
    with pytest.raises(CaliperError, match="raise CONTACTS"):
        env.check()
    env.check()  # said once


def test_a_search_that_ends_early_is_counted_and_no_error():
    """MuJoCo Warp reports both in one word; such bits are set in sound simulations."""
    env = make_envs("lift", 2, sim="warp", cameras=())
    env.check()
    env.rates()
    flags = wp.to_torch(env.engine.mjw_data.overflow)
    action = torch.zeros(2, env.action_dim)
    for first, second in ((mjw.OverflowType.LS_ITERATIONS, 0), (0, 0)):
        flags.copy_(torch.tensor([int(first), second]))
        env.step(action)
    flags.copy_(torch.tensor([int(mjw.OverflowType.ITERATIONS), int(mjw.OverflowType.EPA_HORIZON)]))
    env.step(action)
    env.check()
    rates = env.rates()
    assert rates == {
        "sim/diverged": 0.0,
        "sim/solver_iterations": 1 / 6,
        "sim/line_search_iterations": 1 / 6,
        "sim/penetration_horizon": 1 / 6,
    }
    assert env.rates() == {}  # since then nothing was checked
    assert flags.tolist() == [0, 0]


@pytest.mark.parametrize("bit", ["NEFC", "BROADPHASE", "NARROWPHASE", "CCD"])
def test_every_lost_contact_is_raised(bit):
    env = make_envs("lift", 2, sim="warp", cameras=())
    wp.to_torch(env.engine.mjw_data.overflow)[1] = int(mjw.OverflowType[bit])
    env.step(torch.zeros(2, env.action_dim))
    with pytest.raises(CaliperError, match="lost contacts"):
        env.check()
    env.check()  # said once


@pytest.mark.parametrize("sim", ["batch", "warp"])
@pytest.mark.parametrize("what", ["qpos", "qvel"])
def test_an_env_that_blows_up_ends_alone(sim, what):
    env, other = SimEnv("lift", 2, sim=sim, size=16, threads=1), make_envs("lift", 2, sim=sim, size=16)
    env.reset(seeds=torch.arange(2))
    actions = random_actions(env, 3)
    for i in (env, other):
        i.step(actions[0])
    getattr(env.engine, what)[1, 3] = torch.nan
    hurt, sound = env.step(actions[1]), other.step(actions[1])
    assert hurt.diverged.tolist() == hurt.truncated.tolist() == [False, True]
    assert not hurt.success.any() and not hurt.reward.any() and not sound.diverged.any()
    assert env.seeds.tolist() == [0, 1 + EPISODE_STRIDE] and env.steps.tolist() == [2, 0]
    assert torch.equal(hurt.final_obs.proprio[0], sound.final_obs.proprio[0])
    assert torch.equal(hurt.obs.pixels[0], sound.obs.pixels[0])
    again = env.step(actions[2])
    assert not again.diverged.any() and again.obs.proprio.isfinite().all()
    other.step(actions[2])
    assert torch.equal(env.get_state()[0], other.get_state()[0])
    other.reset(seeds=env.seeds)
    other.step(actions[2])
    assert torch.equal(env.get_state()[1], other.get_state()[1])  # nothing is left of it
    env.check()
    assert env.rates()["sim/diverged"] == 1.0  # of one episode that ended


def test_too_many_blown_up_episodes_are_an_error_that_names_the_seed():
    env = SimEnv("lift", 1, cameras=(), threads=1, max_diverged=0.01)
    env.reset(seeds=torch.tensor([41]))
    for allowed in (True, False):
        env.engine.qvel[0, 0] = torch.inf
        env.step(torch.zeros(1, env.action_dim))
        if allowed:
            env.check()
    with pytest.raises(CaliperError, match=rf"in 2 of 2 episodes.*seed {41 + EPISODE_STRIDE}; sim\.max_div"):
        env.check()


def test_images_come_in_the_order_asked_for():
    env = make_envs("lift", 2)
    assert env.spec.cameras == CAMERAS
    both, turned = env.render(CAMERAS, 32), env.render(CAMERAS[::-1], 32)
    assert torch.equal(both, turned.flip(1)) and not torch.equal(both, turned)
    assert torch.equal(both, env.observe().pixels)


def test_a_run_goes_on_in_the_other_engine():
    batch, warp = (SimEnv("lift", 2, sim, cameras=(), threads=1) for sim in ("batch", "warp"))
    batch.step(torch.zeros(2, batch.action_dim))
    batch.check()
    warp.load_state_dict(batch.state_dict())
    assert torch.allclose(warp.get_state(), batch.get_state(), atol=1e-6)
    assert torch.equal(warp.seeds, batch.seeds) and torch.equal(warp.steps, batch.steps)
    warp.step(torch.zeros(2, warp.action_dim))
    warp.check()
    assert set(warp.rates()) > {"sim/diverged", "sim/solver_iterations"}
    warp.step(torch.zeros(2, warp.action_dim))
    warp.check()
    batch.load_state_dict(warp.state_dict())
    batch.step(torch.zeros(2, batch.action_dim))
    batch.check()
    assert set(batch.rates()) == {"sim/diverged"}
