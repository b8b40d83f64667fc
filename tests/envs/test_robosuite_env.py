"""Any environment of robosuite under the contract of `VectorEnv`, held to robosuite's own `env.step`."""

from functools import lru_cache

import numpy as np
import pytest
import torch

from caliper.config.build import make_envs, obs_spec
from caliper.config.compose import compose
from caliper.config.validate import check
from caliper.envs.robosuite_env import RobosuiteEnv as Env
from caliper.envs.robosuite_env import _make, blueprint, environments
from caliper.errors import CaliperError
from tests.envs.conftest import random_actions

TWO = ("panda", "panda")
CAMERAS = ("agentview", "frontview")


@lru_cache(4)
def _env(num_envs, horizon, **kwargs):
    return Env("TwoArmLift", num_envs, TWO, horizon=horizon, size=32, threads=1, **kwargs)


def make(num_envs, first_seed=5, horizon=4, **kwargs):
    env = _env(num_envs, horizon, **{"cameras": ("agentview",), **kwargs})
    env.reset(seeds=first_seed + torch.arange(num_envs))
    return env


def parts(obs):
    return [(name, obs.tensors[name]) for name in obs.tensors]


def same(a, b):
    return all(torch.equal(x, y) for (_, x), (_, y) in zip(parts(a), parts(b), strict=True))


def test_every_step_is_robosuites():
    env = make(1, first_seed=11, horizon=50)
    theirs = _make("TwoArmLift", TWO, "osc_pose", 20, {})
    theirs.rng.bit_generator.state = np.random.default_rng(11).bit_generator.state
    theirs.reset()
    for action in random_actions(env, 12):
        env.step(action)
        theirs.step(action[0].double().numpy())
        data = theirs.sim.data._data
        state = env.get_state()[0].numpy()
        np.testing.assert_array_equal(state[: 1 + len(data.qpos)], np.r_[data.time, data.qpos])
        np.testing.assert_array_equal(state[1 + len(data.qpos) :][: len(data.qvel)], data.qvel)


def test_an_env_does_not_depend_on_the_others_and_a_saved_one_goes_on_exactly():
    env, alone = make(2), make(1, first_seed=6)
    first, last = random_actions(env, 6), random_actions(env, 6, seed=1)  # across the borders of episodes
    for move in first:
        a, b = env.step(move), alone.step(move[1:])
        assert same(a.obs[1:], b.obs) and same(a.final_obs[1:], b.final_obs)
        assert a.truncated[1:].equal(b.truncated)
    saved = env.state_dict()
    ahead = [env.step(move) for move in last]
    env.reset(seeds=torch.tensor([90, 91]))
    env.load_state_dict(saved)
    assert all(same(a.obs, env.step(move).obs) for a, move in zip(ahead, last, strict=True))
    with pytest.raises(ValueError, match="envs"):
        alone.load_state_dict(saved)


def test_a_recorded_state_is_seen_as_it_was_live():
    env = make(2, depth=True, segmentation=True, cameras=CAMERAS)
    env.step(random_actions(env, 1)[0])
    state, seen = env.get_state(), env.observe()
    env.step(random_actions(env, 1, seed=3)[0])
    assert not same(env.observe(), seen)
    env.set_state(state)
    assert same(env.observe(), seen) and torch.equal(env.get_state(), state)
    with pytest.raises(CaliperError, match="do not fit"):
        env.set_state(state[:, 1:])


def test_images_show_the_scene():
    """Both arms, both grippers and the pot are in sight, nearer than the floor; and the arms move."""
    env = make(2, depth=True, segmentation=True, cameras=CAMERAS)
    before = env.observe()
    assert set(before.more["segmentation"][0, 1].unique().tolist()) >= {0, 1, 2, 3, 4, 5}
    thing = before.more["segmentation"][0, 1] > 0
    depth = before.more["depth"][0, 1]
    assert 0.3 < depth[thing].float().mean() < depth[~thing].float().mean() < 20
    assert before.pixels[0, 0].float().std() > 20
    for move in random_actions(env, 2):
        env.step(move)
    assert not torch.equal(before.pixels, env.observe().pixels)


def test_success_is_robosuites_and_ends_an_episode():
    env = make(2)
    inner = env._envs[0]
    inner._check_success = lambda: True
    try:
        step = env.step(torch.zeros(2, env.action_dim))
    finally:
        del inner._check_success
    assert step.reward.tolist() == [1, 0] and step.terminated.tolist() == [True, False]
    assert not step.truncated.any() and env.steps.tolist() == [0, 1]
    env.reset()
    state = env.get_state()
    pot = 1 + env._puppets.model.jnt_qposadr[env._puppets.model.joint("pot_joint0").id]
    state[0, pot + 2] += 0.3
    env.set_state(state)  # the pot in the air, above the table by more than 10 cm
    assert env._envs[0]._check_success() and not env._envs[1]._check_success()


def test_what_blew_up_ends_its_episode_alone():
    env = make(2)
    env._envs[0].sim.data._data.qvel[:] = np.nan
    step = env.step(torch.zeros(2, env.action_dim))
    assert step.diverged.tolist() == [True, False] == step.truncated.tolist()
    assert torch.isfinite(step.obs.proprio).all() and not step.success.any()
    env.check()


def test_what_cannot_be_made_is_refused_in_a_sentence():
    for words, said in (
        (["task.env=TwoArmLft"], "did you mean TwoArmLift"),
        (
            ["task.robots=[panda]"],
            r"takes 2 robots, and task.robots names 1; say task.robots=\[panda,panda\]",
        ),
        (["task.env=Lift"], r"takes 1 robot, and task.robots names 2"),
        (["task.robots=[panda,pandra]"], "did you mean panda"),
        (["task.controller=osc_pose_absolute"], "with task.env, choose"),
        (["task.control_freq=30"], "does not divide"),
        (["task.cameras=[agentvew]"], "did you mean agentview"),
        (["task.proprio=[robot0_eef]"], "task.proprio: there is no"),
        (["task.kwargs.hard_reset=true"], "is Caliper's to say"),
        (["task.kwargs.env_configuration=odd"], "cannot be made with"),
        (["task.dense=true"], "leave them out"),
    ):
        with pytest.raises(CaliperError, match=said):
            check(compose(["task=robosuite", "agent=sac", *words]))


def test_a_run_makes_what_its_configuration_says():
    words = ["task=robosuite", "task.robots=[panda,panda]", "agent=sac", "obs=state", "task.frame_stack=2"]
    config = compose([*words, "task.proprio=[robot1_eef_pos]"])
    env = make_envs(config, 1)
    assert env.spec == obs_spec(config) and env.action_dim == 14
    assert env.observe().proprio.shape == (1, 2 * (3 + 19))  # the hand, and what is told of the pot


@pytest.mark.slow
@pytest.mark.parametrize("name", environments())
def test_every_environment_of_robosuite_steps_and_is_drawn(name):
    robots = ["panda"] * environments()[name]
    plan = blueprint(name, robots, "osc_pose", 20, {})
    env = Env(name, 1, robots, cameras=("agentview",), size=32, threads=1, horizon=3, privileged=True)
    assert env.state_dim == plan.state_dim and env.action_dim == plan.action_dim
    for move in random_actions(env, 4):
        step = env.step(move)
        assert torch.isfinite(step.obs.proprio).all() and step.obs.pixels.float().std() > 5
    state, seen = env.get_state(), env.observe()
    env.step(random_actions(env, 1)[0])
    env.set_state(state)
    assert torch.equal(env.observe().pixels, seen.pixels)
