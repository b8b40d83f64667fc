"""gymnasium-robotics' environments under the contract of `VectorEnv`."""

import pytest
import torch

from caliper.config.build import make_envs
from caliper.config.compose import compose
from caliper.errors import CaliperError

pytest.importorskip("gymnasium_robotics", reason="needs the extra robotics")

from caliper.envs import gymnasium_env
from caliper.envs.gymnasium_env import GymnasiumEnv

TASKS = ("antmaze", "kitchen", "adroit_pen", "adroit_door", "adroit_relocate")
SLOW_KITCHEN = [pytest.param(t, marks=pytest.mark.slow) if t == "kitchen" else t for t in TASKS]
PROPRIO = {"antmaze": 31, "kitchen": 59, "adroit_pen": 45, "adroit_door": 39, "adroit_relocate": 39}
DOOR = "AdroitHandDoor-v1"


def make(task, num_envs, *words):
    return make_envs(compose([f"task={task}", *words]), num_envs)


def actions(env, steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(steps, env.num_envs, env.action_dim, generator=g) - 1


def played(env, moves):
    return [(s.obs.proprio, s.final_obs.proprio, s.reward, s.truncated) for s in map(env.step, moves)]


def same(a, b):
    return all(torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


@pytest.mark.parametrize("task", SLOW_KITCHEN)
def test_an_env_does_not_depend_on_the_others_and_a_saved_one_goes_on_exactly(task):
    env, alone = make(task, 2, "task.horizon=7"), make(task, 1, "task.horizon=7")
    first, last = actions(env, 10), actions(env, 8, seed=1)  # across the borders of episodes
    env.reset(seeds=torch.tensor([5, 6]))
    alone.reset(seeds=torch.tensor([6]))
    together = played(env, first)
    assert same([[part[1:] for part in row] for row in together], played(alone, first[:, 1:]))
    saved = env.state_dict()
    ahead = played(env, last)
    other = make(task, 2, "task.horizon=7", "seed=3")
    other.load_state_dict(saved)
    assert torch.equal(other.get_state(), other.final_state)
    assert same(ahead, played(other, last))
    with pytest.raises(ValueError, match="envs"):
        alone.load_state_dict(saved)


@pytest.mark.parametrize("task", TASKS)
def test_what_a_step_says(task):
    env = make(task, 2, "task.horizon=3")
    assert env.spec.cameras == () and env.spec.proprio == PROPRIO[task]
    start = env.reset(seeds=torch.tensor([1, 2]))
    assert start.pixels.shape == (2, 0, 3, 1, 1) and start.pixels.dtype == torch.uint8
    assert start.proprio.shape == (2, PROPRIO[task]) and start.proprio.dtype == torch.float32
    for move in actions(env, 3):
        step = env.step(move)
        assert step.reward.dtype == torch.float32 and step.success.dtype == torch.bool
        env.check()
    assert step.truncated.all() and not step.terminated.any()
    assert not torch.equal(step.final_obs.proprio, step.obs.proprio)
    assert env.final_state.shape == (2, env.state_dim) and (env.final_state[:, 0] > 0).all()
    assert (env.get_state()[:, 0] == 0).all() and (env.steps == 0).all()
    kept = step.obs.proprio.clone()
    env.step(actions(env, 1)[0])
    assert torch.equal(step.obs.proprio, kept)  # a step's tensors are not written to by the next
    assert (
        not torch.equal(env.reset(seeds=torch.tensor([1, 9])).proprio[1], start.proprio[1])
        or task == "kitchen"
    )


def test_a_mask_resets_some_envs():
    env = make("adroit_door", 2)
    env.step(actions(env, 1)[0])
    before = env.observe().proprio
    after = env.reset(torch.tensor([True, False]), torch.tensor([9, 9])).proprio
    assert torch.equal(before[1], after[1]) and not torch.equal(before[0], after[0])
    assert env.seeds[0] == 9 and env.seeds[1] != 9 and env.steps.tolist() == [0, 1]


def test_success_ends_an_episode_with_a_reward_of_one():
    env = GymnasiumEnv(DOOR, 2, horizon=50)
    inner = env.envs[0]
    state = inner.get_env_state()
    state["qpos"][inner.door_hinge_addrs] = 1.5  # the door is open
    inner.set_env_state(state)
    step = env.step(torch.zeros(2, 28))
    assert step.reward.tolist() == [1, 0]
    assert step.terminated.tolist() == step.success.tolist() == [True, False]
    assert not step.truncated.any()
    assert step.final_obs.proprio[0, 28] > 1.35 and step.obs.proprio[0, 28] < 0.1


def test_the_kitchen_counts_what_is_complete_now_and_ends_with_all():
    env = make("kitchen", 1)
    inner = env.envs[0]
    goals = {"kettle": (23, [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]), "microwave": (22, [-0.75])}
    rewards = []
    for start, goal in (*goals.values(), (17, [-0.69, -0.05]), (19, [0.37])):
        qpos = inner.data.qpos.copy()
        qpos[start : start + len(goal)] = goal
        inner.robot_env.set_state(qpos, 0 * inner.data.qvel)
        step = env.step(torch.zeros(1, 9))
        rewards.append(step.reward.item())
    assert rewards == [1, 2, 3, 4]
    assert step.terminated.all() and step.success.all()


def test_antmaze_starts_and_ends_at_the_marked_cells():
    """One start and one goal, each within a quarter of a cell's 4 metres; the goal is entries 2 and 3."""
    env = make("antmaze_medium", 4)
    seen = env.reset(seeds=torch.arange(4)).proprio
    assert ((seen[:, :2] - torch.tensor([-10.0, 10.0])).abs() <= 1).all()
    assert ((seen[:, 2:4] - torch.tensor([10.0, -10.0])).abs() <= 1).all()
    assert not torch.equal(seen[0, :4], seen[1, :4])
    inner = env.envs[0]
    inner.goal = inner.data.qpos[:2].copy()
    assert env.step(torch.zeros(4, 8)).terminated.tolist() == [True, False, False, False]


def test_actions_are_scaled_to_the_space():
    env = GymnasiumEnv(DOOR, 1)
    env._middle, env._reach = env._middle + 0.25, env._reach / 2  # as of a space from -0.25 to 0.75
    taken = []
    step = env.envs[0].step
    env.envs[0].step = lambda action: taken.append(action.copy()) or step(action)
    for value in (-1.0, 0.0, 1.0, 5.0):
        env.step(torch.full((1, 28), value))
    assert [a[0] for a in taken] == [-0.25, 0.25, 0.75, 0.75]


def test_states_are_drawn_with_what_the_episode_moved():
    """Where the door hangs is not among the joints; a state has it, and a film shows it."""
    env = make("adroit_door", 2)
    env.reset(seeds=torch.tensor([1, 2]))
    state = env.get_state()
    hung = [torch.as_tensor(e.model.body("frame").pos) for e in env.envs]
    assert not torch.equal(*hung) and torch.equal(state[:, -7:-4], torch.stack(hung))
    first, second = env.render(("fixed",), 24)[:, 0]
    env.step(torch.ones(2, 28))
    env.set_state(state.flip(0))
    swapped = env.render(("fixed",), 24)[:, 0]
    assert torch.equal(swapped[0], second) and torch.equal(swapped[1], first)
    assert not torch.equal(first, second) and first.float().std() > 20
    env.reset(seeds=torch.tensor([2, 1]))
    assert torch.equal(env.render(("fixed",), 24)[:, 0], swapped)


def test_what_cannot_be_done_is_refused_in_a_sentence():
    env = GymnasiumEnv(DOOR, 1)
    with pytest.raises(CaliperError, match="camera 'front' is not in the scene; choose one of: fixed"):
        env.render(("front",), 64)
    with pytest.raises(CaliperError, match="do not fit 1 envs"):
        env.set_state(env.get_state().repeat(2, 1))
    with pytest.raises(CaliperError, match="is not in Gymnasium's registry"):
        GymnasiumEnv("os:AntMaze_UMaze-v4", 1)
    with pytest.raises(CaliperError, match=r"cannot be made with task\.kwargs="):
        GymnasiumEnv(DOOR, 1, {"reward_type": "none"})
    with pytest.raises(CaliperError, match="does not say whether it is solved; use its own reward"):
        GymnasiumEnv("FrankaKitchen-v1", 1).step(torch.zeros(1, 9))
    env._obs[0, 0] = float("nan")
    with pytest.raises(CaliperError, match="blew up"):
        env.check()


def test_without_the_library_the_fix_is_named(monkeypatch):
    gymnasium_env._library.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "gymnasium_robotics", None)
    with pytest.raises(
        CaliperError, match=r"needs gymnasium-robotics .*pip install 'caliper-rl\[robotics\]'"
    ):
        GymnasiumEnv(DOOR, 1)
    gymnasium_env._library.cache_clear()


def test_antmaze_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make("antmaze", 2)
    assert list(tmp_path.iterdir()) == []
