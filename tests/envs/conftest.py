"""Envs and oracles are slow to make and easy to restart, so they are kept; of envs, eight kinds."""

from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from caliper.envs.engines.sizes import SIZE
from caliper.envs.scene.scenes import mend_contacts
from caliper.envs.scripts.experts import Expert
from caliper.envs.sim import SimEnv
from caliper.envs.tasks.lift import CUBE_HALF
from tests.oracle import arm_controller, joint_state, make_oracle

CAMERAS = ("agentview", "robot0_eye_in_hand")
CONFIGS = Path(__file__).parents[2] / "configs"


def usual(task):
    """Controller, frequency and horizon that a task's configuration names."""
    files = (CONFIGS / "train.yaml", CONFIGS / "task" / f"{task}.yaml")
    default, own = (yaml.safe_load(file.read_text())["task"] for file in files)
    return {key: own.get(key, default[key]) for key in ("controller", "control_freq", "horizon")}


@lru_cache(8)  # more would take gigabytes
def _make_envs(task, num_envs, **kwargs):
    return SimEnv(task, num_envs, **{"size": 32, "threads": 1, "cameras": CAMERAS, **kwargs})


def make_envs(task, num_envs, first_seed=0, **kwargs):
    """A session-wide environment, restarted with seeds that count from `first_seed`."""
    env = _make_envs(task, num_envs, **kwargs)
    env.reset(seeds=first_seed + torch.arange(num_envs))
    return env


def random_actions(env, steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(steps, env.num_envs, env.action_dim, generator=g) - 1


def clean_expert(env):
    """The script without noise."""
    return spoiled_expert(env, 0.0, 0.0)


def spoiled_expert(env, noise, bias, operator="script"):
    fill = partial(torch.full, (env.num_envs,), dtype=torch.float64)
    return Expert(env, fill(noise), fill(bias), operator=operator)


def same_obs(a, b):
    return torch.equal(a.pixels, b.pixels) and torch.equal(a.proprio, b.proprio)


def start_like(env, oracle):
    """Puts every env into the oracle's state at the start of an episode, its nullspace posture included.

    A size that an env's episode has drawn stays.
    """
    qpos, qvel = joint_state(oracle, env.engine.model)
    state = env.state_dict()
    state["qpos"][:] = torch.as_tensor(qpos)
    state["qvel"][:] = torch.as_tensor(qvel)
    model = env.engine.model
    for body in np.flatnonzero(model.body_mocapid >= 0):
        if model.body(body).name.startswith(SIZE):
            continue
        there = oracle.sim.model._model.body(model.body(body).name)
        state["mocap_pos"][:, model.body_mocapid[body]] = torch.as_tensor(there.pos)
        state["mocap_quat"][:, model.body_mocapid[body]] = torch.as_tensor(there.quat)
    for name in ("ctrl", "warmstart", "steps", *env.engine.controller.memory):
        state[name].zero_()
    if "posture" in state:
        state["posture"][:] = torch.as_tensor(arm_controller(oracle).initial_joint)
    env.load_state_dict(state)


def _box_of_our_size(box):
    """robosuite draws Lift's cube anew at each reset, 20 to 22 mm; the scene has one size."""

    def make(*args, size_min, size_max, **kwargs):
        assert np.all(np.array(size_min) <= CUBE_HALF) and np.all(np.array(size_max) >= CUBE_HALF)
        return box(*args, size=[CUBE_HALF] * 3, **kwargs)

    return make


@cache
def _oracle(task, controller, robot):
    oracle = make_oracle(task, controller, robot, horizon=1 << 30, ignore_done=True)
    if task == "lift":
        import robosuite.environments.manipulation.lift as module

        box, module.BoxObject = module.BoxObject, _box_of_our_size(module.BoxObject)
        oracle.reset()  # builds the model anew
        module.BoxObject = box
        mend_contacts(oracle)
    oracle.hard_reset = False  # from here on it keeps the model
    return oracle


@pytest.fixture
def oracle():
    """`oracle(task, controller, robot)`: robosuite's environment, at an episode's start, seeded."""

    def make(task, controller="osc_pose", robot="panda", seed=0):
        env = _oracle(task, controller, robot)
        env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        env.reset()
        return env

    return make
